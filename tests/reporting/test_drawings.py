from __future__ import annotations

import io
from base64 import b64decode
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vqabench.data.prepare.digits import Picture
from vqabench.evaluation.findings import Region
from vqabench.reporting.drawings import draw_regions, format_picture

REGIONS = (
    Region((0.0, 0.0, 0.2, 0.2), "sheep", None),
    Region((0.7, 0.4, 0.9, 0.6), "", Picture(1, 1, b"\xff\0\0")),
)


@settings(deadline=None)  # the first picture that Pillow reads loads its formats
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_picture_is_a_png_that_others_read(width: int, height: int, data: st.DataObject) -> None:
    rgb = data.draw(st.binary(min_size=3 * width * height, max_size=3 * width * height))
    kind, _, content = format_picture(Picture(width, height, rgb)).partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(b64decode(content))) as image:
        image.load()
        assert (image.size, image.mode, image.tobytes()) == ((width, height), "RGB", rgb)


def test_regions_lie_where_they_are_and_attention_is_the_outline() -> None:
    drawing = ElementTree.fromstring(draw_regions("k", "t", REGIONS, (0.25, 0.75)))
    boxes = [rect for rect in drawing.iter("rect") if rect.get("class") == "region"]
    placed = [tuple(float(rect.get(side) or "") for side in ("x", "y", "width", "height")) for rect in boxes]
    assert placed == [(0, 0, 20, 20), (70, 40, 20, 20)]
    widths = [float(rect.get("stroke-width") or "") for rect in boxes]
    assert widths[1] > widths[0]
    assert [text.text for text in drawing.iter("text")] == ["25%", "75%"]
    assert len(list(drawing.iter("image"))) == 1


def test_who_does_not_see_it_is_told_where_the_model_looks() -> None:
    description = ElementTree.fromstring(draw_regions("k", "t", REGIONS, (0.25, 0.75))).find("desc")
    assert description is not None
    assert description.text == "2 regions. Attention: 75% on region 2, middle right; 25% on sheep, top left."


@pytest.mark.parametrize("attention", [None, (0.0, 0.0)])
def test_an_image_without_attention_is_drawn_without_numbers(attention: tuple[float, ...] | None) -> None:
    drawing = ElementTree.fromstring(draw_regions("k", "t", REGIONS, attention))
    assert not list(drawing.iter("text"))

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqabench.evaluation.findings import Curve, Point
from vqabench.reporting.charts import (
    DASHES,
    STYLES,
    Bar,
    BarChart,
    Bars,
    Figure,
    Line,
    LineChart,
    Scale,
)
from vqabench.reporting.svg import MARKERS, choose_ticks, draw, draw_markers, place

HOSTILE = "<script>alert(1)</script>\"'&"


def number(text: str | None) -> float:
    return float((text or "").removesuffix("%"))


def rects(drawing: Element) -> list[tuple[float, float]]:
    return [(number(rect.get("x")), number(rect.get("width"))) for rect in drawing.iter("rect")]


def curve(*means: float, seeds: int = 2) -> Curve:
    return Curve(seeds, tuple(Point(n, mean, mean - 1, mean + 2) for n, mean in enumerate(means, 1)))


def draw_bars(groups: list[Bars], scale: Scale, title: str = "t", key: str = "k") -> str:
    return draw(Figure("", title, BarChart("", tuple(groups), scale)), key)


def draw_lines(curves: list[tuple[int, Curve]], title: str = "t") -> str:
    return draw(Figure("", title, LineChart(tuple(Line("n", style, curve) for style, curve in curves))), "k")


def test_bars_are_as_long_as_their_numbers() -> None:
    drawing = ElementTree.fromstring(
        draw_bars([Bars("a", (Bar(10.0),)), Bars("b", (Bar(40.0), Bar(0.0)))], Scale(0, 40))
    )
    (_, first), (_, second), (_, third) = rects(drawing)
    assert first * 4 == pytest.approx(second)
    assert third == 0
    assert [text.text for text in drawing.iter("text")] == ["a", "10.0", "b", "40.0", "0.0"]


def test_losses_go_to_the_left_of_where_gains_begin() -> None:
    scale = Scale(-10, 30, signed=True)
    drawing = ElementTree.fromstring(draw_bars([Bars("a", (Bar(30.0),)), Bars("b", (Bar(-10.0),))], scale))
    (gain_x, gain_width), (loss_x, loss_width) = rects(drawing)
    assert loss_x + loss_width == pytest.approx(gain_x, abs=0.02)
    assert gain_width == pytest.approx(3 * loss_width, abs=0.05)
    assert {text.text for text in drawing.iter("text")} == {"a", "b", "+30.0", "-10.0"}


def test_a_whisker_goes_from_end_to_end() -> None:
    scale = Scale(0, 50)
    drawing = ElementTree.fromstring(draw_bars([Bars("a", (Bar(40.0, (35.0, 50.0)),))], scale))
    across = next(line for line in drawing.iter("line") if line.get("class") == "whisker")
    assert number(across.get("x1")) == pytest.approx(place(scale, 35))
    assert number(across.get("x2")) == pytest.approx(place(scale, 50))


def test_what_is_not_known_is_a_dash_and_no_bar() -> None:
    drawing = ElementTree.fromstring(draw_bars([Bars("a", (Bar(None),))], Scale(0, 0)))
    assert rects(drawing) == [(0, 0)]
    assert [text.text for text in drawing.iter("text")] == ["a", "–"]


@given(st.floats(-60, 0), st.floats(0, 60), st.floats(0, 1))
def test_every_number_of_a_scale_has_its_place_in_the_drawing(low: float, high: float, share: float) -> None:
    scale = Scale(low, high)
    assert 0 <= place(scale, low + share * (high - low)) <= 100


def test_lines_are_told_apart_by_dashes_and_markers_too() -> None:
    assert len(set(DASHES)) == len(set(MARKERS)) == STYLES
    drawing = ElementTree.fromstring(draw_lines([(n, curve(10.0 + n, 20.0)) for n in range(STYLES)]))
    lines = list(drawing.iter("polyline"))
    assert [line.get("stroke-dasharray", "") for line in lines] == [" ".join(map(str, dashes)) for dashes in DASHES]
    marks = {use.get("href") for use in drawing.iter("use")}
    shapes = {f"#{path.get('id')}" for path in ElementTree.fromstring(draw_markers()).iter("path")}
    assert marks == shapes


def test_a_line_goes_through_its_points_and_a_band_around_them() -> None:
    drawing = ElementTree.fromstring(draw_lines([(0, curve(20.0, 40.0, 98.0))]))
    (line,), (band,) = (list(drawing.iter(tag)) for tag in ("polyline", "polygon"))
    points, outline = (
        [tuple(map(float, pair.split(","))) for pair in (shape.get("points") or "").split()]
        for shape in (line, band)
    )
    assert [x for x, _ in points] == [0, 50, 100]
    heights = [190 * (1 - value / 100) for value in (20, 40, 98)]
    assert [y for _, y in points] == pytest.approx(heights, abs=0.06)
    assert len(outline) == 6
    assert outline[0][1] == pytest.approx(190 * (1 - 0.19), abs=0.06)
    assert outline[-1][1] == pytest.approx(190 * (1 - 0.22), abs=0.06)


def test_a_single_seed_and_a_single_epoch_are_drawn_without_a_band() -> None:
    drawing = ElementTree.fromstring(draw_lines([(0, curve(20.0, seeds=1))]))
    assert not list(drawing.iter("polygon"))
    assert [use.get("x") for use in drawing.iter("use")] == ["50%"]


@given(st.floats(0.001, 1000))
def test_ticks_are_round_few_and_reach_the_highest_number(highest: float) -> None:
    ticks = choose_ticks(highest)
    assert 2 <= len(ticks) <= 6
    assert ticks[0] == 0
    assert ticks[-1] >= highest * (1 - 1e-6)
    assert re.fullmatch(r"[125]", f"{ticks[1]:e}"[0])


def test_ticks_of_nothing_are_there() -> None:
    assert choose_ticks(0.0) == [0.0]


def test_text_from_outside_stays_text() -> None:
    groups = [Bars(HOSTILE * 3, (Bar(1.0),))]
    for drawing in (draw_bars(groups, Scale(0, 1), HOSTILE), draw_lines([(0, curve(1.0))], HOSTILE)):
        assert "<script" not in drawing
        title = ElementTree.fromstring(drawing).find("title")
        assert title is not None
        assert title.text == HOSTILE


def test_a_drawing_has_a_name_and_a_description() -> None:
    drawing = ElementTree.fromstring(draw_bars([Bars("a", (Bar(1.0),))], Scale(0, 1), "Accuracy", "k7"))
    assert drawing.get("role") == "img"
    named = (drawing.get("aria-labelledby") or "").split()
    assert next(element.text for element in drawing if element.get("id") in named) == "Accuracy"
    assert {element.get("id") for element in drawing if element.tag in ("title", "desc")} == set(named)

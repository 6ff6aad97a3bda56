"""The regions of an image, how much a model attends to each, and changed questions, as SVG."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree.ElementTree import SubElement

from markupsafe import Markup

from vqabench.data.prepare.digits import Picture
from vqabench.errors import counted
from vqabench.evaluation.findings import ChangedPair, ChangedQuestion, Region
from vqabench.reporting.charts import name_row, name_split
from vqabench.reporting.svg import begin, finish

LABELLED = 0.095
"""Attention from which the percentage is written next to the region."""


def draw_regions(key: str, title: str, regions: Sequence[Region], attention: Sequence[float] | None) -> Markup:
    """Draw regions at their positions, as if the image were square; bolder outlines mean more attention."""
    drawing = begin(key, title, _describe(regions, attention), {"class": "scene", "viewBox": "0 0 100 100"})
    SubElement(drawing, "rect", {"class": "ground", "width": "100", "height": "100"})
    weights = [0.0] * len(regions) if attention is None else attention
    largest = max(weights, default=0.0) or 1.0
    order = sorted(range(len(regions)), key=lambda number: weights[number])  # the most attended regions on top
    for number in order:
        region, weight = regions[number], weights[number]
        left, top, right, bottom = (100 * side for side in region.box)
        box = {"x": _short(left), "y": _short(top), "width": _short(right - left), "height": _short(bottom - top)}
        if region.picture is not None:
            href = format_picture(region.picture)
            SubElement(drawing, "image", {**box, "preserveAspectRatio": "none", "href": href})
        if attention is not None or region.picture is None:
            strong = weight / largest
            bold = {"stroke-width": _short(0.4 + 1.8 * strong), "stroke-opacity": _short(0.25 + 0.75 * strong)}
            SubElement(drawing, "rect", {"class": "region", **box, **bold})
        if weight >= LABELLED:
            at = {"x": _short(left), "y": _short(top - 1.5 if top > 7 else bottom + 6)}
            SubElement(drawing, "text", at).text = f"{weight:.0%}"
    return finish(drawing)


def _describe(regions: Sequence[Region], attention: Sequence[float] | None) -> str:
    count = counted(len(regions), "region")
    if attention is None:
        return f"{count}."
    most = []
    for number in sorted(range(len(regions)), key=lambda number: -attention[number])[:5]:
        left, top, right, bottom = regions[number].box
        x, y = (left + right) / 2, (top + bottom) / 2
        down = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else "middle"
        across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "centre"
        name = regions[number].name or f"region {number + 1}"
        most.append(f"{attention[number]:.0%} on {name}, {down} {across}")
    return f"{count}. Attention: {'; '.join(most)}."


def format_picture(picture: Picture) -> str:
    """Return a picture as a PNG in a `data:` address."""
    width = 3 * picture.width
    rows = [picture.rgb[start : start + width] for start in range(0, len(picture.rgb), width)]
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)  # 8 bits, red green blue
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return f"data:image/png;base64,{b64encode(content).decode()}"


def _short(value: float) -> str:
    return f"{round(value, 2):g}"


def lay_out_pair(pair: ChangedPair, new_key: Callable[[], str]) -> dict[str, Any]:
    """Return two runs and examples of what the second changed, as the page's template expects them."""
    changed = pair.gained + pair.lost
    summary = (
        f"Of {pair.questions:,} questions ({name_split(pair.split, pair.after)}, seed {pair.seed}), {changed:,} "
        f"changed in accuracy: {pair.gained:,} gained, {pair.lost:,} lost. Some of those that changed the most:"
    )
    chosen = {
        f"Gained, {len(pair.best)} of {pair.gained:,}": pair.best,
        f"Lost, {len(pair.worst)} of {pair.lost:,}": pair.worst,
    }
    return {
        "title": f"{name_row(pair.after)} against {name_row(pair.before)}",
        "summary": summary,
        "missing": pair.missing,
        "parts": [
            (title, [_lay_out(asked, pair, new_key) for asked in part]) for title, part in chosen.items() if part
        ],
    }


def _lay_out(asked: ChangedQuestion, pair: ChangedPair, new_key: Callable[[], str]) -> dict[str, Any]:
    """Return a question, the answers of both sides with their attention, and its image if neither has attention."""
    sides: list[dict[str, Any]] = []
    for row, reply in ((pair.before, asked.before), (pair.after, asked.after)):
        name, drawing = name_row(row), None
        if reply.attention is not None and asked.regions:
            title = f"Attention of {name} to “{asked.question}”"
            drawing = draw_regions(new_key(), title, asked.regions, reply.attention)
        sides.append({"name": name, "reply": reply, "drawing": drawing})
    scene = None
    if not any(side["drawing"] for side in sides) and any(region.picture for region in asked.regions):
        scene = draw_regions(new_key(), f"Image of “{asked.question}”", asked.regions, None)
    return {"asked": asked, "scene": scene, "sides": sides}

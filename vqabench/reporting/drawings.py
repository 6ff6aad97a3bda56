"""The regions of an image, how much a model attends to each, and changed questions, as SVG."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import SubElement

from markupsafe import Markup

from vqabench.data.prepare.digits import Picture
from vqabench.errors import counted
from vqabench.evaluation.findings import ChangedPair, ChangedQuestion, Region, Reply
from vqabench.reporting.charts import name_row, name_split
from vqabench.reporting.svg import begin, finish

LABELLED = 0.095
"""Attention from which the percentage is written next to the region."""


def draw_regions(key: str, title: str, regions: Sequence[Region], attention: Sequence[float] | None) -> Markup:
    """Draw regions at their positions, as if the image were square; bolder outlines mean more attention."""
    drawing = begin(key, title, _describe(regions, attention), viewBox="0 0 100 100")
    drawing.attrib["class"] = "scene"
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
    order = sorted(range(len(regions)), key=lambda number: -attention[number])[:5]
    message = "; ".join(f"{attention[number]:.0%} on {_name(regions[number], number)}" for number in order)
    return f"{count}. Attention: {message}."


def _name(region: Region, number: int) -> str:
    left, top, right, bottom = region.box
    x, y = (left + right) / 2, (top + bottom) / 2
    down = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else "middle"
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "centre"
    return f"{region.name or f'region {number + 1}'}, {down} {across}"


def format_picture(picture: Picture) -> str:
    """Return a picture as a PNG in a `data:` address."""
    width = 3 * picture.width
    rows = [picture.rgb[start : start + width] for start in range(0, len(picture.rgb), width)]
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)  # 8 bits, red green blue
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)
    return f"data:image/png;base64,{b64encode(content).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _short(value: float) -> str:
    return f"{round(value, 2):g}"


@dataclass(frozen=True)
class Side:
    """One run's answer to a question, and its attention."""

    name: str
    reply: Reply
    drawing: Markup | None


@dataclass(frozen=True)
class Card:
    """A question."""

    asked: ChangedQuestion
    scene: Markup | None
    """Its image, if it is drawn for neither side."""
    sides: tuple[Side, Side]


@dataclass(frozen=True)
class PairCards:
    """Two runs, and examples of what the second changed."""

    title: str
    summary: str
    missing: tuple[str, ...]
    parts: tuple[tuple[str, tuple[Card, ...]], ...]
    """Gained and lost."""


def lay_out_pair(pair: ChangedPair, new_key: Callable[[], str]) -> PairCards:
    """Return the examples of a pair, laid out as cards."""
    changed = pair.gained + pair.lost
    summary = (
        f"Of {pair.questions:,} questions ({name_split(pair.split, pair.after)}, seed {pair.seed}), {changed:,} "
        f"changed in accuracy: {pair.gained:,} gained, {pair.lost:,} lost. Some of those that changed the most:"
    )
    titles = (f"Gained, {len(pair.best)} of {pair.gained:,}", f"Lost, {len(pair.worst)} of {pair.lost:,}")
    parts = tuple(
        (title, tuple(_lay_out(asked, pair, new_key) for asked in chosen))
        for title, chosen in zip(titles, (pair.best, pair.worst), strict=True)
        if chosen
    )
    return PairCards(f"{name_row(pair.after)} against {name_row(pair.before)}", summary, pair.missing, parts)


def _lay_out(asked: ChangedQuestion, pair: ChangedPair, new_key: Callable[[], str]) -> Card:
    sides = tuple(
        Side(name_row(row), reply, _draw(asked, name_row(row), reply, new_key))
        for row, reply in ((pair.before, asked.before), (pair.after, asked.after))
    )
    seen = any(side.drawing is not None for side in sides)
    known = any(region.picture is not None for region in asked.regions)
    title = f"Image of “{asked.question}”"
    scene = draw_regions(new_key(), title, asked.regions, None) if known and not seen else None
    return Card(asked, scene, (sides[0], sides[1]))


def _draw(asked: ChangedQuestion, name: str, reply: Reply, new_key: Callable[[], str]) -> Markup | None:
    if reply.attention is None or not asked.regions:
        return None
    return draw_regions(new_key(), f"Attention of {name} to “{asked.question}”", asked.regions, reply.attention)

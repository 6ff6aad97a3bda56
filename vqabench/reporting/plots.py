"""Charts as SVG, to stand in a page: its style gives them their colours, in light and in dark.

They are as wide as the room they get; positions across are shares of it, heights and texts are in pixels. So a
telephone shows the same text as a large screen. What tells series apart is never the colour alone: lines differ in
dashes and markers too, bars in being full or hollow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from vqabench.evaluation.findings import Curve

STYLES = 8
"""Series that can be told apart."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "14 4", "4 2 1 2", "1 4", "12 3 4 3")
MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-4-4h8v8h-8z",
    "M0-5l5 9h-10z",
    "M0-5l5 5l-5 5l-5-5z",
    "M0 5l5-9h-10z",
    "M-4-4l8 8M4-4l-8 8",
    "M0-5v10M-5 0h10",
    "M-5-2h10v4h-10z",
)
ROOM_FOR_TEXT = 22.0
"""Percent of the width, at each end where a number may stand."""
LONGEST_LABEL = 44
MOST_MARKERS = 12
"""On one line."""
PLOT_HEIGHT, LABEL_HEIGHT, BAR_HEIGHT = 190, 16, 13
DOTS_HEIGHT, OVERLAY_HEIGHT = 260, 36


@dataclass(frozen=True)
class Bar:
    """One number of a bar chart; None is drawn as a dash."""

    value: float | None
    ends: tuple[float, float] | None = None
    """Of the line across its end, such as one of a deviation."""
    hollow: bool = False


@dataclass(frozen=True)
class Dot:
    """One point of a scatter plot: a number across and one up, each with the ends of its line."""

    name: str
    x: float
    y: float
    x_ends: tuple[float, float] | None = None
    y_ends: tuple[float, float] | None = None
    style: int = 0


@dataclass(frozen=True)
class Series:
    """One distribution over the answers of an overlay: bars behind, an outline, or marks."""

    shares: tuple[float, ...]
    """Percent."""
    style: int | None
    """Of its marks; None for bars."""
    hollow: bool = False
    """Of bars: an outline."""


@dataclass(frozen=True)
class Bars:
    """What belongs together under one name."""

    name: str
    bars: tuple[Bar, ...]


def begin(key: str, title: str, description: str, **attributes: str) -> Element:
    """Begin a drawing with a name and a description for those who do not see it; `key` is its own in the page."""
    labelled = {"role": "img", "aria-labelledby": f"{key}-title {key}-desc"}
    drawing = Element("svg", {**labelled, **attributes})
    SubElement(drawing, "title", id=f"{key}-title").text = title
    SubElement(drawing, "desc", id=f"{key}-desc").text = description
    return drawing


def finish(drawing: Element) -> Markup:
    """Give the text of a drawing; what is in it from outside is escaped."""
    return Markup(tostring(drawing, encoding="unicode", short_empty_elements=False))


def shorten(name: str, longest: int = LONGEST_LABEL) -> str:
    """Cut a long name in the middle: both its beginning and its end tell it from others."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


@dataclass(frozen=True)
class Scale:
    """From numbers to places across, in percent; charts beside one another may share one."""

    lowest: float
    """At most 0."""
    highest: float
    """At least 0."""
    signed: bool = False
    """Positive numbers are written with a plus."""
    unit: str = ""

    def place(self, value: float) -> float:
        """Give the place of a number; room for texts is left at the ends."""
        left = ROOM_FOR_TEXT if self.lowest < 0 else 0.0
        share = (value - self.lowest) / (self.highest - self.lowest or 1.0)
        return left + share * (100 - ROOM_FOR_TEXT - left)

    def spell(self, value: float) -> str:
        """Write a number."""
        return f"{value:{'+' if self.signed else ''}.1f}{self.unit}"


def draw_bars(key: str, title: str, groups: Sequence[Bars], scale: Scale) -> Markup:
    """Draw bars that lie, in groups under their names, each with its number."""
    heights = [LABEL_HEIGHT + BAR_HEIGHT * len(group.bars) + 8 for group in groups]
    message = f"{len(groups)} bars" if all(len(group.bars) == 1 for group in groups) else f"{len(groups)} groups"
    drawing = begin(key, title, f"Bar chart of {message}; the table beside it has the numbers.")
    drawing.attrib |= {"class": "bars", "width": "100%", "height": str(sum(heights) + 2)}
    top = 0
    for group, height in zip(groups, heights, strict=True):
        label = SubElement(drawing, "text", {"x": "0", "y": str(top + 12), "class": "label"})
        label.text = shorten(group.name)
        if label.text != group.name:
            SubElement(label, "title").text = group.name
        for number, bar in enumerate(group.bars):
            _draw_bar(drawing, bar, top + LABEL_HEIGHT + BAR_HEIGHT * (number + 0.5), scale)
        top += height
    return finish(drawing)


def _draw_bar(drawing: Element, bar: Bar, middle: float, scale: Scale) -> None:
    value = bar.value or 0.0
    zero, low, high = (scale.place(end) for end in (0.0, *(bar.ends or (value, value))))
    left, right = sorted((zero, scale.place(value)))
    kind = "loss" if value < 0 else "gain"
    box = {"x": _percent(left), "width": _percent(right - left), "y": _pixels(middle - 5), "height": "10"}
    SubElement(drawing, "rect", {"class": f"bar {kind}{' hollow' if bar.hollow else ''}", **box})
    _draw_line_across(drawing, "axis", zero, zero, middle - 7, middle + 7)
    if bar.ends is not None:
        _draw_line_across(drawing, "whisker", low, high, middle, middle)
        for end in (low, high):
            _draw_line_across(drawing, "whisker", end, end, middle - 3.5, middle + 3.5)
    at = {"x": _percent(min(low, left)), "dx": "-5", "text-anchor": "end"}
    if value >= 0:
        at = {"x": _percent(max(high, right)), "dx": "5"}
    text = SubElement(drawing, "text", {"class": "number", "y": _pixels(middle + 4), **at})
    text.text = "–" if bar.value is None else scale.spell(value)


def _draw_line_across(drawing: Element, kind: str, left: float, right: float, top: float, bottom: float) -> None:
    ends = {"x1": _percent(left), "x2": _percent(right), "y1": _pixels(top), "y2": _pixels(bottom)}
    SubElement(drawing, "line", {"class": kind, **ends})


def draw_curves(key: str, title: str, curves: Sequence[tuple[int, Curve]]) -> Markup:
    """Draw accuracies by epoch, each with its style's number; a band goes from the lowest to the highest seed."""
    described = f"Line chart of {len(curves)} lines by epoch; the table beside it has the numbers."
    drawing = begin(key, title, described)
    drawing.attrib |= {"class": "curves", "width": "100%", "height": str(PLOT_HEIGHT + 48)}
    points = [point for _, curve in curves for point in curve.points]
    first, last = min(point.epoch for point in points), max(point.epoch for point in points)
    ticks = choose_ticks(max(point.highest for point in points))
    plot = SubElement(drawing, "svg", {"x": "9%", "width": "88%", "y": "10", "height": str(PLOT_HEIGHT)})
    plot.attrib["overflow"] = "visible"
    _draw_grid(plot, ticks, _choose_epochs(first, last), first, last)
    whole = {"viewBox": f"0 0 100 {PLOT_HEIGHT}", "preserveAspectRatio": "none", "width": "100%"}
    stretched = SubElement(plot, "svg", {**whole, "height": str(PLOT_HEIGHT), "overflow": "visible"})
    for style, curve in curves:
        across = [_across(point.epoch, first, last) for point in curve.points]
        spans = [[_up(v, ticks) for v in (point.mean, point.lowest, point.highest)] for point in curve.points]
        _draw_line(stretched, plot, style, across, spans, banded=curve.seeds > 1)
    return finish(drawing)


def _draw_line(
    stretched: Element,
    plot: Element,
    style: int,
    across: Sequence[float],
    spans: Sequence[Sequence[float]],
    *,
    banded: bool,
) -> None:
    """Draw one line: its band and itself in what is stretched across, its markers in what is not."""
    means, lowest, highest = zip(*spans, strict=True)
    if banded:
        outline = [*zip(across, lowest, strict=True), *reversed([*zip(across, highest, strict=True)])]
        SubElement(stretched, "polygon", {"class": f"band s{style}", "points": _points(outline)})
    line = {"class": f"line s{style}", "points": _points([*zip(across, means, strict=True)])}
    SubElement(stretched, "polyline", line | {"stroke-dasharray": DASHES[style]} if DASHES[style] else line)
    step = math.ceil(len(across) / MOST_MARKERS)
    for place in range(len(across) - 1, -1, -step):
        at = {"x": _percent(across[place]), "y": _pixels(means[place])}
        SubElement(plot, "use", {"href": f"#marker-{style}", "class": f"mark s{style}", **at})


def _draw_grid(plot: Element, ticks: Sequence[float], epochs: Sequence[int], first: int, last: int) -> None:
    for tick in ticks:
        y = _up(tick, ticks)
        SubElement(plot, "line", {"class": "grid", "x1": "0", "x2": "100%", "y1": _pixels(y), "y2": _pixels(y)})
        at = {"x": "0", "dx": "-7", "y": _pixels(y + 4), "text-anchor": "end", "class": "tick"}
        SubElement(plot, "text", at).text = f"{tick:g}"
    for epoch in epochs:
        x = _percent(_across(epoch, first, last))
        at = {"x": x, "y": str(PLOT_HEIGHT + 18), "text-anchor": "middle", "class": "tick"}
        SubElement(plot, "text", at).text = str(epoch)
    SubElement(
        plot, "text", {"x": "50%", "y": str(PLOT_HEIGHT + 33), "text-anchor": "middle", "class": "tick"}
    ).text = "epoch"


def draw_dots(key: str, title: str, dots: Sequence[Dot], across: str, up: str) -> Markup:
    """Draw numbered points, with lines that show their ends; what is on the dashed line is the same both ways."""
    described = f"Scatter plot of {len(dots)} points; the table beside it has the numbers."
    drawing = begin(key, title, described)
    drawing.attrib |= {"class": "dots", "width": "100%", "height": str(DOTS_HEIGHT + 52)}
    ticks_x = choose_ticks(max(0.0, *(end for dot in dots for end in (dot.x, *(dot.x_ends or ())))))
    ticks_y = choose_ticks(max(0.0, *(end for dot in dots for end in (dot.y, *(dot.y_ends or ())))))
    plot = SubElement(drawing, "svg", {"x": "9%", "width": "86%", "y": "12", "height": str(DOTS_HEIGHT)})
    plot.attrib["overflow"] = "visible"
    label = {"x": "0", "dx": "-7", "y": "-2", "class": "tick"}

    def place(x: float, y: float) -> tuple[float, float]:
        return 100 * max(0.0, x) / ticks_x[-1], DOTS_HEIGHT * (1 - max(0.0, y) / ticks_y[-1])

    SubElement(plot, "text", label).text = f"↑ {up}"
    for tick in ticks_y:
        _, y = place(0.0, tick)
        SubElement(plot, "line", {"class": "grid", "x1": "0", "x2": "100%", "y1": _pixels(y), "y2": _pixels(y)})
        at = {"x": "0", "dx": "-7", "y": _pixels(y + 4), "text-anchor": "end", "class": "tick"}
        SubElement(plot, "text", at).text = f"{tick:g}"
    for tick in ticks_x:
        x, _ = place(tick, 0.0)
        _draw_line_across(plot, "grid", x, x, 0, DOTS_HEIGHT)
        at = {"x": _percent(x), "y": str(DOTS_HEIGHT + 16), "text-anchor": "middle", "class": "tick"}
        SubElement(plot, "text", at).text = f"{tick:g}"
    at = {"x": "100%", "y": str(DOTS_HEIGHT + 32), "text-anchor": "end", "class": "tick"}
    SubElement(plot, "text", at).text = f"{across} →"
    both = min(ticks_x[-1], ticks_y[-1])
    (x, y), (x0, y0) = place(both, both), place(0.0, 0.0)
    ends = {"x1": _percent(x0), "x2": _percent(x), "y1": _pixels(y0), "y2": _pixels(y)}
    SubElement(plot, "line", {"class": "equal", "stroke-dasharray": "4 4", **ends})
    paths = [place(dot.x, dot.y) for dot in dots]
    for number, dot in enumerate(dots, 1):
        _draw_dot(plot, number, dot, place, paths)
    return finish(drawing)


def _draw_dot(
    plot: Element,
    number: int,
    dot: Dot,
    place: Callable[[float, float], tuple[float, float]],
    paths: Sequence[tuple[float, float]],
) -> None:
    x, y = place(dot.x, dot.y)
    group = SubElement(plot, "g")
    SubElement(group, "title").text = f"{number}: {dot.name}, {dot.x:.2f} across, {dot.y:.2f} up"
    if dot.x_ends is not None:
        left, right = (place(end, 0.0)[0] for end in dot.x_ends)
        _draw_line_across(group, "whisker", left, right, y, y)
    if dot.y_ends is not None:
        low, high = (place(0.0, end)[1] for end in dot.y_ends)
        _draw_line_across(group, "whisker", x, x, low, high)
    at = {"x": _percent(x), "y": _pixels(y)}
    SubElement(group, "use", {"href": f"#marker-{dot.style}", "class": f"mark s{dot.style}", **at})
    others = [(other_x, other_y) for other_x, other_y in paths if (other_x, other_y) != (x, y)]

    def crowd(offset: tuple[int, int]) -> int:
        """Count the points where the number would stand; a hundredth of the width is some five pixels."""
        across, down = x + offset[0] / 5, y + offset[1]
        return sum(abs(one - across) < 2.5 and abs(other - down) < 10 for one, other in others)

    across, down = min(((9, -7), (9, 14), (-9, -7), (-9, 14)), key=crowd)
    at |= {"dx": str(across), "dy": str(down), "text-anchor": "start" if across > 0 else "end", "class": "number"}
    SubElement(group, "text", at).text = str(number)


def draw_overlay(key: str, title: str, answers: Sequence[str], series: Sequence[Series], highest: float) -> Markup:
    """Draw distributions over the same answers on top of one another, an answer below the other."""
    described = f"{len(series)} distributions over {len(answers)} answers; the table beside it has the numbers."
    drawing = begin(key, title, described)
    height = OVERLAY_HEIGHT * len(answers)
    drawing.attrib |= {"class": "overlay", "width": "100%", "height": str(height + 24)}
    plot = SubElement(drawing, "svg", {"x": "1%", "width": "94%", "y": "0", "height": str(height)})
    plot.attrib["overflow"] = "visible"
    ticks = choose_ticks(highest)
    for tick in ticks:
        x = 100 * tick / ticks[-1]
        _draw_line_across(plot, "grid", x, x, 0, height)
        anchor = "start" if tick == 0 else "end" if tick == ticks[-1] else "middle"
        at = {"x": _percent(x), "y": str(height + 16), "text-anchor": anchor, "class": "tick"}
        SubElement(plot, "text", at).text = f"{tick:g} %"
    for row, answer in enumerate(answers):
        top = OVERLAY_HEIGHT * row
        label = SubElement(plot, "text", {"x": "0", "y": str(top + 13), "class": "label"})
        label.text = shorten(answer)
        if label.text != answer:
            SubElement(label, "title").text = answer
        for own in series:
            width = 100 * own.shares[row] / ticks[-1]
            if own.style is None:
                box = {"x": "0%", "width": _percent(width), "y": _pixels(top + 18), "height": "12"}
                kind = "outline" if own.hollow else "behind"
                SubElement(plot, "rect", {"class": kind, **box})
        for own in series:
            if own.style is not None:
                at = {"x": _percent(100 * own.shares[row] / ticks[-1]), "y": _pixels(top + 24)}
                SubElement(plot, "use", {"href": f"#marker-{own.style}", "class": f"mark s{own.style}", **at})
    return finish(drawing)


def draw_swatch(kind: str) -> Markup:
    """Return a bar of an overlay, `behind` or `outline`, to stand beside its name."""
    key = Element("svg", {"class": "key", "aria-hidden": "true", "width": "38", "height": "14"})
    SubElement(key, "rect", {"class": kind, "x": "2", "width": "34", "y": "1", "height": "12"})
    return finish(key)


def draw_mark(style: int) -> Markup:
    """Return a mark alone, to stand beside its name."""
    key = Element("svg", {"class": "key", "aria-hidden": "true", "width": "16", "height": "14"})
    SubElement(key, "use", {"href": f"#marker-{style}", "class": f"mark s{style}", "x": "8", "y": "7"})
    return finish(key)


def draw_markers() -> Markup:
    """Give the shapes that lines are marked with: once for the whole page."""
    holder = Element("svg", {"class": "markers", "aria-hidden": "true", "width": "0", "height": "0"})
    shapes = SubElement(holder, "defs")
    for number, path in enumerate(MARKERS):
        SubElement(shapes, "path", {"id": f"marker-{number}", "d": path})
    return finish(holder)


def draw_key(style: int) -> Markup:
    """Give a line and its marker, to stand beside its name."""
    key = Element("svg", {"class": "key", "aria-hidden": "true", "width": "38", "height": "14"})
    line = {"class": f"line s{style}", "x1": "1", "x2": "37", "y1": "7", "y2": "7"}
    SubElement(key, "line", line | {"stroke-dasharray": DASHES[style]} if DASHES[style] else line)
    SubElement(key, "use", {"href": f"#marker-{style}", "class": f"mark s{style}", "x": "19", "y": "7"})
    return finish(key)


def choose_ticks(highest: float) -> list[float]:
    """Choose round numbers from 0 to the first that is not below the highest, six at most."""
    wanted = max(highest, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted * (1 - 1e-9))
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def _choose_epochs(first: int, last: int) -> list[int]:
    step = max(1, math.ceil((last - first) / 6))
    return [*range(first, last + 1, step)]


def _across(epoch: int, first: int, last: int) -> float:
    return 50.0 if first == last else 100 * (epoch - first) / (last - first)


def _up(value: float, ticks: Sequence[float]) -> float:
    return PLOT_HEIGHT * (1 - value / (ticks[-1] or 1.0))


def _percent(value: float) -> str:
    return f"{round(value, 2):g}%"


def _pixels(value: float) -> str:
    return f"{round(value, 1):g}"


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_pixels(x)},{_pixels(y)}" for x, y in pairs)

"""Charts as inline SVG. The page's style sheet gives them their colours, in light and in dark mode.

They fill the available width: horizontal positions are percentages of it, heights and font sizes are in pixels, so
that a phone shows the same text as a large screen. Series never differ by colour alone: lines also have different
dashes and markers, and bars are full or hollow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from vqabench.reporting.charts import (
    DASHES,
    Bar,
    BarChart,
    DotChart,
    Figure,
    LineChart,
    Overlay,
    Position,
    Scale,
    choose_offset,
    shorten,
)

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
SPACE_FOR_TEXT = 22.0
"""Percent of the width, at each end that may have a number."""
MOST_MARKERS = 12
"""Maximum number of markers on one line."""
PLOT_HEIGHT, LABEL_HEIGHT, BAR_HEIGHT = 190, 16, 13
DOTS_HEIGHT, OVERLAY_HEIGHT = 260, 36


def draw(figure: Figure, key: str) -> Markup:
    """Draw a chart; `key` must be unique in the page."""
    title, plot = figure.title or figure.caption, figure.plot
    match plot:
        case BarChart():
            return _draw_bars(key, title, plot)
        case DotChart():
            return _draw_dots(key, title, plot)
        case LineChart():
            return _draw_lines(key, title, plot)
        case Overlay():
            return _draw_overlay(key, title, plot)


def draw_legend(figure: Figure) -> list[tuple[Markup, str]]:
    """Return a symbol and a name for each series of a chart. Bar charts have none: their caption explains them."""
    match figure.plot:
        case DotChart(dots):
            return [(_draw_key(dot.style), f"{number} {dot.name}") for number, dot in enumerate(dots, 1)]
        case LineChart(lines):
            return [(_draw_key(line.style, line=True), line.name) for line in lines]
        case Overlay(_, series):
            return [(_draw_key(one.style, bar="outline" if one.hollow else "behind"), one.name) for one in series]
        case _:
            return []


def _draw_key(style: int | None, *, line: bool = False, bar: str = "") -> Markup:
    """Return a symbol of the legend: a bar if there is no style, else a marker, which may be on a line."""
    width = 38 if line or style is None else 16
    key = Element("svg", {"class": "key", "aria-hidden": "true", "width": str(width), "height": "14"})
    if style is None:
        SubElement(key, "rect", {"class": bar, "x": "2", "width": "34", "y": "1", "height": "12"})
        return finish(key)
    if line:
        ends = {"class": f"line s{style}", "x1": "1", "x2": "37", "y1": "7", "y2": "7"}
        SubElement(key, "line", ends | _dashes(style))
    _mark(key, style, str(width // 2), 7)
    return finish(key)


def draw_markers() -> Markup:
    """Return the shapes of all markers, to define once in the page."""
    holder = Element("svg", {"class": "markers", "aria-hidden": "true", "width": "0", "height": "0"})
    shapes = SubElement(holder, "defs")
    for number, path in enumerate(MARKERS):
        SubElement(shapes, "path", {"id": f"marker-{number}", "d": path})
    return finish(holder)


def begin(key: str, title: str, description: str, attributes: Mapping[str, str]) -> Element:
    """Return an empty drawing with a title and a description for screen readers; `key` is unique in the page."""
    labelled = {"role": "img", "aria-labelledby": f"{key}-title {key}-desc"}
    drawing = Element("svg", {**labelled, **attributes})
    SubElement(drawing, "title", id=f"{key}-title").text = title
    SubElement(drawing, "desc", id=f"{key}-desc").text = description
    return drawing


def finish(drawing: Element) -> Markup:
    """Return the text of a drawing; text from data is escaped."""
    return Markup(tostring(drawing, encoding="unicode", short_empty_elements=False))


def _begin_chart(key: str, title: str, kind: str, what: str, height: int) -> Element:
    attributes = {"class": kind, "width": "100%", "height": str(height)}
    return begin(key, title, f"{what}; the table below it has the numbers.", attributes)


def _begin_plot(drawing: Element, left: int, width: int, top: int, height: int) -> Element:
    """Return the area inside the axes; texts may stand outside."""
    box = {"x": f"{left}%", "width": f"{width}%", "y": str(top), "height": str(height)}
    return SubElement(drawing, "svg", {**box, "overflow": "visible"})


def place(scale: Scale, value: float) -> float:
    """Return the horizontal position of a number in percent; space for texts is left at the ends."""
    left = SPACE_FOR_TEXT if scale.lowest < 0 else 0.0
    share = (value - scale.lowest) / (scale.highest - scale.lowest or 1.0)
    return left + share * (100 - SPACE_FOR_TEXT - left)


def _draw_bars(key: str, title: str, chart: BarChart) -> Markup:
    """Draw horizontal bars with their numbers, in groups under their names."""
    heights = [LABEL_HEIGHT + BAR_HEIGHT * len(group.bars) + 8 for group in chart.groups]
    kind = "bars" if all(len(group.bars) == 1 for group in chart.groups) else "groups"
    drawing = _begin_chart(key, title, "bars", f"Bar chart of {len(heights)} {kind}", sum(heights) + 2)
    top = 0
    for group, height in zip(chart.groups, heights, strict=True):
        _label(drawing, group.name, top + 12)
        for number, bar in enumerate(group.bars):
            _draw_bar(drawing, bar, top + LABEL_HEIGHT + BAR_HEIGHT * (number + 0.5), chart.scale)
        top += height
    return finish(drawing)


def _draw_bar(drawing: Element, bar: Bar, middle: float, scale: Scale) -> None:
    value = bar.value or 0.0
    zero, low, high = (place(scale, end) for end in (0.0, *(bar.ends or (value, value))))
    left, right = sorted((zero, place(scale, value)))
    kind = "loss" if value < 0 else "gain"
    box = {"x": _percent(left), "width": _percent(right - left), "y": _pixels(middle - 5), "height": "10"}
    SubElement(drawing, "rect", {"class": f"bar {kind}{' hollow' if bar.hollow else ''}", **box})
    _line(drawing, "axis", (zero, zero), (middle - 7, middle + 7))
    if bar.ends is not None:
        _line(drawing, "whisker", (low, high), (middle, middle))
        for end in (low, high):
            _line(drawing, "whisker", (end, end), (middle - 3.5, middle + 3.5))
    at, dx, anchor = (min(low, left), -5, "end") if value < 0 else (max(high, right), 5, "start")
    text = "–" if bar.value is None else scale.format(bar.value)
    _text(drawing, text, at, middle + 4, "number", shift=(dx, 0), anchor=anchor)


def _draw_lines(key: str, title: str, chart: LineChart) -> Markup:
    """Draw accuracies by epoch; a band goes from the lowest to the highest seed."""
    what = f"Line chart of {len(chart.lines)} lines by epoch"
    drawing = _begin_chart(key, title, "curves", what, PLOT_HEIGHT + 48)
    points = [point for line in chart.lines for point in line.curve.points]
    first, last = min(point.epoch for point in points), max(point.epoch for point in points)
    ticks = choose_ticks(max(point.highest for point in points))

    def across(epoch: int) -> float:
        return 50.0 if first == last else 100 * (epoch - first) / (last - first)

    def up(value: float) -> float:
        return PLOT_HEIGHT * (1 - value / (ticks[-1] or 1.0))

    plot = _begin_plot(drawing, 9, 88, 10, PLOT_HEIGHT)
    for tick in ticks:
        _draw_tick_up(plot, tick, up(tick))
    for epoch in range(first, last + 1, max(1, math.ceil((last - first) / 6))):
        _text(plot, str(epoch), across(epoch), PLOT_HEIGHT + 18, anchor="middle")
    _text(plot, "epoch", 50, PLOT_HEIGHT + 33, anchor="middle")
    # Polygons take no percentages, so bands and lines are drawn in a box of 100 units that is stretched.
    box = {"viewBox": f"0 0 100 {PLOT_HEIGHT}", "preserveAspectRatio": "none", "width": "100%"}
    stretched = SubElement(plot, "svg", {**box, "height": str(PLOT_HEIGHT), "overflow": "visible"})
    for line in chart.lines:
        own, style = line.curve.points, line.style
        if line.curve.seeds > 1:
            lower = [(across(point.epoch), up(point.lowest)) for point in own]
            upper = [(across(point.epoch), up(point.highest)) for point in own]
            outline = {"class": f"band s{style}", "points": _points([*lower, *reversed(upper)])}
            SubElement(stretched, "polygon", outline)
        means = [(across(point.epoch), up(point.mean)) for point in own]
        SubElement(stretched, "polyline", {"class": f"line s{style}", "points": _points(means), **_dashes(style)})
        # From the last epoch: the one that counts is always marked.
        for x, y in means[:: -math.ceil(len(means) / MOST_MARKERS)]:
            _mark(plot, style, _percent(x), y)
    return finish(drawing)


def _draw_dots(key: str, title: str, chart: DotChart) -> Markup:
    """Draw numbered points with error bars; on the dashed line both numbers are equal."""
    dots = chart.dots
    drawing = _begin_chart(key, title, "dots", f"Scatter plot of {len(dots)} points", DOTS_HEIGHT + 52)
    ticks_x = choose_ticks(max(0.0, *(end for dot in dots for end in (dot.x, *(dot.x_ends or ())))))
    ticks_y = choose_ticks(max(0.0, *(end for dot in dots for end in (dot.y, *(dot.y_ends or ())))))

    def locate(x: float, y: float) -> Position:
        return 100 * max(0.0, x) / ticks_x[-1], DOTS_HEIGHT * (1 - max(0.0, y) / ticks_y[-1])

    plot = _begin_plot(drawing, 9, 86, 12, DOTS_HEIGHT)
    _text(plot, f"↑ {chart.up}", 0, -2, shift=(-7, 0))
    for tick in ticks_y:
        _draw_tick_up(plot, tick, locate(0.0, tick)[1])
    for tick in ticks_x:
        x, _ = locate(tick, 0.0)
        _line(plot, "grid", (x, x), (0, DOTS_HEIGHT))
        _text(plot, f"{tick:g}", x, DOTS_HEIGHT + 16, anchor="middle")
    _text(plot, f"{chart.across} →", 100, DOTS_HEIGHT + 32, anchor="end")
    both = min(ticks_x[-1], ticks_y[-1])
    (x, y), (x0, y0) = locate(both, both), locate(0.0, 0.0)
    _line(plot, "equal", (x0, x), (y0, y)).attrib["stroke-dasharray"] = "4 4"
    points = [locate(dot.x, dot.y) for dot in dots]
    for number, (dot, (x, y)) in enumerate(zip(dots, points, strict=True), 1):
        group = SubElement(plot, "g")
        SubElement(group, "title").text = f"{number}: {dot.name}, {dot.x:.2f} across, {dot.y:.2f} up"
        if dot.x_ends is not None:
            left, right = (locate(end, 0.0)[0] for end in dot.x_ends)
            _line(group, "whisker", (left, right), (y, y))
        if dot.y_ends is not None:
            low, high = (locate(0.0, end)[1] for end in dot.y_ends)
            _line(group, "whisker", (x, x), (low, high))
        _mark(group, dot.style, _percent(x), y)
        # In pixels: a hundredth of the width is some five of them.
        others = [(5 * other_x, other_y) for other_x, other_y in points if (other_x, other_y) != (x, y)]
        corners = ((9, -7), (9, 14), (-9, -7), (-9, 14))
        shift = choose_offset((5 * x, y), others, corners, (12.5, 10))
        _text(group, str(number), x, y, "number", shift=shift, anchor="start" if shift[0] > 0 else "end")
    return finish(drawing)


def _draw_overlay(key: str, title: str, chart: Overlay) -> Markup:
    """Draw distributions over the same answers on top of one another, one answer per line."""
    answers, height = chart.answers, OVERLAY_HEIGHT * len(chart.answers)
    what = f"{len(chart.series)} distributions over {len(answers)} answers"
    drawing = _begin_chart(key, title, "overlay", what, height + 24)
    plot = _begin_plot(drawing, 1, 94, 0, height)
    ticks = choose_ticks(max(share for one in chart.series for share in one.shares))
    for tick in ticks:
        x = 100 * tick / ticks[-1]
        _line(plot, "grid", (x, x), (0, height))
        anchor = "start" if tick == 0 else "end" if tick == ticks[-1] else "middle"
        _text(plot, f"{tick:g} %", x, height + 16, anchor=anchor)
    for row, answer in enumerate(answers):
        top = OVERLAY_HEIGHT * row
        _label(plot, answer, top + 13)
        for own in sorted(chart.series, key=lambda one: one.style is not None):  # marks on top of bars
            width = _percent(100 * own.shares[row] / ticks[-1])
            if own.style is None:
                box = {"x": "0%", "width": width, "y": _pixels(top + 18), "height": "12"}
                SubElement(plot, "rect", {"class": "outline" if own.hollow else "behind", **box})
            else:
                _mark(plot, own.style, width, top + 24)
    return finish(drawing)


def choose_ticks(highest: float) -> list[float]:
    """Choose round numbers from 0 to the first that is not below the highest, six at most."""
    wanted = max(highest, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted * (1 - 1e-9))
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def _draw_tick_up(plot: Element, tick: float, y: float) -> None:
    """Draw a number of the vertical axis, and its line of the grid."""
    _line(plot, "grid", (0, 100), (y, y))
    _text(plot, f"{tick:g}", 0, y + 4, shift=(-7, 0), anchor="end")


def _line(parent: Element, kind: str, xs: Position, ys: Position) -> Element:
    ends = {"x1": _percent(xs[0]), "x2": _percent(xs[1]), "y1": _pixels(ys[0]), "y2": _pixels(ys[1])}
    return SubElement(parent, "line", {"class": kind, **ends})


def _mark(parent: Element, style: int, x: str, y: float) -> None:
    at = {"x": x, "y": _pixels(y)}
    SubElement(parent, "use", {"href": f"#marker-{style}", "class": f"mark s{style}", **at})


def _text(
    parent: Element,
    text: str,
    x: float,
    y: float,
    kind: str = "tick",
    *,
    shift: Position = (0, 0),
    anchor: str = "start",
) -> None:
    """Write a text; `shift` is in pixels, to the right and down."""
    at = {"x": _percent(x), "y": _pixels(y), "dx": f"{shift[0]:g}", "dy": f"{shift[1]:g}", "text-anchor": anchor}
    SubElement(parent, "text", {"class": kind, **at}).text = text


def _label(parent: Element, name: str, y: float) -> None:
    """Draw a name above bars; the whole of a shortened one is shown under the pointer."""
    label = SubElement(parent, "text", {"x": "0", "y": _pixels(y), "class": "label"})
    label.text = shorten(name)
    if label.text != name:
        SubElement(label, "title").text = name


def _dashes(style: int) -> dict[str, str]:
    return {"stroke-dasharray": " ".join(map(str, DASHES[style]))} if DASHES[style] else {}


def _percent(value: float) -> str:
    return f"{round(value, 2):g}%"


def _pixels(value: float) -> str:
    return f"{round(value, 1):g}"


def _points(pairs: Sequence[Position]) -> str:
    return " ".join(f"{_pixels(x)},{_pixels(y)}" for x, y in pairs)

"""Charts as inline SVG. The page's style sheet gives them their colours, in light and in dark mode.

They fill the available width: horizontal positions are percentages of it, heights and font sizes are in pixels, so
that a phone shows the same text as a large screen. Series never differ by colour alone: lines also have different
dashes and markers, and bars are full or hollow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from vqabench.reporting.charts import (
    DASHES,
    Bar,
    BarChart,
    Dot,
    DotChart,
    Figure,
    Line,
    LineChart,
    Overlay,
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
ROOM_FOR_TEXT = 22.0
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
            return draw_bars(key, title, plot)
        case DotChart():
            return draw_dots(key, title, plot)
        case LineChart():
            return draw_lines(key, title, plot)
        case Overlay():
            return draw_overlay(key, title, plot)


def draw_legend(figure: Figure) -> list[tuple[Markup, str]]:
    """Return a symbol and a name for each series of a chart. Bar charts have none: their caption explains them."""
    match figure.plot:
        case DotChart(dots):
            return [(draw_mark(dot.style), f"{number} {dot.name}") for number, dot in enumerate(dots, 1)]
        case LineChart(lines):
            return [(draw_key(line.style), line.name) for line in lines]
        case Overlay(_, series):
            return [
                (
                    draw_swatch("outline" if one.hollow else "behind")
                    if one.style is None
                    else draw_mark(one.style),
                    one.name,
                )
                for one in series
            ]
        case _:
            return []


def begin(key: str, title: str, description: str, **attributes: str) -> Element:
    """Return an empty drawing with a title and a description for screen readers; `key` is unique in the page."""
    labelled = {"role": "img", "aria-labelledby": f"{key}-title {key}-desc"}
    drawing = Element("svg", {**labelled, **attributes})
    SubElement(drawing, "title", id=f"{key}-title").text = title
    SubElement(drawing, "desc", id=f"{key}-desc").text = description
    return drawing


def finish(drawing: Element) -> Markup:
    """Return the text of a drawing; text from data is escaped."""
    return Markup(tostring(drawing, encoding="unicode", short_empty_elements=False))


def place(scale: Scale, value: float) -> float:
    """Return the horizontal position of a number in percent; space for texts is left at the ends."""
    left = ROOM_FOR_TEXT if scale.lowest < 0 else 0.0
    share = (value - scale.lowest) / (scale.highest - scale.lowest or 1.0)
    return left + share * (100 - ROOM_FOR_TEXT - left)


def draw_bars(key: str, title: str, chart: BarChart) -> Markup:
    """Draw horizontal bars with their numbers, in groups under their names."""
    groups = chart.groups
    heights = [LABEL_HEIGHT + BAR_HEIGHT * len(group.bars) + 8 for group in groups]
    message = f"{len(groups)} bars" if all(len(group.bars) == 1 for group in groups) else f"{len(groups)} groups"
    drawing = begin(key, title, f"Bar chart of {message}; the table below it has the numbers.")
    drawing.attrib |= {"class": "bars", "width": "100%", "height": str(sum(heights) + 2)}
    top = 0
    for group, height in zip(groups, heights, strict=True):
        label = SubElement(drawing, "text", {"x": "0", "y": str(top + 12), "class": "label"})
        label.text = shorten(group.name)
        if label.text != group.name:
            SubElement(label, "title").text = group.name
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
    _draw_line_across(drawing, "axis", zero, zero, middle - 7, middle + 7)
    if bar.ends is not None:
        _draw_line_across(drawing, "whisker", low, high, middle, middle)
        for end in (low, high):
            _draw_line_across(drawing, "whisker", end, end, middle - 3.5, middle + 3.5)
    at = {"x": _percent(min(low, left)), "dx": "-5", "text-anchor": "end"}
    if value >= 0:
        at = {"x": _percent(max(high, right)), "dx": "5"}
    text = SubElement(drawing, "text", {"class": "number", "y": _pixels(middle + 4), **at})
    text.text = "–" if bar.value is None else scale.format(value)


def _draw_line_across(drawing: Element, kind: str, left: float, right: float, top: float, bottom: float) -> None:
    ends = {"x1": _percent(left), "x2": _percent(right), "y1": _pixels(top), "y2": _pixels(bottom)}
    SubElement(drawing, "line", {"class": kind, **ends})


def draw_lines(key: str, title: str, chart: LineChart) -> Markup:
    """Draw accuracies by epoch; a band goes from the lowest to the highest seed."""
    described = f"Line chart of {len(chart.lines)} lines by epoch; the table below it has the numbers."
    drawing = begin(key, title, described)
    drawing.attrib |= {"class": "curves", "width": "100%", "height": str(PLOT_HEIGHT + 48)}
    points = [point for line in chart.lines for point in line.curve.points]
    first, last = min(point.epoch for point in points), max(point.epoch for point in points)
    ticks = choose_ticks(max(point.highest for point in points))
    plot = SubElement(drawing, "svg", {"x": "9%", "width": "88%", "y": "10", "height": str(PLOT_HEIGHT)})
    plot.attrib["overflow"] = "visible"
    _draw_grid(plot, ticks, _choose_epochs(first, last), first, last)
    whole = {"viewBox": f"0 0 100 {PLOT_HEIGHT}", "preserveAspectRatio": "none", "width": "100%"}
    stretched = SubElement(plot, "svg", {**whole, "height": str(PLOT_HEIGHT), "overflow": "visible"})
    for line in chart.lines:
        across = [_across(point.epoch, first, last) for point in line.curve.points]
        spans = [[_up(v, ticks) for v in (point.mean, point.lowest, point.highest)] for point in line.curve.points]
        _draw_line(stretched, plot, line, across, spans)
    return finish(drawing)


def _draw_line(
    stretched: Element, plot: Element, line: Line, across: Sequence[float], spans: Sequence[Sequence[float]]
) -> None:
    """Draw one line: its band and itself into the stretched drawing, its markers into the other."""
    means, lowest, highest = zip(*spans, strict=True)
    style = line.style
    if line.curve.seeds > 1:
        outline = [*zip(across, lowest, strict=True), *reversed([*zip(across, highest, strict=True)])]
        SubElement(stretched, "polygon", {"class": f"band s{style}", "points": _points(outline)})
    drawn = {"class": f"line s{style}", "points": _points([*zip(across, means, strict=True)])}
    SubElement(stretched, "polyline", drawn | _dashes(style))
    step = math.ceil(len(across) / MOST_MARKERS)
    for number in range(len(across) - 1, -1, -step):  # from the last epoch: the one that counts is always marked
        at = {"x": _percent(across[number]), "y": _pixels(means[number])}
        SubElement(plot, "use", {"href": f"#marker-{style}", "class": f"mark s{style}", **at})


def _dashes(style: int) -> dict[str, str]:
    return {"stroke-dasharray": " ".join(map(str, DASHES[style]))} if DASHES[style] else {}


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


def draw_dots(key: str, title: str, chart: DotChart) -> Markup:
    """Draw numbered points with error bars; on the dashed line both numbers are equal."""
    dots = chart.dots
    described = f"Scatter plot of {len(dots)} points; the table below it has the numbers."
    drawing = begin(key, title, described)
    drawing.attrib |= {"class": "dots", "width": "100%", "height": str(DOTS_HEIGHT + 52)}
    ticks_x = choose_ticks(max(0.0, *(end for dot in dots for end in (dot.x, *(dot.x_ends or ())))))
    ticks_y = choose_ticks(max(0.0, *(end for dot in dots for end in (dot.y, *(dot.y_ends or ())))))
    plot = SubElement(drawing, "svg", {"x": "9%", "width": "86%", "y": "12", "height": str(DOTS_HEIGHT)})
    plot.attrib["overflow"] = "visible"
    label = {"x": "0", "dx": "-7", "y": "-2", "class": "tick"}

    def locate(x: float, y: float) -> tuple[float, float]:
        return 100 * max(0.0, x) / ticks_x[-1], DOTS_HEIGHT * (1 - max(0.0, y) / ticks_y[-1])

    SubElement(plot, "text", label).text = f"↑ {chart.up}"
    for tick in ticks_y:
        _, y = locate(0.0, tick)
        SubElement(plot, "line", {"class": "grid", "x1": "0", "x2": "100%", "y1": _pixels(y), "y2": _pixels(y)})
        at = {"x": "0", "dx": "-7", "y": _pixels(y + 4), "text-anchor": "end", "class": "tick"}
        SubElement(plot, "text", at).text = f"{tick:g}"
    for tick in ticks_x:
        x, _ = locate(tick, 0.0)
        _draw_line_across(plot, "grid", x, x, 0, DOTS_HEIGHT)
        at = {"x": _percent(x), "y": str(DOTS_HEIGHT + 16), "text-anchor": "middle", "class": "tick"}
        SubElement(plot, "text", at).text = f"{tick:g}"
    at = {"x": "100%", "y": str(DOTS_HEIGHT + 32), "text-anchor": "end", "class": "tick"}
    SubElement(plot, "text", at).text = f"{chart.across} →"
    both = min(ticks_x[-1], ticks_y[-1])
    (x, y), (x0, y0) = locate(both, both), locate(0.0, 0.0)
    ends = {"x1": _percent(x0), "x2": _percent(x), "y1": _pixels(y0), "y2": _pixels(y)}
    SubElement(plot, "line", {"class": "equal", "stroke-dasharray": "4 4", **ends})
    points = [locate(dot.x, dot.y) for dot in dots]
    for number, dot in enumerate(dots, 1):
        _draw_dot(plot, number, dot, locate, points)
    return finish(drawing)


def _draw_dot(
    plot: Element,
    number: int,
    dot: Dot,
    locate: Callable[[float, float], tuple[float, float]],
    points: Sequence[tuple[float, float]],
) -> None:
    x, y = locate(dot.x, dot.y)
    group = SubElement(plot, "g")
    SubElement(group, "title").text = f"{number}: {dot.name}, {dot.x:.2f} across, {dot.y:.2f} up"
    if dot.x_ends is not None:
        left, right = (locate(end, 0.0)[0] for end in dot.x_ends)
        _draw_line_across(group, "whisker", left, right, y, y)
    if dot.y_ends is not None:
        low, high = (locate(0.0, end)[1] for end in dot.y_ends)
        _draw_line_across(group, "whisker", x, x, low, high)
    at = {"x": _percent(x), "y": _pixels(y)}
    SubElement(group, "use", {"href": f"#marker-{dot.style}", "class": f"mark s{dot.style}", **at})
    # In pixels: a hundredth of the width is some five of them.
    others = [(5 * other_x, other_y) for other_x, other_y in points if (other_x, other_y) != (x, y)]
    corners = ((9, -7), (9, 14), (-9, -7), (-9, 14))
    across, down = choose_offset((5 * x, y), others, corners, (12.5, 10))
    at |= {
        "dx": f"{across:g}",
        "dy": f"{down:g}",
        "text-anchor": "start" if across > 0 else "end",
        "class": "number",
    }
    SubElement(group, "text", at).text = str(number)


def draw_overlay(key: str, title: str, chart: Overlay) -> Markup:
    """Draw distributions over the same answers on top of one another, one answer per line."""
    answers, series = chart.answers, chart.series
    described = f"{len(series)} distributions over {len(answers)} answers; the table below it has the numbers."
    drawing = begin(key, title, described)
    height = OVERLAY_HEIGHT * len(answers)
    drawing.attrib |= {"class": "overlay", "width": "100%", "height": str(height + 24)}
    plot = SubElement(drawing, "svg", {"x": "1%", "width": "94%", "y": "0", "height": str(height)})
    plot.attrib["overflow"] = "visible"
    ticks = choose_ticks(max(share for one in series for share in one.shares))
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
    """Return a bar of an overlay, `behind` or `outline`, for the legend."""
    key = Element("svg", {"class": "key", "aria-hidden": "true", "width": "38", "height": "14"})
    SubElement(key, "rect", {"class": kind, "x": "2", "width": "34", "y": "1", "height": "12"})
    return finish(key)


def draw_mark(style: int) -> Markup:
    """Return a mark alone, for the legend."""
    key = Element("svg", {"class": "key", "aria-hidden": "true", "width": "16", "height": "14"})
    SubElement(key, "use", {"href": f"#marker-{style}", "class": f"mark s{style}", "x": "8", "y": "7"})
    return finish(key)


def draw_markers() -> Markup:
    """Return the shapes of all markers, to define once in the page."""
    holder = Element("svg", {"class": "markers", "aria-hidden": "true", "width": "0", "height": "0"})
    shapes = SubElement(holder, "defs")
    for number, path in enumerate(MARKERS):
        SubElement(shapes, "path", {"id": f"marker-{number}", "d": path})
    return finish(holder)


def draw_key(style: int) -> Markup:
    """Return a line and its marker, for the legend."""
    key = Element("svg", {"class": "key", "aria-hidden": "true", "width": "38", "height": "14"})
    line = {"class": f"line s{style}", "x1": "1", "x2": "37", "y1": "7", "y2": "7"}
    SubElement(key, "line", line | _dashes(style))
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

"""The charts of a report as PDF and SVG files for papers, drawn by matplotlib (the extra `plots`)."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqabench.errors import InputError
from vqabench.evaluation.findings import DatasetFindings
from vqabench.files.atomic import find_output, write_file
from vqabench.reporting.charts import (
    DASHES,
    BarChart,
    DotChart,
    Figure,
    LineChart,
    Overlay,
    build_charts,
    choose_offset,
    shorten,
)
from vqabench.reporting.output import clean_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

COLUMN, PAGE = 3.5, 7.0
"""Inches: the width of a column, and of the text, of a two-column paper."""
LETTERS = 50
"""Letters that fit into a column, at 7 points."""
LONGEST_ANSWER = 20
"""Letters of a label next to a chart."""
NAME, BAR, ANSWER, LEGEND = 0.16, 0.12, 0.22, 0.14
"""Inches: the heights of a bar's name, a bar, an answer, and a line of the legend."""
HEIGHT, MARGIN = 1.7, 0.45
"""Inches: the height of other charts, and of the axis below a chart."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart; light colours come late."""
MARKERS = ("o", "s", "^", "D", "v", "x", "+", "_")
MOST_MARKERS = 12
"""Maximum number of markers on one line."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3 fonts
    "svg.fonttype": "none",  # text stays text, which can be searched and edited
    "svg.hashsalt": "vqabench",  # or the names inside would differ from file to file
    "text.parse_math": False,  # a $ in a name is no formula
}
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
"""Without dates and versions: the same chart gives the same file."""


def check_figures(folder: Path) -> None:
    """Check that figures can be written, before anything is computed. Raises InputError."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        missing = (error.name or "matplotlib").partition(".")[0]
        raise InputError(f'--figures needs {missing}; install it: pip install "vqabench[plots]"') from error
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"--figures {folder}: not a folder")
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"--figures {folder}: the folder {nearest} is not writable")


def write_figures(findings: Sequence[DatasetFindings], folder: Path) -> Iterator[Path]:
    """Write every chart as PDF and SVG, named after the data set and what it shows, and yield each file.

    A missing folder is created. Raises InputError if a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--figures {folder}: cannot be created: {error.strerror}") from error
    figures = (
        (f"{own.name} {kind.key} {figure.name}", figure)
        for own in findings
        for kind in build_charts(own)
        for charts in kind.charts
        for figure in charts.figures
    )
    taken: set[str] = set()
    for title, figure in figures:
        name = re.sub(r"[^\w.]+", "-", clean_line(title)).strip("-.")
        name = name.encode()[:120].decode(errors="ignore")  # file systems limit the bytes of a name
        plain, number = name, 1
        while name in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name)
        for ending, content in render(figure).items():
            file = folder / f"{name}.{ending}"
            find_output(file)  # protects the files of runs
            write_file(file, content)
            yield file


def render(figure: Figure) -> dict[str, bytes]:
    """Return the content of a chart's files by their ending. The same chart gives the same bytes."""
    import matplotlib

    files = {}
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box in the PDF; the SVG has the text
        matplotlib.rcdefaults()  # the user's matplotlibrc must not change a figure
        matplotlib.rcParams.update(STYLE)
        drawing = draw(figure)
        for ending, metadata in METADATA.items():
            stream = io.BytesIO()
            drawing.savefig(stream, format=ending, metadata=metadata)
            files[ending] = stream.getvalue()
    return files


def draw(figure: Figure) -> Drawing:
    """Draw a chart without a title, because a paper has a caption."""
    from matplotlib.figure import Figure as Drawing  # not pyplot, which would choose an interactive backend

    drawing = Drawing(layout="constrained")
    axes = drawing.subplots()
    width, height = COLUMN, HEIGHT
    match figure.plot:
        case BarChart():
            longest = max((len(group.name) for group in figure.plot.groups), default=0)
            width = COLUMN if longest <= LETTERS else PAGE
            height = _draw_bars(axes, figure.plot, LETTERS if width == COLUMN else 2 * LETTERS)
        case DotChart():
            _draw_dots(axes, figure.plot)
            height = COLUMN * 0.7
        case LineChart():
            _draw_lines(axes, figure.plot)
        case Overlay():
            height = _draw_overlay(axes, figure.plot)
    handles, names = axes.get_legend_handles_labels()
    if names:
        longest = max(map(len, names))
        width = width if longest < LETTERS else PAGE
        columns = 2 if longest < (LETTERS if width == PAGE else LETTERS // 2) - 4 else 1
        drawing.legend(handles, names, loc="outside lower left", ncols=columns)
        height += LEGEND * (math.ceil(len(names) / columns) + 0.5)
    drawing.set_size_inches(width, height + MARGIN)
    return drawing


def _draw_bars(axes: Axes, chart: BarChart, letters: int) -> float:
    """Draw horizontal bars with their numbers, in groups below their names; return the height."""
    top = 0.0
    for group in chart.groups:
        label = shorten(clean_line(group.name), letters)
        axes.text(0.006, top + NAME * 0.85, label, va="baseline", transform=axes.get_yaxis_transform())
        top += NAME
        for number, bar in enumerate(group.bars):
            value, low, high = bar.value or 0.0, *(bar.ends or (bar.value or 0.0,) * 2)
            color = COLORS[1] if value < 0 else COLORS[0]
            axes.barh(
                top + BAR / 2,
                value,
                BAR * 0.8,
                color="white" if bar.hollow else color,
                edgecolor=color,
                linewidth=0.8,
                xerr=None if bar.ends is None else [[value - low], [high - value]],
                error_kw={"elinewidth": 0.8, "capsize": 1.5},
                label=chart.series[number] if len(chart.series) > 1 and group is chart.groups[0] else None,
            )
            text = "–" if bar.value is None else chart.scale.format(bar.value)
            at, side, gap = (max(value, high), "left", 3) if value >= 0 else (min(value, low), "right", -3)
            axes.annotate(
                text,
                (at, top + BAR / 2),
                xytext=(gap, 0),
                textcoords="offset points",
                ha=side,
                va="center_baseline",
                fontsize=6,
            )
            top += BAR
    axes.set(xlabel=chart.label, ylim=(top + BAR / 2, 0), yticks=[])
    axes.axvline(0, color="black", linewidth=0.6)
    span = (chart.scale.highest - chart.scale.lowest) or 1.0
    left = chart.scale.lowest - 0.15 * span * (chart.scale.lowest < 0)  # space for the numbers
    axes.set_xlim(left, chart.scale.highest + 0.15 * span)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    return top


def _draw_dots(axes: Axes, chart: DotChart) -> None:
    """Draw numbered points with error bars, and the line on which both numbers are equal."""
    width = 1.08 * max(end for dot in chart.dots for end in (dot.x, *(dot.x_ends or ()))) or 1.0
    height = 1.08 * max(end for dot in chart.dots for end in (dot.y, *(dot.y_ends or ()))) or 1.0
    points = [(220 * dot.x / width, 150 * dot.y / height) for dot in chart.dots]  # roughly, in points
    for number, dot in enumerate(chart.dots, 1):
        x_errors, y_errors = (
            None if ends is None else [[value - ends[0]], [ends[1] - value]]
            for value, ends in ((dot.x, dot.x_ends), (dot.y, dot.y_ends))
        )
        color, label = COLORS[dot.style], clean_line(f"{number} {dot.name}")
        axes.errorbar(dot.x, dot.y, y_errors, x_errors, color=color, elinewidth=0.8)
        axes.plot([dot.x], [dot.y], MARKERS[dot.style], color=color, label=label)
        others = points[: number - 1] + points[number:]
        offset = choose_offset(points[number - 1], others, ((4, 4), (4, -9), (-9, 4), (-9, -9)), (7, 7))
        axes.annotate(str(number), (dot.x, dot.y), xytext=offset, textcoords="offset points", fontsize=6)
    axes.axline((0, 0), slope=1, color="#666666", linewidth=0.8, linestyle=(0, (4, 4)))
    axes.set(xlabel=f"{chart.across} (%)", ylabel=f"{chart.up} (%)", xlim=(0, width), ylim=(0, height))
    axes.grid()


def _draw_lines(axes: Axes, chart: LineChart) -> None:
    """Draw accuracies by epoch, with a band from the lowest to the highest seed."""
    from matplotlib.ticker import MaxNLocator

    for line in chart.lines:
        points, color = line.curve.points, COLORS[line.style]
        epochs = [point.epoch for point in points]
        if line.curve.seeds > 1:
            lowest, highest = [point.lowest for point in points], [point.highest for point in points]
            axes.fill_between(epochs, lowest, highest, color=color, alpha=0.15, linewidth=0)
        axes.plot(
            epochs,
            [point.mean for point in points],
            color=color,
            linestyle=(0, tuple(length / 2 for length in DASHES[line.style])) if DASHES[line.style] else "-",
            marker=MARKERS[line.style],
            markevery=math.ceil(len(points) / MOST_MARKERS),
            label=_label(line.name),
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="soft accuracy (%)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")


def _label(name: str) -> str:
    """Return a name for the legend, from which matplotlib would leave out one that begins with an underscore."""
    name = clean_line(name)
    return f" {name}" if name.startswith("_") else name


def _draw_overlay(axes: Axes, chart: Overlay) -> float:
    """Draw distributions on top of one another, one answer per line; return the height."""
    rows = range(len(chart.answers))
    for series in chart.series:
        name = _label(series.name)
        if series.style is not None:
            color, marker = COLORS[series.style % len(COLORS)], MARKERS[series.style % len(MARKERS)]
            axes.plot(series.shares, rows, marker, color=color, label=name)
        elif series.hollow:
            axes.barh(rows, series.shares, 0.6, color="none", edgecolor="black", linewidth=0.8, label=name)
        else:
            axes.barh(rows, series.shares, 0.6, color="#C9CDD3", label=name)
    axes.set(xlabel="share of answers (%)", ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlim(left=0)
    axes.set_yticks(rows, [shorten(clean_line(answer), LONGEST_ANSWER) for answer in chart.answers])
    axes.grid(axis="x")
    return ANSWER * len(rows)

"""The charts of a report, as data: `svg` draws them into the page, `figures` into files for a paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from vqabench.evaluation.findings import Curve, DatasetFindings
from vqabench.evaluation.prior import TypeShift
from vqabench.evaluation.rows import Cell, Row
from vqabench.reporting.grids import SPLITS, Grid, Text

STYLES = 8
"""Series that can be told apart, by colour and by marker."""
DASHES: tuple[tuple[int, ...], ...] = (
    (),
    (7, 3),
    (2, 3),
    (9, 3, 2, 3),
    (14, 4),
    (4, 2, 1, 2),
    (1, 4),
    (12, 3, 4, 3),
)
"""Of lines, by style: lengths of strokes and gaps."""
LONGEST_LABEL = 44
"""Maximum number of letters of a name in a drawing."""
MOST_ROWS = 40
"""Maximum number of rows in one bar chart."""
MOST_DOTS = 24
"""Maximum number of points in the scatter plot."""
MOST_GROUPS = 12
"""Maximum number of line charts, each of one backbone and objective."""
MOST_STRATEGIES = 6
"""Maximum number of bar charts of gains."""
MOST_TYPES = 20
"""Maximum number of question types in each bar chart of gains."""

T = TypeVar("T")
Interval = tuple[float, float]
Position = tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """One number of a bar chart; None is drawn as a dash."""

    value: float | None
    ends: Interval | None = None
    """Of the error bar."""
    hollow: bool = False


@dataclass(frozen=True)
class Bars:
    """The bars that share a name."""

    name: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Scale:
    """The range of a bar chart; charts next to each other may share one."""

    lowest: float
    """At most 0."""
    highest: float
    """At least 0."""
    signed: bool = False
    """Positive numbers are written with a plus."""

    def format(self, value: float) -> str:
        """Return a number as text."""
        return f"{value:{'+' if self.signed else ''}.1f}"


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars in named groups."""

    label: str
    """Of the axis."""
    groups: tuple[Bars, ...]
    scale: Scale
    series: tuple[str, ...] = ()
    """What the bars of a group are, if it has several."""


@dataclass(frozen=True)
class Dot:
    """One point of a scatter plot, with the ends of its error bars."""

    name: str
    x: float
    y: float
    x_ends: Interval | None = None
    y_ends: Interval | None = None
    style: int = 0


@dataclass(frozen=True)
class DotChart:
    """Numbered points; on the dashed line both numbers are equal."""

    dots: tuple[Dot, ...]
    across: str
    up: str


@dataclass(frozen=True)
class Line:
    """Accuracy by epoch, with a band from the lowest to the highest seed."""

    name: str
    style: int
    curve: Curve


@dataclass(frozen=True)
class LineChart:
    """Lines by epoch."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Series:
    """One distribution over the answers of an overlay: bars behind, an outline, or marks."""

    name: str
    shares: tuple[float, ...]
    """Percent."""
    style: int | None = None
    """Of its marks; None for bars."""
    hollow: bool = False
    """Of bars: an outline."""


@dataclass(frozen=True)
class Overlay:
    """Distributions over the same answers, drawn on top of one another."""

    answers: tuple[str, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Figure:
    """One chart and its names."""

    name: str
    """Distinguishes it from other charts of its kind: part of a file's name."""
    caption: str
    plot: BarChart | DotChart | LineChart | Overlay
    title: str = ""
    """What it shows, if the caption alone does not explain it."""


@dataclass(frozen=True)
class Charts:
    """Charts that belong together, and their numbers."""

    title: str
    note: str
    figures: tuple[Figure, ...]
    numbers: Grid
    small: bool = False
    """Whether they are drawn side by side."""


@dataclass(frozen=True)
class Kind:
    """All charts of one kind."""

    key: str
    heading: str
    charts: tuple[Charts, ...]


def build_charts(findings: DatasetFindings) -> list[Kind]:
    """Return all charts of one data set by kind, without kinds that have none."""
    kinds = [
        Kind("domains", "Out of domain against in domain", build_scatter(findings)),
        Kind("accuracy", "Accuracy", build_accuracies(findings)),
        Kind("gains", "Gains by question type", build_gains(findings)),
        Kind("curves", "Learning curves", build_learning_curves(findings)),
        Kind("answers", "Answers that shifted most", build_shifts(findings.shifts)),
    ]
    return [kind for kind in kinds if kind.charts]


def shorten(name: str, longest: int = LONGEST_LABEL) -> str:
    """Return a name, cut in the middle if it is long: beginning and end distinguish it from others."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def choose_offset(
    at: Position, others: Sequence[Position], offsets: Sequence[Position], reach: Position
) -> Position:
    """Return the offset of a point's label that has the fewest other points within reach."""

    def count_near(offset: Position) -> int:
        x, y = at[0] + offset[0], at[1] + offset[1]
        return sum(abs(x - one) < reach[0] and abs(y - other) < reach[1] for one, other in others)

    return min(offsets, key=count_near)


def name_row(row: Row) -> str:
    """Return the full name of a row."""
    return f"{row.title}{' ‡' if row.branded else ''}"


def name_split(split: str, row: Row) -> str:
    """Return a split's name with its domain, such as `out-of-domain test`."""
    return f"{row.domain(split)} {split}"


def build_accuracies(findings: DatasetFindings) -> tuple[Charts, ...]:
    """Return a bar chart of each row's accuracy over all questions, out of domain and in domain."""
    rows = findings.comparison.rows
    splits = [split for split in SPLITS if any(row.cell(split).mean is not None for row in rows)]
    if not splits:
        return ()
    shown = _choose_largest(rows, MOST_ROWS, lambda row: row.cell(splits[0]).mean or 0.0)
    titles = [name_split(split, shown[0]) for split in splits]
    shapes = " (full bars) and ".join(titles) + (" (hollow bars)" if len(splits) > 1 else "")
    caption = f"Accuracy over all questions, in percent: {shapes}"
    note = "Lines across the ends show one standard deviation over the seeds."
    if len(shown) < len(rows):
        note += f" The {len(shown)} most accurate of {len(rows)} rows; the tables have all."
    found = [(name_row(row), [row.cell(split) for split in splits]) for row in shown]
    groups = tuple(
        Bars(name, tuple(Bar(cell.mean, cell.ends, n > 0) for n, cell in enumerate(own))) for name, own in found
    )
    highest = max(end for _, own in found for cell in own for end in (cell.ends or (cell.mean or 0.0,)))
    chart = BarChart("accuracy (%)", groups, Scale(0.0, max(0.0, highest)), tuple(titles))
    head = ("row", *(what for title in titles for what in (title, "standard deviation")))
    grid = _tabulate(
        caption, head, 1, ((name, *(text for cell in own for text in _format(cell))) for name, own in found)
    )
    return (Charts("", note, (Figure("", caption, chart),), grid),)


def build_scatter(findings: DatasetFindings) -> tuple[Charts, ...]:
    """Return a chart of accuracy out of domain against in domain, a point per row; nothing for a single row."""
    both = [
        (row, val, test)
        for row in findings.comparison.rows
        if (val := row.cell("val")).mean is not None
        and (test := row.cell("test")).mean is not None
        and row.test_domain == "out-of-domain"
    ]
    if len(both) < 2:
        return ()
    shown = _choose_largest(both, MOST_DOTS, lambda one: one[2].mean or 0.0)
    backbones = list(dict.fromkeys(row.backbone for row, _, _ in shown))
    dots = tuple(
        Dot(
            name_row(row),
            val.mean or 0.0,
            test.mean or 0.0,
            val.ends,
            test.ends,
            backbones.index(row.backbone) % STYLES,
        )
        for row, val, test in shown
    )
    caption = "Accuracy over all questions, in percent: out of domain (test) against in domain (val)"
    note = (
        "Higher is better out of domain, further right is better in domain. On the dashed line both are equal. "
        "Error bars show one standard deviation over the seeds."
    )
    if len(shown) < len(both):
        note += f" The {len(shown)} most accurate of {len(both)} rows."
    head = ("point", "row", "in-domain val", "standard deviation", "out-of-domain test", "standard deviation")
    lines = (
        (str(number), name_row(row), *_format(val), *_format(test))
        for number, (row, val, test) in enumerate(shown, 1)
    )
    figure = Figure("", caption, DotChart(dots, "in domain", "out of domain"))
    return (Charts("", note, (figure,), _tabulate(caption, head, 2, lines)),)


def build_learning_curves(findings: DatasetFindings) -> tuple[Charts, ...]:
    """Return charts of accuracy by epoch for each backbone and objective, in domain and out of domain."""
    groups: dict[tuple[str, str], list[tuple[Row, dict[str, Curve]]]] = {}
    for row, recorded in zip(findings.comparison.rows, findings.curves, strict=True):
        curves = {split: curve for split, curve in recorded.items() if curve.points}
        if curves:
            groups.setdefault((row.backbone, row.objective), []).append((row, curves))
    built = [_build_learning_curves(" ".join(name), own) for name, own in [*groups.items()][:MOST_GROUPS]]
    if len(groups) > MOST_GROUPS:
        rest = f" {len(groups) - MOST_GROUPS} more pairs of backbone and objective are not drawn."
        built[-1] = replace(built[-1], note=built[-1].note + rest)
    return tuple(built)


def _build_learning_curves(name: str, learned: Sequence[tuple[Row, dict[str, Curve]]]) -> Charts:
    shown = learned[:STYLES]
    figures = []
    for split in ("val", "test"):
        lines = tuple(
            Line(name_row(row), style, curves[split])
            for style, (row, curves) in enumerate(shown)
            if split in curves
        )
        if lines:
            caption = f"{name}, {name_split(split, shown[0][0])}: soft accuracy in percent by epoch"
            figures.append(Figure(f"{name} {split}", caption, LineChart(lines)))
    note = "Mean over the seeds; bands go from the lowest to the highest of them."
    if not any("test" in curves for _, curves in shown):
        note += " No accuracy on the test split was recorded: train with --track-test for that."
    if len(shown) < len(learned):
        note += f" The first {len(shown)} of {len(learned)} rows."
    every = [(name_row(row), split, curve) for row, curves in shown for split, curve in curves.items()]
    epochs = sorted({point.epoch for _, _, curve in every for point in curve.points})
    numbers = []
    for row_name, split, curve in every:
        texts = dict.fromkeys(epochs, "–")
        for point in curve.points:
            spread = f" ({point.lowest:.1f} to {point.highest:.1f})" if curve.seeds > 1 else ""
            texts[point.epoch] = f"{point.mean:.1f}{spread}"
        numbers.append((row_name, split, str(curve.seeds), *texts.values()))
    title = f"{name}: soft accuracy in percent by epoch"
    grid = _tabulate(title, ("row", "split", "seeds", *map(str, epochs)), 2, numbers)
    return Charts(name, note, tuple(figures), grid)


def build_shifts(shifts: Sequence[TypeShift]) -> tuple[Charts, ...]:
    """Return charts of each question type's answers in training, in the test split, and as predicted."""
    built = []
    note = (
        "The question types in which the answers of most questions shifted: total variation distance times "
        "questions. Predicted: plain and the strategies that differ the most from it, all seeds. "
    )
    for shift in shifts:
        series: list[Series] = []
        for name, own in shift.shares.items():
            shares = tuple(100 * share for share in own)
            if name in shift.questions:
                series.append(Series(f"{name}, {shift.questions[name]:,} questions", shares, hollow=bool(series)))
            else:
                series.append(Series(f"{name}, predicted", shares, len(series) - len(shift.questions)))
        caption = f"“{shift.question_type}”: share of each answer, in percent"
        figure = Figure(shift.question_type, caption, Overlay(shift.answers, tuple(series)))
        lines = (
            (answer, *(f"{100 * own[number]:.1f}" for own in shift.shares.values()))
            for number, answer in enumerate(shift.answers)
        )
        grid = _tabulate(caption, ("answer", *shift.shares), 1, lines)
        note += f"Total variation distance of the two splits: {shift.distance:.2f}."
        built.append(Charts(f"“{shift.question_type}”", note, (figure,), grid))
        note = ""  # the explanation is above the first chart
    return tuple(built)


def build_gains(findings: DatasetFindings) -> tuple[Charts, ...]:
    """Return bar charts of what each strategy gains or loses against plain, by question type."""
    rows = findings.comparison.rows
    split = next((s for s in SPLITS if any(row.cell(s).gain is not None for row in rows)), None)
    if split is None:
        return ()
    gaining = [row for row in rows if row.cell(split).gain is not None]
    shown = _choose_largest(gaining, MOST_STRATEGIES, lambda row: abs(row.cell(split).gain or 0.0))
    what = f"{name_split(split, shown[0])}: gain in accuracy against plain, in points"
    types = {key[3] for row in shown for key in row.cells if key[0] == split and key[2] == "question-type"}
    cells = {kind: [row.cell(split, kind, by="question-type") for row in shown] for kind in sorted(types)}
    order = _choose_types(cells)
    drawn = [cell for kind in order for cell in cells[kind]]
    ends = [0.0, *(cell.gain for cell in drawn if cell.gain is not None)]
    ends += [end for cell in drawn if cell.test is not None for end in (cell.test.low, cell.test.high)]
    figures = []
    for number, row in enumerate(shown):
        own = [(kind, cells[kind][number]) for kind in order]
        groups = tuple(
            Bars(kind, (Bar(cell.gain, (cell.test.low, cell.test.high) if cell.test else None),))
            for kind, cell in own
        )
        chart = BarChart("gain in accuracy (points)", groups, Scale(min(ends), max(ends), signed=True))
        figures.append(Figure(row.title, name_row(row), chart, f"{name_row(row)}, {what}"))
    note = (
        "Against the plain runs of the same backbone and objective in the same setting. Lines across the ends show "
        "the 95 % confidence interval over the seeds, if there are several, without correction: among many types "
        "some exclude 0 by chance."
    )
    if len(shown) < len(gaining):
        note += f" The {len(shown)} rows of {len(gaining)} that differ the most."
    if len(order) < len(types):
        note += f" The {len(order)} question types of {len(types)} that differ the most."
    head = ("question type", *(column for row in shown for column in (name_row(row), "95 % CI")))
    lines = ((kind, *(text for cell in own for text in _format_gain(cell))) for kind, own in cells.items())
    return (Charts(what, note, tuple(figures), _tabulate(what, head, 1, lines), small=True),)


def _choose_types(cells: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Return the question types that differ the most, in descending order of the first row's gain."""

    def largest(kind: str) -> float:
        return max((abs(cell.gain) for cell in cells[kind] if cell.gain is not None), default=0.0)

    chosen = sorted(cells, key=lambda kind: (-largest(kind), kind))[:MOST_TYPES]
    return sorted(chosen, key=lambda kind: (-(cells[kind][0].gain or 0.0), kind))


def _choose_largest(items: Sequence[T], limit: int, measure: Callable[[T], float]) -> list[T]:
    """Return the items with the largest measures, in the order of all."""
    largest = sorted(range(len(items)), key=lambda number: -measure(items[number]))[:limit]
    return [items[number] for number in sorted(largest)]


def _tabulate(title: str, head: Sequence[str], names: int, lines: Iterable[Iterable[str]]) -> Grid:
    return Grid(title, tuple(head), names, tuple(tuple(map(Text, line)) for line in lines))


def _format_gain(cell: Cell) -> tuple[str, str]:
    interval = "–" if cell.test is None else f"{cell.test.low:+.1f} to {cell.test.high:+.1f}"
    return "–" if cell.gain is None else f"{cell.gain:+.2f}", interval


def _format(cell: Cell) -> tuple[str, str]:
    """Return a mean and its deviation."""
    mean, deviation = ("–" if value is None else f"{value:.2f}" for value in (cell.mean, cell.deviation))
    return mean, deviation

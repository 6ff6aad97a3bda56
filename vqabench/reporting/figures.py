"""From what was found to charts, each with its numbers in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from vqabench.evaluation.findings import Curve, DatasetFindings, Point
from vqabench.evaluation.prior import TypeShift
from vqabench.evaluation.rows import Cell, Key, Row
from vqabench.reporting.grids import SPLITS, Grid, Text
from vqabench.reporting.plots import (
    STYLES,
    Bar,
    Bars,
    Dot,
    Scale,
    Series,
    draw_bars,
    draw_curves,
    draw_dots,
    draw_key,
    draw_mark,
    draw_overlay,
    draw_swatch,
)

MOST_ROWS = 40
"""In one bar chart."""
MOST_DOTS = 24
"""In the scatter plot."""
MOST_GROUPS = 12
"""Charts of curves, each of one backbone and objective."""
MOST_STRATEGIES = 6
"""Whose gains are drawn,"""
MOST_TYPES = 20
"""for so many question types."""

Keys = Callable[[], str]
"""Gives drawings names of their own."""
Learned = tuple[Row, dict[str, Curve]]
"""A row, and for each split that was watched its accuracy by epoch."""


@dataclass(frozen=True)
class Figure:
    """One chart."""

    caption: str
    drawing: Markup
    legend: tuple[tuple[Markup, str], ...] = ()


@dataclass(frozen=True)
class Charts:
    """Charts that stand together, and their numbers."""

    title: str
    note: str
    figures: tuple[Figure, ...]
    numbers: Grid
    small: bool = False
    """Several stand side by side."""


def name_row(row: Row) -> str:
    """Name a row in full."""
    return f"{row.title}{' ‡' if row.branded else ''}"


def name_split(split: str, row: Row) -> str:
    """Say what a split is to the training."""
    return f"{row.domain(split)} {split}"


def draw_accuracies(findings: DatasetFindings, keys: Keys) -> list[Charts]:
    """Draw the accuracy over all questions of each row, out of domain and in domain."""
    rows = findings.comparison.rows
    splits = [split for split in SPLITS if any(_all(split) in row.cells for row in rows)]
    if not splits:
        return []
    ranked = sorted(rows, key=lambda row: -_mean(row.cells.get(_all(splits[0]))))
    shown = [row for row in rows if row in ranked[:MOST_ROWS]]
    found = {row_number: [row.cells.get(_all(split)) for split in splits] for row_number, row in enumerate(shown)}
    groups = [
        Bars(name_row(row), tuple(_bar(cell, hollow=n > 0) for n, cell in enumerate(found[number])))
        for number, row in enumerate(shown)
    ]
    ends = [_mean(cell) + _deviation(cell) for cells in found.values() for cell in cells]
    scale = Scale(0.0, max(ends))
    titles = [name_split(split, shown[0]) for split in splits]
    shapes = " (full bars) and ".join(titles) + (" (hollow bars)" if len(splits) > 1 else "")
    caption = f"Accuracy over all questions, in percent: {shapes}"
    fewer = (
        ""
        if len(shown) == len(rows)
        else f" The {len(shown)} most accurate of {len(rows)} rows; the tables have all."
    )
    note = f"Lines across the ends show one standard deviation over the seeds.{fewer}"
    head = ("row", *(what for title in titles for what in (title, "standard deviation")))
    lines = tuple(
        (Text(name_row(row)), *(text for cell in found[number] for text in _spell(cell)))
        for number, row in enumerate(shown)
    )
    drawing = draw_bars(keys(), caption, groups, scale)
    return [Charts("", note, (Figure(caption, drawing),), Grid(caption, head, 1, lines))]


def draw_scatter(findings: DatasetFindings, keys: Keys) -> list[Charts]:
    """Draw the accuracy out of domain against that in domain, a point for each row; nothing for a single row."""
    both = [
        (row, test, val)
        for row in findings.comparison.rows
        if (test := _defined(row, "test")) and (val := _defined(row, "val")) and row.test_domain == "out-of-domain"
    ]
    if len(both) < 2:
        return []
    shown = sorted(both, key=lambda one: -_mean(one[1]))[:MOST_DOTS]
    shown = [one for one in both if one in shown]
    backbones = list(dict.fromkeys(row.backbone for row, _, _ in shown))
    dots = []
    for row, test, val in shown:
        style = backbones.index(row.backbone) % STYLES
        dots.append(Dot(name_row(row), _mean(val), _mean(test), _ends(val), _ends(test), style))
    caption = "Accuracy over all questions, in percent: out of domain (test) against in domain (val)"
    drawing = draw_dots(keys(), caption, dots, "in domain", "out of domain")
    legend = tuple((draw_mark(dot.style), f"{number} {dot.name}") for number, dot in enumerate(dots, 1))
    lines = tuple(
        (Text(str(number)), Text(name_row(row)), *_spell(val), *_spell(test))
        for number, (row, test, val) in enumerate(shown, 1)
    )
    notes = [
        "Higher is better out of domain, further right is better in domain. On the dashed line both are equal. "
        "Error bars show one standard deviation over the seeds."
    ]
    notes += [f"The {len(shown)} most accurate of {len(both)} rows."] * (len(shown) < len(both))
    head = ("point", "row", "in-domain val", "standard deviation", "out-of-domain test", "standard deviation")
    return [Charts("", " ".join(notes), (Figure(caption, drawing, legend),), Grid(caption, head, 2, lines))]


def _defined(row: Row, split: str) -> Cell | None:
    cell = row.cells.get(_all(split))
    return None if cell is None or cell.mean is None else cell


def _ends(cell: Cell) -> tuple[float, float] | None:
    return None if cell.deviation is None else (_mean(cell) - cell.deviation, _mean(cell) + cell.deviation)


def draw_learning(findings: DatasetFindings, keys: Keys) -> list[Charts]:
    """Draw accuracy by epoch: charts for each backbone and objective, one in domain, one out of domain."""
    groups: dict[tuple[str, str], list[Learned]] = {}
    for row, recorded in zip(findings.comparison.rows, findings.curves, strict=True):
        curves = {split: curve for split, curve in recorded.items() if curve.points}
        if curves:
            groups.setdefault((row.backbone, row.objective), []).append((row, curves))
    drawn = [_draw_learning(" ".join(name), own, keys) for name, own in [*groups.items()][:MOST_GROUPS]]
    if len(groups) > MOST_GROUPS:
        rest = f" {len(groups) - MOST_GROUPS} more pairs of backbone and objective are not drawn."
        drawn[-1] = replace(drawn[-1], note=drawn[-1].note + rest)
    return drawn


def _draw_learning(name: str, learned: Sequence[Learned], keys: Keys) -> Charts:
    shown = learned[:STYLES]
    figures = []
    for split in ("val", "test"):
        drawn = [(style, curves[split]) for style, (_, curves) in enumerate(shown) if split in curves]
        if drawn:
            caption = f"{name}, {name_split(split, shown[0][0])}: soft accuracy in percent by epoch"
            legend = tuple((draw_key(style), name_row(shown[style][0])) for style, _ in drawn)
            figures.append(Figure(caption, draw_curves(keys(), caption, drawn), legend))
    notes = ["Mean over the seeds; bands go from the lowest to the highest of them."]
    if not any("test" in curves for _, curves in shown):
        notes.append("The test was not watched: train with --track-test for that.")
    if len(shown) < len(learned):
        notes.append(f"The first {len(shown)} of {len(learned)} rows.")
    numbers = _tabulate_curves(f"{name}: soft accuracy in percent by epoch", shown)
    return Charts(name, " ".join(notes), tuple(figures), numbers)


def _tabulate_curves(title: str, learned: Sequence[Learned]) -> Grid:
    every = [(row, split, curve) for row, curves in learned for split, curve in curves.items()]
    epochs = sorted({point.epoch for _, _, curve in every for point in curve.points})
    lines = []
    for row, split, curve in every:
        points = {point.epoch: point for point in curve.points}
        cells = [_format_point(points.get(epoch), curve) for epoch in epochs]
        lines.append((Text(name_row(row)), Text(split), Text(str(curve.seeds)), *cells))
    return Grid(title, ("row", "split", "seeds", *map(str, epochs)), 2, tuple(lines))


def _format_point(point: Point | None, curve: Curve) -> Text:
    if point is None:
        return Text("–")
    spread = f" ({point.lowest:.1f} to {point.highest:.1f})" if curve.seeds > 1 else ""
    return Text(f"{point.mean:.1f}", spread)


def draw_shifts(shifts: Sequence[TypeShift], keys: Keys) -> list[Charts]:
    """Draw each question type's answers, in training, in the test, and as predicted."""
    drawn = [_draw_shift(shift, keys) for shift in shifts]
    if drawn:
        note = (
            "The question types in which the answers of most questions shifted: total variation distance times "
            "questions. Predicted: plain and the strategies that differ the most from it, all seeds."
        )
        drawn[0] = replace(drawn[0], note=f"{note} {drawn[0].note}")
    return drawn


def _draw_shift(shift: TypeShift, keys: Keys) -> Charts:
    highest = 100 * max(share for own in shift.shares.values() for share in own)
    series: list[Series] = []
    legend: list[tuple[Markup, str]] = []
    for name, own in shift.shares.items():
        shares = tuple(100 * share for share in own)
        if name in shift.questions:
            hollow = bool(series)
            series.append(Series(shares, None, hollow=hollow))
            swatch = draw_swatch("outline" if hollow else "behind")
            legend.append((swatch, f"{name}, {shift.questions[name]:,} questions"))
        else:
            style = len(series) - len(shift.questions)
            series.append(Series(shares, style))
            legend.append((draw_mark(style), f"{name}, predicted"))
    title = f"“{shift.question_type}”: share of each answer, in percent"
    drawing = draw_overlay(keys(), title, shift.answers, series, highest)
    figures = (Figure(title, drawing, tuple(legend)),)
    lines = tuple(
        (Text(answer), *(Text(f"{100 * own[number]:.1f}") for own in shift.shares.values()))
        for number, answer in enumerate(shift.answers)
    )
    note = f"Total variation distance of the two splits: {shift.distance:.2f}."
    numbers = Grid(title, ("answer", *shift.shares), 1, lines)
    return Charts(f"“{shift.question_type}”", note, figures, numbers)


def draw_gains(findings: DatasetFindings, keys: Keys) -> list[Charts]:
    """Draw what each strategy gains or loses against plain, by question type."""
    rows = findings.comparison.rows
    split = next((s for s in SPLITS if any(_gain(row, _all(s)) is not None for row in rows)), None)
    if split is None:
        return []
    gaining = [row for row in rows if _gain(row, _all(split)) is not None]
    ranked = sorted(gaining, key=lambda row: -abs(_gain(row, _all(split)) or 0.0))[:MOST_STRATEGIES]
    shown = [row for row in gaining if row in ranked]
    what = f"{name_split(split, shown[0])}: gain in accuracy against plain, in points"
    types = {key[3] for row in shown for key in row.cells if key[0] == split and key[2] == "question-type"}
    cells = {
        kind: [row.cells.get((split, "accuracy", "question-type", kind), Cell(None, None)) for row in shown]
        for kind in sorted(types)
    }
    order = _choose_types(cells)
    scale = Scale(*_span([cell for kind in order for cell in cells[kind]]), signed=True)
    figures = []
    for number, row in enumerate(shown):
        groups = [Bars(kind, (_gain_bar(cells[kind][number]),)) for kind in order]
        drawing = draw_bars(keys(), f"{name_row(row)}, {what}", groups, scale)
        figures.append(Figure(name_row(row), drawing))
    notes = [
        "Against the plain runs of the same backbone and objective in the same setting. Lines across the ends show "
        "the 95 % confidence interval over the seeds, where there are several, each on its own: among many types "
        "some exclude 0 by chance."
    ]
    notes += [f"The {len(shown)} rows of {len(gaining)} that differ the most."] * (len(shown) < len(gaining))
    notes += [f"The {len(order)} question types of {len(types)} that differ the most."] * (len(order) < len(types))
    head = ("question type", *(column for row in shown for column in (name_row(row), "95 % CI")))
    lines = tuple((Text(kind), *(t for cell in own for t in _format_gain(cell))) for kind, own in cells.items())
    return [Charts(what, " ".join(notes), tuple(figures), Grid(what, head, 1, lines), small=True)]


def _choose_types(cells: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Choose the question types that differ the most; those that the first row gains most in come first."""

    def largest(kind: str) -> float:
        return max((abs(cell.gain) for cell in cells[kind] if cell.gain is not None), default=0.0)

    chosen = sorted(cells, key=lambda kind: (-largest(kind), kind))[:MOST_TYPES]
    return sorted(chosen, key=lambda kind: (-(cells[kind][0].gain or 0.0), kind))


def _span(cells: Sequence[Cell]) -> tuple[float, float]:
    ends = [0.0, *(cell.gain for cell in cells if cell.gain is not None)]
    ends += [end for cell in cells if cell.test is not None for end in (cell.test.low, cell.test.high)]
    return min(ends), max(ends)


def _gain_bar(cell: Cell) -> Bar:
    return Bar(cell.gain, None if cell.test is None else (cell.test.low, cell.test.high))


def _format_gain(cell: Cell) -> tuple[Text, Text]:
    interval = "–" if cell.test is None else f"{cell.test.low:+.1f} to {cell.test.high:+.1f}"
    return Text("–" if cell.gain is None else f"{cell.gain:+.2f}"), Text(interval)


def _all(split: str) -> Key:
    return split, "accuracy", "answer-type", "all"


def _mean(cell: Cell | None) -> float:
    return 0.0 if cell is None or cell.mean is None else cell.mean


def _deviation(cell: Cell | None) -> float:
    return 0.0 if cell is None or cell.deviation is None else cell.deviation


def _bar(cell: Cell | None, *, hollow: bool) -> Bar:
    if cell is None or cell.mean is None:
        return Bar(None, None, hollow)
    spread = cell.deviation
    return Bar(cell.mean, None if spread is None else (cell.mean - spread, cell.mean + spread), hollow)


def _spell(cell: Cell | None) -> tuple[Text, Text]:
    if cell is None or cell.mean is None:
        return Text("–"), Text("–")
    return Text(f"{cell.mean:.2f}"), Text("–" if cell.deviation is None else f"{cell.deviation:.2f}")


def _gain(row: Row, key: Key) -> float | None:
    cell = row.cells.get(key)
    return None if cell is None else cell.gain

"""Turn a comparison into grids of text, from which tables of every format are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vqabench.errors import InputError, counted, unknown
from vqabench.evaluation.comparison import METRICS, Comparison
from vqabench.evaluation.notes import LEVEL
from vqabench.evaluation.published import SPLIT, USUAL_ACTIVATION, Published, read_published
from vqabench.evaluation.rows import Cell, Row
from vqabench.evaluation.scores import CATEGORIES

HEADS = {"yes/no": "Y/N", "number": "Num.", "other": "Other", "all": "All"}
SPLITS = ("test", "val")
UNITS = {"accuracy": "accuracy in percent", "kappa": "Cohen's kappa x 100"}
NAMES = ("backbone", "strategy")
ALWAYS = (*NAMES, "seeds", *HEADS.values())
P_HOLM = "p (Holm)"
COLUMNS = (*ALWAYS, "in-domain", "gain", "95 % CI", P_HOLM, "differs")
SHORT = {"yes/no": "Y/N", "number": "Num.", "ci": "95 % CI", "p": P_HOLM}
"""Other names of columns."""
PRIOR_COLUMNS = {
    "Head": ("accuracy", "prior", "head"),
    "Tail": ("accuracy", "prior", "tail"),
    "With prior": ("accuracy", "prior", "with the prior"),
    "Against": ("accuracy", "prior", "against the prior"),
    "All": ("accuracy", "answer-type", "all"),
    "Reliance": ("reliance", "prior", "all"),
    "ECE": ("calibration error", "prior", "all"),
    "Overconf.": ("overconfidence", "prior", "all"),
    "Bound": ("upper bound", "prior", "all"),
}
RUN_BY = {"authors": "run by the authors", "reported": "from the original paper"}
STRATEGIES = {
    "plain": "",
    "focal": "Focal",
    "rescale": "Re-scaling",
    "class-balanced": "Class-Balanced",
    "balanced-softmax": "Balanced Softmax",
    "logit-adjust": "Logit Adjustment",
    "ldam": "LDAM",
    "equalized-focal": "Equalized Focal",
    "mask": "Answer Mask",
}
"""What papers call the losses of this package."""
By = Literal["answer-type", "question-type", "prior", "subset"]
TableKey = tuple[str, str, str]
"""Data set, split and metric."""


@dataclass(frozen=True)
class Text:
    """One cell."""

    mean: str
    """A mean, or a name."""
    spread: str = ""
    """Text after a mean: ` ±1.25`."""
    mark: str = ""
    """Text after the mean and the spread: `†`."""
    best: bool = False
    display: str | None = None
    """How a paper writes a name; None if there is no other form."""

    @property
    def text(self) -> str:
        """Return the whole text."""
        return self.mean + self.spread + self.mark


@dataclass(frozen=True)
class Grid:
    """One table. The first `names` columns hold names, the others numbers."""

    title: str
    head: tuple[str, ...]
    names: int
    rows: tuple[tuple[Text, ...], ...]
    about: str = ""
    """What a paper's caption adds to the title."""
    key: TableKey = ("", "", "")


def lay_out(
    comparison: Comparison,
    metric: str | None,
    by: By,
    split: str | None = None,
    columns: Sequence[str] = (),
) -> list[Grid]:
    """Return the grids of a comparison, one per data set, metric and split.

    `metric` or `split` None means all of them; `columns` are those of `parse_columns`, none means all that are not
    empty.
    """
    grids = []
    for dataset in dict.fromkeys(row.dataset for row in comparison.rows):
        rows = [row for row in comparison.rows if row.dataset == dataset]
        for chosen in METRICS if metric is None else (metric,):
            for own in SPLITS if split is None else (split,):
                if not any(key[:2] == (own, chosen) for row in rows for key in row.cells):
                    continue
                key, title = (dataset, own, chosen), f"{dataset}, {rows[0].domain(own)} {own}: {UNITS[chosen]}"
                if by == "answer-type":
                    grids.append(_by_answer_type(title, key, rows))
                elif chosen == "accuracy" and (grid := LAYOUTS[by](title, key, rows)):
                    grids.append(grid)
    if split in (None, SPLIT):
        grids += _lay_out_published(comparison.published, metric)
    if not grids and split is not None:
        raise InputError(describe_nothing(metric, split))
    return [keep_columns(grid, columns) for grid in grids] if columns else grids


def describe_nothing(metric: str | None, split: str | None) -> str:
    """Return the message that there is nothing to show of a metric and a split."""
    return f"no run has scores{f' for {metric}' if metric else ''}{f' of {split}' if split else ''}"


def parse_columns(text: str, by: By) -> tuple[str, ...]:
    """Return the heads of the columns in a comma-separated list. Raises InputError."""
    if by == "question-type":
        raise InputError("--columns: tables by question type have one column per run; choose runs instead")
    if by == "subset":
        raise InputError("--columns: tables by subset always have a column for each subset; drop it")
    valid = list_columns(by)
    heads = {head.lower(): head for head in valid} | {word: head for word, head in SHORT.items() if head in valid}
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word.lower() not in heads:
            raise InputError(f"--columns: {unknown('column', word, valid)}")
    if not words:
        raise InputError(f"--columns: expected at least one column; valid: {', '.join(valid)}")
    return tuple(dict.fromkeys(heads[word.lower()] for word in words))


def list_columns(by: By) -> list[str]:
    """Return the heads of the columns that can be chosen."""
    return [*(COLUMNS[len(NAMES) :] if by == "answer-type" else ("seeds", *PRIOR_COLUMNS))]


def keep_columns(grid: Grid, heads: Sequence[str]) -> Grid:
    """Return a grid with its names and those columns of these heads that it has, in their order."""
    kept = [grid.head.index(head) for head in heads if head in grid.head]
    return choose(grid, [*range(grid.names), *kept])


def choose(grid: Grid, columns: Sequence[int]) -> Grid:
    """Return a grid with some of its columns."""
    return replace(
        grid,
        head=tuple(grid.head[number] for number in columns),
        rows=tuple(tuple(row[number] for number in columns) for row in grid.rows),
    )


def without_spreads(grid: Grid) -> Grid:
    """Return a grid whose deviations stand under "All" alone."""
    rows = tuple(
        tuple(
            cell if name == HEADS["all"] else replace(cell, spread="")
            for name, cell in zip(grid.head, row, strict=True)
        )
        for row in grid.rows
    )
    return replace(grid, rows=rows)


def deal(grid: Grid, fits: Callable[[Grid], bool]) -> list[Grid]:
    """Cut a grid into grids that fit, each with the names and at least one more column."""
    parts: list[Grid] = []
    names, rest = range(grid.names), range(grid.names, len(grid.head))
    kept = list(names)
    for number in rest:
        if len(kept) > grid.names and not fits(choose(grid, [*kept, number])):
            parts.append(choose(grid, kept))
            kept = list(names)
        kept.append(number)
    return [*parts, choose(grid, kept)]


def _lay_out_published(rows: Sequence[Published], metric: str | None) -> list[Grid]:
    """Return the paper's tables, a grid for each data set and metric."""
    groups: dict[tuple[str, str, str], list[tuple[Text, ...]]] = {}
    for row in rows:
        if metric not in (None, row.metric):
            continue
        stated = f"{row.objective}-{row.loss}" if row.objective else row.loss
        activation = row.options.get("mask", {}).get("activation", USUAL_ACTIVATION)
        masked = "" if activation == USUAL_ACTIVATION else f" @mask.activation={activation}"
        names = (Text(row.method), Text(f"{stated}{masked}, {RUN_BY[row.run_by]}"))
        groups.setdefault((row.table, row.dataset, row.metric), []).append(
            (*names, *_published_numbers(row).values())
        )
    head = ("method", "strategy", *HEADS.values())
    return [
        Grid(
            f"Table {table}: {dataset}, published: {UNITS[shown]}",
            head,
            2,
            tuple(lines),
            key=(dataset, "published", shown),
        )
        for (table, dataset, shown), lines in groups.items()
    ]


def choose_notes(comparison: Comparison, grids: Sequence[Grid]) -> list[str]:
    """Return the notes that these tables need: those on gains and marks only if the tables have such."""
    text = "\n".join(text for grid in grids for text in (*grid.head, *(c.text for row in grid.rows for c in row)))
    gains = any("gain" in grid.head for grid in grids)

    def is_needed(note: str) -> bool:
        mark = P_HOLM if note.startswith(P_HOLM) else note[:1]
        return mark in text if mark in (P_HOLM, "†", "‡") else gains or note not in comparison.gain_notes

    return [note for note in comparison.all_notes if is_needed(note)]


def _by_answer_type(title: str, key: TableKey, rows: Sequence[Row]) -> Grid:
    """Return a grid with a line per row, without empty columns; published rows follow ours."""
    _, split, metric = key
    lines = []
    for row in rows:
        lines.append(_line(row, rows, split, metric))
        printed = row.published if split == SPLIT else ()
        lines += [_published_line(one, row) for one in printed if one.metric == metric]
    head = tuple(column for column in COLUMNS if column in ALWAYS or any(column in line for line in lines))
    cells = tuple(tuple(line.get(column, Text("")) for column in head) for line in lines)
    return Grid(title, head, len(NAMES), cells, _describe_shared(rows), key)


def _line(row: Row, rows: Sequence[Row], split: str, metric: str) -> dict[str, Text]:
    line = _name(row, rows)
    for category in CATEGORIES:
        cell = row.cell(split, category, metric=metric)
        # The paper's mark of a significant gain.
        line[HEADS[category]] = replace(_format(cell), mark="†" if cell.test and cell.test.p < LEVEL else "")
    everything, in_domain = row.cell(split, metric=metric), row.cell("val", metric=metric)
    if everything.gain is not None:
        line["gain"] = Text(f"{everything.gain:+.2f}")
    if everything.test is not None:
        line["95 % CI"] = Text(f"{everything.test.low:+.1f} to {everything.test.high:+.1f}")
        line[P_HOLM] = Text(format_p(everything.test.p_holm))
    if split == "test" and row.test_domain == "out-of-domain" and in_domain.values:
        line["in-domain"] = replace(_format(in_domain), best=False)
    return line


def _published_line(printed: Published, row: Row) -> dict[str, Text]:
    stated = printed.objective or "objective not stated"
    table = f"Table {printed.table}"
    line = {
        "backbone": Text(f"{printed.method}, published", display=printed.method),
        "strategy": Text(
            f"{stated}-{printed.loss}, {table}, {RUN_BY[printed.run_by]}",
            display=f"{_display_loss(printed.loss)} (published, {table})".strip(),
        ),
    }
    line |= _published_numbers(printed)
    ours = row.cell(SPLIT).mean
    # The paper does not define its kappa.
    if printed.metric == "accuracy" and ours is not None and "all" in printed.numbers:
        line["differs"] = Text(f"{ours - printed.numbers['all']:+.2f}")
    return line


def _name(row: Row, rows: Sequence[Row]) -> dict[str, Text]:
    methods = {one.backbone: one.method for one in read_published()}
    about = [] if _describe_shared(rows) else [row.objective.upper()]
    if len({len(one.seeds) for one in rows}) > 1:
        about.append(counted(len(row.seeds), "seed"))
    parts = [
        _display_loss(row.loss),
        f"({', '.join(about)})" if about else "",
        f"[{row.label}]" if row.label else "",
        "‡" if row.branded else "",
    ]
    return {
        "backbone": Text(row.backbone, display=methods.get(row.backbone, row.backbone)),
        "strategy": Text(_strategy(row), display=" ".join(filter(None, parts))),
        "seeds": Text(str(len(row.seeds))),
    }


def _display_loss(loss: str) -> str:
    parts = filter(None, (STRATEGIES.get(part, part) for part in loss.split("+")))
    return " ".join(f"+ {part}" for part in parts)


def _describe_shared(rows: Sequence[Row]) -> str:
    """Return what all rows share and their names leave out, for a caption."""
    return f"objective {rows[0].objective.upper()}" if len({row.objective for row in rows}) == 1 else ""


def _published_numbers(printed: Published) -> dict[str, Text]:
    line = {}
    for category in CATEGORIES:
        number = printed.numbers.get(category)
        mark = "†" if category in printed.significant else ""
        line[HEADS[category]] = Text("–" if number is None else f"{number:.2f}", mark=mark)
    return line


def _strategy(row: Row) -> str:
    return f"{row.strategy}{' ‡' if row.branded else ''}"


def format_p(p: float) -> str:
    """Return a p-value with two significant digits; a tiny one as a bound."""
    return "<0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.095 else f"{p:.2f}"


def _by_prior(title: str, key: TableKey, rows: Sequence[Row]) -> Grid:
    lines = []
    for row in rows:
        columns = PRIOR_COLUMNS.values()
        cells = [row.cell(key[1], group, metric=metric, by=by) for metric, by, group in columns]
        lines.append((*_name(row, rows).values(), *map(_format, cells)))
    head = (*NAMES, "seeds", *PRIOR_COLUMNS)
    return Grid(title, head, len(NAMES), tuple(lines), _describe_shared(rows), key)


def _by_subset(title: str, key: TableKey, rows: Sequence[Row]) -> Grid | None:
    """Return a grid with a column per subset of the split, and one for all its questions; None without subsets."""
    own = [(name, by) for row in rows for split, _, by, name in row.cells if (split, by) == (key[1], "subset")]
    if not own:
        return None
    columns = [*dict.fromkeys(own), ("all", "answer-type")]
    head = (*NAMES, "seeds", *(HEADS["all"] if by == "answer-type" else name for name, by in columns))
    lines = tuple(
        (*_name(row, rows).values(), *(_format(row.cell(key[1], name, by=by)) for name, by in columns))
        for row in rows
    )
    return Grid(title, head, len(NAMES), lines, _describe_shared(rows), key)


def _by_question_type(title: str, key: TableKey, rows: Sequence[Row]) -> Grid:
    types = {name for row in rows for split, _, by, name in row.cells if (split, by) == (key[1], "question-type")}
    head = ("question type", *(f"{row.backbone} {_strategy(row)}" for row in rows))
    lines = tuple(
        (Text(name), *(_format(row.cell(key[1], name, by="question-type")) for row in rows))
        for name in sorted(types)
    )
    return Grid(title, head, 1, lines, key=key)


LAYOUTS: dict[By, Callable[[str, TableKey, Sequence[Row]], Grid | None]] = {
    "question-type": _by_question_type,
    "prior": _by_prior,
    "subset": _by_subset,
}


def _format(cell: Cell) -> Text:
    if cell.mean is None:
        return Text("–")
    spread = "" if cell.deviation is None else f" ±{cell.deviation:.2f}"
    return Text(f"{cell.mean:.2f}", spread, best=cell.best)

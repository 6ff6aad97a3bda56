"""A comparison as grids of text: what every form of table is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vqabench.evaluation.comparison import METRICS, Comparison
from vqabench.evaluation.notes import LEVEL
from vqabench.evaluation.published import SPLIT, USUAL_ACTIVATION, Published
from vqabench.evaluation.rows import Cell, Row
from vqabench.evaluation.scores import CATEGORIES

HEADS = {"yes/no": "Y/N", "number": "Num.", "other": "Other", "all": "All"}
SPLITS = ("test", "val")
UNITS = {"accuracy": "accuracy in percent", "kappa": "Cohen's kappa x 100"}
ALWAYS = ("backbone", "strategy", "seeds", *HEADS.values())
COLUMNS = (*ALWAYS, "in-domain", "gain", "95 % CI", "p (Holm)", "differs")
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
RUN_BY = {"authors": "run by the authors", "reported": "reported there"}
By = Literal["answer-type", "question-type", "prior"]


@dataclass(frozen=True)
class Text:
    """One cell."""

    mean: str
    """Or a name."""
    spread: str = ""
    """What follows a mean: ` ±1.25`."""
    mark: str = ""
    """What follows that: `†`."""
    best: bool = False

    @property
    def text(self) -> str:
        """Give all of it."""
        return self.mean + self.spread + self.mark


@dataclass(frozen=True)
class Grid:
    """One table. The first `names` columns hold names, the others numbers."""

    title: str
    head: tuple[str, ...]
    names: int
    rows: tuple[tuple[Text, ...], ...]


def lay_out(comparison: Comparison, metric: str | None, by: By) -> list[Grid]:
    """Lay a comparison out: a grid per data set, metric and split; `metric` None means every one."""
    grids = []
    for dataset in dict.fromkeys(row.dataset for row in comparison.rows):
        rows = [row for row in comparison.rows if row.dataset == dataset]
        for chosen in METRICS if metric is None else (metric,):
            for split in SPLITS:
                if not any(key[:2] == (split, chosen) for row in rows for key in row.cells):
                    continue
                title = f"{dataset}, {rows[0].domain(split)} {split}: {UNITS[chosen]}"
                if by == "answer-type":
                    grids.append(_by_answer_type(title, rows, split, chosen))
                elif chosen == "accuracy":
                    by_group = _by_question_type if by == "question-type" else _by_prior
                    grids.append(by_group(title, rows, split))
    return [*grids, *_lay_out_published(comparison.published, metric)]


def _lay_out_published(rows: Sequence[Published], metric: str | None) -> list[Grid]:
    """Lay out the paper's tables, a grid for each of their data sets and metrics."""
    groups: dict[str, list[Published]] = {}
    for row in rows:
        if metric in (None, row.metric):
            title = f"Table {row.table}: {row.dataset}, published: {UNITS[row.metric]}"
            groups.setdefault(title, []).append(row)
    head = ("method", "strategy", *HEADS.values())
    return [Grid(title, head, 2, tuple(_published_alone(row) for row in group)) for title, group in groups.items()]


def _published_alone(row: Published) -> tuple[Text, ...]:
    stated = f"{row.objective}-{row.loss}" if row.objective else row.loss
    activation = row.options.get("mask", {}).get("activation", USUAL_ACTIVATION)
    masked = "" if activation == USUAL_ACTIVATION else f" @mask.activation={activation}"
    names = (Text(row.method), Text(f"{stated}{masked}, {RUN_BY[row.run_by]}"))
    return (*names, *_published_numbers(row).values())


def choose_notes(comparison: Comparison, by: By) -> tuple[str, ...]:
    """Give the notes that go with a comparison's tables: marks stand only in those by answer type."""
    return (*comparison.notes, *filter(None, [comparison.marks if by == "answer-type" else ""]))


def _by_answer_type(title: str, rows: list[Row], split: str, metric: str) -> Grid:
    """Lay out a line per row, with the columns that any has something to say in; published rows follow ours."""
    lines = []
    for row in rows:
        lines.append(_line(row, split, metric))
        printed = row.published if split == SPLIT else ()
        lines += [_published_line(one, row, split) for one in printed if one.metric == metric]
    said = [column for column in COLUMNS if column in ALWAYS or any(line.get(column) for line in lines)]
    return Grid(
        title, tuple(said), 2, tuple(tuple(line.get(column, Text("")) for column in said) for line in lines)
    )


def _line(row: Row, split: str, metric: str) -> dict[str, Text]:
    cells = {category: row.cells.get((split, metric, "answer-type", category)) for category in CATEGORIES}
    line = {"backbone": Text(row.backbone), "strategy": Text(_strategy(row)), "seeds": Text(str(len(row.seeds)))}
    line |= {HEADS[category]: _spell_marked(cell) for category, cell in cells.items()}
    everything, beside = cells["all"], row.cells.get(("val", metric, "answer-type", "all"))
    if everything is not None and everything.gain is not None:
        line["gain"] = Text(f"{everything.gain:+.2f}")
        if everything.test is not None:
            line["95 % CI"] = Text(f"{everything.test.low:+.1f} to {everything.test.high:+.1f}")
            line["p (Holm)"] = Text(spell_p(everything.test.p_holm))
    if split == "test" and row.test_domain == "out-of-domain" and beside is not None:
        line["in-domain"] = replace(_spell(beside), best=False)
    return line


def _published_line(printed: Published, row: Row, split: str) -> dict[str, Text]:
    stated = printed.objective or "objective not stated"
    line = {
        "backbone": Text(f"{printed.method}, published"),
        "strategy": Text(f"{stated}-{printed.loss}, Table {printed.table}, {RUN_BY[printed.run_by]}"),
    }
    line |= _published_numbers(printed)
    ours = row.cells.get((split, printed.metric, "answer-type", "all"))
    comparable = printed.metric == "accuracy"  # the paper does not define its kappa
    if comparable and ours is not None and ours.mean is not None and "all" in printed.numbers:
        line["differs"] = Text(f"{ours.mean - printed.numbers['all']:+.2f}")
    return line


def _published_numbers(printed: Published) -> dict[str, Text]:
    line = {}
    for category in CATEGORIES:
        number = printed.numbers.get(category)
        mark = "†" if category in printed.significant else ""
        line[HEADS[category]] = Text("–" if number is None else f"{number:.2f}", mark=mark)
    return line


def _strategy(row: Row) -> str:
    return f"{row.strategy}{' ‡' if row.branded else ''}"


def _spell_marked(cell: Cell | None) -> Text:
    """Spell a number, with the paper's mark where its gain would hardly come of the seeds alone."""
    text = _spell(cell)
    return replace(text, mark="†") if cell is not None and cell.test and cell.test.p < LEVEL else text


def spell_p(p: float) -> str:
    """Spell a p-value with two digits that count; what is tiny only as a bound."""
    return "<0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.095 else f"{p:.2f}"


def _by_prior(title: str, rows: list[Row], split: str) -> Grid:
    head = ("backbone", "strategy", "seeds", *PRIOR_COLUMNS)
    lines = []
    for row in rows:
        cells = [row.cells.get((split, *key)) for key in PRIOR_COLUMNS.values()]
        names = (Text(row.backbone), Text(_strategy(row)), Text(str(len(row.seeds))))
        lines.append((*names, *map(_spell, cells)))
    return Grid(title, head, 2, tuple(lines))


def _by_question_type(title: str, rows: list[Row], split: str) -> Grid:
    types = {key[3]: None for row in rows for key in row.cells if key[0] == split and key[2] == "question-type"}
    head = ("question type", *(f"{row.backbone} {_strategy(row)}" for row in rows))
    lines = tuple(
        (Text(name), *(_spell(row.cells.get((split, "accuracy", "question-type", name))) for row in rows))
        for name in sorted(types)
    )
    return Grid(title, head, 1, lines)


def _spell(cell: Cell | None) -> Text:
    if cell is None or cell.mean is None:
        return Text("–")
    spread = "" if cell.deviation is None else f" ±{cell.deviation:.2f}"
    return Text(f"{cell.mean:.2f}", spread, best=cell.best)

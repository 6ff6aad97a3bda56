"""A comparison as grids of text: what every form of table is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vqabench.evaluation.comparison import METRICS, Cell, Comparison, Row
from vqabench.evaluation.scores import CATEGORIES

HEADS = {"yes/no": "Y/N", "number": "Num.", "other": "Other", "all": "All"}
SPLITS = ("test", "val")
UNITS = {"accuracy": "accuracy in percent", "kappa": "Cohen's kappa x 100"}
By = Literal["answer-type", "question-type"]


@dataclass(frozen=True)
class Text:
    """One cell."""

    mean: str
    """Or a name."""
    spread: str = ""
    """What follows a mean: ` ±1.25`."""
    best: bool = False

    @property
    def text(self) -> str:
        """Give all of it."""
        return self.mean + self.spread


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
                domain = rows[0].test_domain if split == "test" else "in-domain"
                title = f"{dataset}, {domain} {split}: {UNITS[chosen]}"
                if by == "answer-type":
                    grids.append(_by_answer_type(title, rows, split, chosen))
                elif chosen == "accuracy":
                    grids.append(_by_question_type(title, rows, split))
    return grids


def _by_answer_type(title: str, rows: list[Row], split: str, metric: str) -> Grid:
    head = ("backbone", "strategy", "seeds", *(HEADS[c] for c in CATEGORIES), "gain")
    return Grid(title, head, 2, tuple(_line(row, split, metric) for row in rows))


def _line(row: Row, split: str, metric: str) -> tuple[Text, ...]:
    cells = [row.cells.get((split, metric, "answer-type", category)) for category in CATEGORIES]
    gain = cells[-1].gain if cells[-1] is not None else None
    return (
        Text(row.backbone),
        Text(_strategy(row)),
        Text(str(len(row.seeds))),
        *(_spell(cell) for cell in cells),
        Text("" if gain is None else f"{gain:+.2f}"),
    )


def _strategy(row: Row) -> str:
    return f"{row.objective}-{row.name}{' ‡' if row.branded else ''}"


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
    return Text(f"{cell.mean:.2f}", spread, cell.best)

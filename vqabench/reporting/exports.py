"""Comparisons and scores in forms that other programs and papers read."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec

from vqabench.evaluation.comparison import Comparison
from vqabench.reporting.grids import Grid, Text


def to_json(content: Any) -> str:
    """Give one JSON document."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def to_markdown(grids: list[Grid], notes: tuple[str, ...]) -> str:
    """Give GitHub's tables, the best numbers in bold."""
    return "\n\n".join([*(_markdown_table(grid) for grid in grids), *(f"> {_escape(note)}" for note in notes)])


def _markdown_table(grid: Grid) -> str:
    rule = ["---"] * grid.names + ["---:"] * (len(grid.head) - grid.names)
    lines = [[_escape(name) for name in grid.head], rule, *([_markdown_cell(c) for c in row] for row in grid.rows)]
    return "\n".join([f"**{_escape(grid.title)}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _markdown_cell(cell: Text) -> str:
    text = _escape(cell.text)
    return f"**{text}**" if cell.best else text


def _escape(text: str) -> str:
    for mark in "\\|*_`<":
        text = text.replace(mark, f"\\{mark}")
    return text


def to_csv(comparison: Comparison) -> str:
    """Give a line per configuration, split, metric and category (or question type)."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = "dataset backbone objective loss label seeds branded split metric by category mean deviation gain"
    writer.writerow(head.split())
    for row in comparison.rows:
        seeds = " ".join(map(str, row.seeds))
        about = [row.dataset, row.backbone, row.objective, row.loss, row.label, seeds, int(row.branded)]
        for key, cell in sorted(row.cells.items()):
            writer.writerow([*about, *key, cell.mean, cell.deviation, cell.gain])
    return stream.getvalue()


def comparison_to_json(comparison: Comparison) -> str:
    """Give every row with its numbers: split -> metric (or `question-type`) -> category -> mean, ..."""
    rows = []
    for row in comparison.rows:
        numbers: dict[str, Any] = {}
        for (split, metric, by, category), cell in sorted(row.cells.items()):
            table = by if by == "question-type" else metric
            numbers.setdefault(split, {}).setdefault(table, {})[category] = msgspec.to_builtins(cell)
        hidden = ("cells", "setting", "plain")
        about = {name: value for name, value in vars(row).items() if name not in hidden}
        rows.append(about | {"branded": row.branded, "scores": numbers})
    return to_json({"rows": rows, "notes": comparison.notes})

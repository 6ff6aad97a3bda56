"""Lists, facts and bars for the terminal; loads nothing heavy."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from vqabench.reporting.output import clean_line
from vqabench.reporting.terminal import stdout_console, warn

if TYPE_CHECKING:
    from vqabench.data.prepare.answer_shares import TypeShares

__all__ = ["draw_facts", "draw_list", "stdout_console", "warn"]


_FORMULA = tuple("=+-@＝＋－＠")


def list_to_csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a list of things as CSV, one per row; no text in it is a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([disarm(cell) for cell in row] for row in (head, *rows))
    return stream.getvalue()


def disarm(text: str) -> str:
    """Return a text with a quotation mark in front if a spreadsheet would take it for a formula."""
    text = clean_line(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def draw_list(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Draw a list of things, one per row."""
    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean_line(cell)) for cell in row))
    return table


def draw_facts(facts: Mapping[str, str]) -> Table:
    """Draw names and their descriptions."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(clean_line(name)), Text(clean_line(value)))
    return table


def draw_finding(what: str, state: str, found: str, fix: str, width: int) -> Table:
    """Draw the result of a check, with its fix on a line of its own; `what` has a column of `width` characters."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for least in (6, width):
        table.add_column(no_wrap=True, min_width=least)
    table.add_column(overflow="fold")
    style = {"broken": "bold red", "note": "yellow"}.get(state, "")
    table.add_row(Text(state, style), Text(what), Text(found))
    if fix:
        table.add_row("", "", Text(f"fix: {fix}", style))
    return table


SHORTEST_BAR = 8


def draw_answer_shares(types: Sequence[TypeShares], console: Console) -> Iterator[RenderableType]:
    """Draw each question type's answers, with a bar for each split."""
    for shares in types:
        counts = ", ".join(f"{split} {count:,}" for split, count in shares.questions.items())
        apart = "" if shares.distance is None else f"; total variation distance {shares.distance:.2f}"
        yield Text.assemble("\n", (shares.question_type, "bold"), f": {counts} questions{apart}")
        table = Table(box=None, pad_edge=False, show_header=True)
        table.add_column("", width=16, overflow="ellipsis", no_wrap=True)
        width = max(SHORTEST_BAR, (min(console.width, 100) - 18) // len(shares.questions) - 10)
        for split in shares.questions:
            table.add_column("", justify="right")
            table.add_column(split, width=width)
        for answer, own in shares.shares.items():
            cells: list[RenderableType] = [Text(answer or "(empty)")]
            for split in shares.questions:
                plain = not console.encoding.startswith("utf")
                bar = "#" * round(own[split] * width) if plain else Bar(1.0, 0.0, own[split], width=width)
                cells += [f"{own[split]:.1%}", bar]
            table.add_row(*cells)
        yield table

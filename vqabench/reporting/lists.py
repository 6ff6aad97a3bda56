"""Plain lists of things for the terminal; loads nothing heavy."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from vqabench.reporting.output import clean_line
from vqabench.reporting.terminal import stdout_console, warn

__all__ = ["draw_facts", "draw_list", "stdout_console", "warn"]


_FORMULA = tuple("=+-@＝＋－＠")


def list_to_csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a list of things as CSV, one a row; no text in it is a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([disarm(cell) for cell in row] for row in (head, *rows))
    return stream.getvalue()


def disarm(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula: a quotation mark goes in front."""
    text = clean_line(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def draw_list(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Draw a list of things, one a row."""
    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean_line(cell)) for cell in row))
    return table


def draw_facts(facts: Mapping[str, str]) -> Table:
    """Draw names and what they are."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(clean_line(name)), Text(clean_line(value)))
    return table


def draw_finding(what: str, state: str, found: str, fix: str) -> Table:
    """Draw what a check found, with what helps on a line of its own."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for width in (6, 17):
        table.add_column(no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    style = {"broken": "bold red", "note": "yellow"}.get(state, "")
    table.add_row(Text(state, style), Text(what), Text(found))
    if fix:
        table.add_row("", "", Text(f"fix: {fix}", style))
    return table

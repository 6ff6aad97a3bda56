"""Plain lists of things for the terminal; loads nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

WIDTH_OF_A_FILE = 200


def stdout_console() -> Console:
    """Give the console on stdout; into a file or a pipe, wide enough that nothing is cut."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE, highlight=False)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[yellow]warning:[/] {escape(message)}")


def draw_list(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Draw a list of things, one a row."""
    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def draw_facts(facts: Mapping[str, str]) -> Table:
    """Draw names and what they are."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name), Text(value))
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

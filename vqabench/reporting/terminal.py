"""Consoles on stdout and stderr that print only their own control characters, for colours and bars."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from vqabench.reporting.output import clean, clean_line

WIDTH_OF_A_FILE = 200


class Terminal(Console):
    """A console that removes control characters from all text and ignores markup: `[red]` is printed as it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render and clean; everything that is printed passes here, including parts of tables and bars."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))


def stdout_console() -> Terminal:
    """Return the console on stdout; for a file or a pipe, it is wide enough that nothing is cut."""
    return Terminal(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)


def stderr_console() -> Terminal:
    """Return the console on stderr; the terminal wraps long lines."""
    return Terminal(stderr=True, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning on stderr, in one line."""
    stderr_console().print(format_warning(message))


def format_warning(message: str) -> Text:
    """Return a warning as it is printed."""
    return Text.assemble(("warning:", "yellow"), f" {clean_line(message)}")

"""The consoles on stdout and stderr: nothing that they draw can steer a terminal but their own colours and bars."""

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
    """A console that cleans all text, whoever wrote it, and takes no markup: `[red]` is printed as it stands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Draw; all that is printed passes here, also what is drawn within something else."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))


def stdout_console() -> Terminal:
    """Return the console on stdout; into a file or a pipe, wide enough that nothing is cut."""
    return Terminal(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)


def stderr_console() -> Terminal:
    """Return the console on stderr; long lines are left to the terminal."""
    return Terminal(stderr=True, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning on stderr, in one line."""
    stderr_console().print(format_warning(message))


def format_warning(message: str) -> Text:
    """Return a warning as it is printed."""
    return Text.assemble(("warning:", "yellow"), f" {clean_line(message)}")

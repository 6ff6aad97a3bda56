"""Standard streams that are closed, full, or in an encoding with few characters."""

from __future__ import annotations

import errno
import os
import re
import sys
from io import BufferedWriter, FileIO, TextIOWrapper

NARROWEST = 20
"""Columns that a table needs at least; a smaller COLUMNS is ignored."""


def protect() -> None:
    """Replace stdout and stderr by streams that never end a command, except a full stdout.

    A stream that is closed, or whose reader goes away, drops what is printed; the command still runs to its end,
    which decides the exit code. A full stderr does likewise; a full stdout is an error, raised once. A character
    that the encoding does not have becomes `?` on stdout, an escape on stderr.
    """
    for descriptor in (0, 1, 2):
        _fill(descriptor)
    sys.stdout = _wrap(1, sys.stdout, "replace")
    sys.stderr = _wrap(2, sys.stderr, "backslashreplace")
    columns = os.environ.get("COLUMNS", "")
    if columns and not (re.fullmatch("[0-9]{1,4}", columns) and int(columns) >= NARROWEST):
        del os.environ["COLUMNS"]


def _fill(descriptor: int) -> None:
    """Open /dev/null for a closed stream, or the next file that is opened would take its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)


def _wrap(descriptor: int, before: object, errors: str) -> TextIOWrapper:
    encoding = before.encoding if isinstance(before, TextIOWrapper) else "utf-8"
    raw = _Stream(descriptor, "wb", closefd=False)
    return TextIOWrapper(
        BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=descriptor == 2 or raw.isatty()
    )


class _Stream(FileIO):
    """A stream that drops what cannot be written."""

    def write(self, content: object) -> int:
        """Write, or drop what cannot be written. Raises OSError, once, if stdout is full."""
        try:
            return super().write(content)  # type: ignore[arg-type]
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if error.errno != errno.EPIPE and self.fileno() == 1:
                raise OSError(error.errno, error.strerror, "stdout") from None
            return len(content)  # type: ignore[arg-type]

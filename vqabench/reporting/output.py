"""Print text; characters from plugins, runs, data sets and servers that could steer a terminal are removed.

Everything that the command line prints goes through `say`, `say_json`, `say_on_stderr` or a console of `terminal`;
ruff rejects `print`, `typer.echo` and other consoles.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters: they move the cursor, set the title, paste
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u2064\u3164\ufeff\uffa0"  # no width
    "\u2028\u2029\u202a-\u202e\u2066-\u206f\ufff9-\ufffb"  # other line ends, text direction
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ud800-\udfff]"  # half a character: from a file name that is not UTF-8, or from broken JSON
)
_BREAK = re.compile(r"\s*[\n\t]\s*")
_SPACES = "\x0b\x0c\r\x85\u2028\u2029"


def clean(text: str) -> str:
    """Remove control characters and invisible ones, except line ends and tabs."""
    return _UNSAFE.sub(_replace, text)


def clean_line(text: str) -> str:
    """Remove control characters and invisible ones, and join the lines."""
    return _BREAK.sub(" ", clean(text))


def _replace(found: re.Match[str]) -> str:
    mark = found[0]
    return " " if mark in _SPACES else "\ufffd" if "\ud800" <= mark <= "\udfff" else ""


def say(text: str, *, end: str = "\n") -> None:
    """Print text on stdout."""
    _write(sys.stdout, clean(text) + end)


def say_on_stderr(text: str) -> None:
    """Print text on stderr."""
    _write(sys.stderr, clean(text) + "\n")


def say_json(document: str) -> None:
    """Print a JSON document on stdout; characters that `clean` removes or stdout cannot encode are escaped."""
    document = _UNSAFE.sub(_escape, document)
    try:
        document.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        document = re.sub(r"[^\x00-\x7f]", _escape, document)
    _write(sys.stdout, document + "\n")


def _escape(found: re.Match[str]) -> str:
    """Return a character as JSON escapes, in UTF-16."""
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[start : start + 2].hex()}" for start in range(0, len(units), 2))


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()

"""Read JSON files of many entries, a list that is bare or under a key of an object, one entry at a time.

Everything that Python's `json` module reads is accepted, including NaN, halves of surrogate pairs and unknown keys,
since these files are written by it, and read by it in the official evaluation. msgspec is tried first, because it
reads the usual file ten times as fast.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vqabench.errors import InputError, VqabenchError, first_few
from vqabench.files.packed import read_packed

Entry = TypeVar("Entry")
LARGEST_FLOAT = 2**53
"""Whole numbers up to this one are exact as floats."""
LARGEST_ID = 2**63 - 1
_UNUSUAL = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of msgspec for input that Python may be able to read."""


def read_json(path: Path) -> bytes:
    """Read a JSON file, plain, `.gz` or inside a `.zip`. Raises InputError if it cannot be one.

    Of two files in a zip, the one with open-ended questions is read: the archives of VQA v1 hold both kinds.
    """
    content = read_packed(path, ".json", unless="MultipleChoice")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}: is in UTF-16; save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content or content.isspace():
        raise InputError(f"{path}: empty, but JSON is expected")
    return content


def read_entries(
    path: Path, key: str, decoder: msgspec.json.Decoder[Entry], convert: Callable[[Any], Entry]
) -> Iterator[tuple[Entry, msgspec.Raw]]:
    """Yield the entries of a file whose list is bare or stands under `key`, each with its undecoded JSON.

    Entries that `decoder` refuses are decoded by Python and passed to `convert`. Raises InputError, naming file and
    entry, if one is not valid.
    """
    decode = decoder.decode
    for number, raw in enumerate(_split(path, key), 1):
        try:
            yield decode(raw), raw
        except _UNUSUAL:
            yield _decode_slowly(f"{path}: entry {number} of the {key}", raw, convert), raw


def _decode_slowly(where: str, raw: msgspec.Raw, convert: Callable[[Any], Entry]) -> Entry:
    with explaining(where):
        try:
            return convert(json.loads(bytes(raw).decode()))
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not in UTF-8: {error.reason}") from error
        except ValueError as error:  # msgspec's, or of a number of thousands of digits
            raise InputError(f"{where}: {error}") from error


def _split(path: Path, key: str) -> list[msgspec.Raw]:
    """Read a file's entries without decoding them."""
    with explaining(path):
        content = read_json(path)
        try:
            kind = msgspec.defstruct("File", [(key, list[msgspec.Raw])], gc=False)
            found: Any = msgspec.json.decode(content, type=kind | list[msgspec.Raw])
            return found if isinstance(found, list) else getattr(found, key)
        except _UNUSUAL:
            pass
        text = decode_text(path, content)
        try:
            entries = json.loads(text)
        except json.JSONDecodeError as error:
            raise broken(path, text, error.pos, error.msg) from error
        except ValueError as error:  # a number of thousands of digits
            raise InputError(f"{path}: {error}") from error
        if isinstance(entries, dict) and key not in entries:
            found = f"an object with the keys {first_few(entries) or '(none)'}"
            raise InputError(
                f"{path}: not a file of {key}: {found} where a list is expected, bare or under the key {key!r}"
            )
        entries = entries[key] if isinstance(entries, dict) else entries
        if not isinstance(entries, list):
            raise InputError(f"{path}: not a file of {key}: {describe(entries)} where a list is expected")
        return [msgspec.Raw(json.dumps(entry).encode()) for entry in entries]


def broken(path: Path, text: str, position: int, what: str) -> InputError:
    """Return the error for a file that is not JSON from a position on."""
    end = len(text.rstrip())
    if position >= end or what.endswith("Unterminated string starting at"):
        return InputError(f"{path}: broken JSON: the file ends too early, after {len(text):,} characters ({what})")
    line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    return InputError(f"{path}: broken JSON in line {line}, column {column}: {what}")


def describe(value: object) -> str:
    """Describe a JSON value in a few words."""
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return "an object" if isinstance(value, dict) else kinds.get(type(value), "null")


def decode_text(path: Path, content: bytes) -> str:
    """Decode UTF-8. Raises InputError, naming file and line, if it is invalid."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: not in UTF-8: {error.reason} in line {line}, byte {error.start:,}") from error


@contextmanager
def explaining(where: object) -> Iterator[None]:
    """Name the place in errors of decoding for lack of memory, or because of too deep nesting."""
    try:
        yield
    except RecursionError as error:
        raise InputError(f"{where}: lists or objects are nested too deeply") from error
    except MemoryError as error:
        raise VqabenchError(f"{where}: not enough memory to read it") from error


def as_id(value: object) -> object:
    """Convert a whole number that is written as a float (7.0) or as text ("7") to int; return other values."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_FLOAT:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}(\.0*)?", value):
        return int(value.partition(".")[0])
    return value


def find_id(value: object) -> int | None:
    """Return the id that a value holds, also as a float or text as in `as_id`; None if it holds none."""
    found = as_id(value)
    return found if type(found) is int and abs(found) <= LARGEST_ID else None

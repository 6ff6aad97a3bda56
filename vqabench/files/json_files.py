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
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vqabench.errors import InputError, VqabenchError, first_few
from vqabench.files.packed import read_packed

Entry = TypeVar("Entry")
UNUSUAL = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of msgspec for input that Python may be able to read."""
LARGEST_FLOAT = 2**53
"""Whole numbers up to this one are exact as floats."""
_SPACE = re.compile(r"[ \t\n\r]*")
_PYTHON = json.JSONDecoder()


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
) -> Iterator[Entry]:
    """Yield the entries of a file whose list is bare or stands under `key`.

    Entries that `decoder` refuses are passed to `convert`, as in `decode_slowly`. Raises InputError, naming file
    and entry, if one is not valid.
    """
    decode = decoder.decode
    for number, raw in enumerate(read_raw_entries(path, key), 1):
        try:
            yield decode(raw)
        except UNUSUAL:
            yield decode_slowly(f"{path}: entry {number} of the {key}", raw, convert)


def decode_slowly(where: str, raw: msgspec.Raw, convert: Callable[[Any], Entry]) -> Entry:
    """Decode an entry with Python's `json` module, and convert it.

    Raises InputError if it cannot be decoded, or `convert` raises msgspec.ValidationError.
    """
    with explaining(where):
        try:
            return convert(_PYTHON.decode(bytes(raw).decode()))
        except msgspec.ValidationError as error:
            raise InputError(f"{where}: {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not in UTF-8: {error.reason}") from error
        except ValueError as error:  # a number of thousands of digits
            raise InputError(f"{where}: {error}") from error


def read_raw_entries(path: Path, key: str) -> Iterator[msgspec.Raw]:
    """Yield the entries of such a file without decoding them."""
    with explaining(path):
        content = read_json(path)
        entries = _split(content, key)
        yield from _split_slowly(path, decode_text(path, content), key) if entries is None else entries


def _split(content: bytes, key: str) -> list[msgspec.Raw] | None:
    """Split a file into its entries; None if msgspec cannot read it, or there is no such list."""
    try:
        if _OBJECT.match(content):
            entries: list[msgspec.Raw] = getattr(_object_decoder(key).decode(content), key)
            return entries
        return _LIST.decode(content)
    except UNUSUAL:
        return None


_OBJECT = re.compile(rb"\s*\{")
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


@cache
def _object_decoder(key: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(msgspec.defstruct("File", [(key, list[msgspec.Raw])], gc=False))


def _split_slowly(path: Path, text: str, key: str) -> Iterator[msgspec.Raw]:
    """Split a file entry by entry with Python's own decoder. Raises InputError if it is broken."""
    start = _skip(text, 0)
    if text[start] == "{":
        start = _find_list(path, text, start, key)
    if text[start] != "[":
        raise InputError(f"{path}: not a file of {key}: {_describe(path, text, start)} where a list is expected")
    number, position = 0, _skip(text, start + 1)
    if text.startswith("]", position):
        return
    while True:
        number += 1
        _, end = _decode_at(path, text, position, f"entry {number}")
        yield msgspec.Raw(text[position:end].encode())
        position = _skip(text, end)
        if text.startswith("]", position):
            _check_end(path, text, position + 1, closes_object=text[_skip(text, 0)] == "{")
            return
        position = _expect(path, text, position, ",", f"entry {number}")


def _find_list(path: Path, text: str, start: int, key: str) -> int:
    """Return the position of the value of a key, in the object that begins at `start`."""
    names: list[str] = []
    position = _skip(text, start + 1)
    while not text.startswith("}", position):
        name, end = _decode_at(path, text, position, f"key {len(names) + 1}")
        names.append(str(name))
        position = _expect(path, text, _skip(text, end), ":", f"the key {name!r}")
        if name == key:
            return position
        _, end = _decode_at(path, text, position, f"the key {name!r}")
        position = _skip(text, end)
        if not text.startswith("}", position):
            position = _expect(path, text, position, ",", f"the key {name!r}")
    raise InputError(
        f"{path}: not a file of {key}: an object with the keys {first_few(names) or '(none)'} where a list is "
        f"expected, bare or under the key {key!r}"
    )


def _decode_at(path: Path, text: str, position: int, what: str) -> tuple[Any, int]:
    try:
        return _PYTHON.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise broken(path, text, error.pos, f"{what}: {error.msg}") from error
    except ValueError as error:
        raise broken(path, text, position, f"{what}: {error}") from error


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _expect(path: Path, text: str, position: int, mark: str, what: str) -> int:
    """Return the position after a mark and space. Raises InputError if the mark is missing."""
    if not text.startswith(mark, position):
        raise broken(path, text, position, f"{mark!r} is expected after {what}")
    return _skip(text, position + 1)


def _check_end(path: Path, text: str, position: int, *, closes_object: bool) -> None:
    if closes_object:  # the rest of the object is not checked
        if not text.rstrip(" \t\n\r").endswith("}"):
            raise broken(path, text, len(text), "'}' is expected at the end")
    elif (position := _skip(text, position)) < len(text):
        raise broken(path, text, position, "there is something after the end of the list")


def broken(path: Path, text: str, position: int, what: str) -> InputError:
    """Return the error for a file that is not JSON from a position on."""
    end = len(text.rstrip())
    if position >= end or what.endswith("Unterminated string starting at"):
        return InputError(f"{path}: broken JSON: the file ends too early, after {len(text):,} characters ({what})")
    line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    return InputError(f"{path}: broken JSON in line {line}, column {column}: {what}")


def _describe(path: Path, text: str, position: int) -> str:
    value, _ = _decode_at(path, text, position, "the file")
    return describe(value)


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
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}(\.0+)?", value):
        return int(value.partition(".")[0])
    return value

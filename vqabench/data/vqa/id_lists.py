"""Read lists of question ids in common formats: text, CSV, JSON and JSON Lines, plain or compressed."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from vqabench.errors import InputError, first_few
from vqabench.files.json_files import find_id
from vqabench.files.packed import read_packed

ID_NAMES = ("question_id", "questionid", "question id", "qid", "id")
SPLIT_NAMES = ("split", "set", "subset", "partition")
SPLITS = ("train", "val", "test")
WANTED = (
    "expected question ids: one per line, a CSV file with a column question_id, a JSON list of numbers, strings or "
    "objects with question_id, or a JSON object with the ids as keys or with a list under the key test"
)
Listed = tuple[int, str | None]
"""A question's id, and its split if the file has one."""


def read_test_ids(path: Path) -> set[int]:
    """Read the ids of a test split's questions.

    If the file names the split of each question, the ids of `test` are returned. Raises InputError, naming file and
    position, if an id is invalid or it is not clear which numbers are ids.
    """
    content = read_packed(path)
    try:
        listed = _read_listed(content)
        named = {split for _, split in listed}
        if None in named and len(named) > 1:
            raise InputError("has a split for some questions, but not for others")
        ids = {number for number, split in listed if split in (None, "test")}
        if not ids:
            raise InputError("holds no ids of test questions")
        return ids
    except InputError as error:
        raise InputError(f"{path}: {error}; {WANTED}") from error


def _read_listed(content: bytes) -> list[Listed]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError("is in UTF-16; save it as UTF-8")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode().strip()
    except UnicodeDecodeError:
        raise InputError("neither text nor JSON") from None
    if not text:
        raise InputError("is empty")
    return _read_json(text) if text[0] in "[{" else _read_lines(text)


def _read_json(text: str) -> list[Listed]:
    try:
        return _read_value(msgspec.json.decode(text), "")
    except RecursionError:
        raise InputError("is nested too deeply") from None
    except msgspec.DecodeError as error:
        lines = text.encode().splitlines()  # as bytes: a text may hold other line ends, such as U+2028
        if not text.startswith("{") or len(lines) == 1:
            raise InputError(f"broken JSON: {error}") from error
    listed = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = msgspec.json.decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                raise InputError(f"line {number}: broken JSON: {error}") from error
            listed.append(_read_entry(value, f"line {number}"))
    return listed


def _read_value(value: Any, where: str) -> list[Listed]:
    if isinstance(value, list):
        return [_read_entry(one, f"{where}entry {number}") for number, one in enumerate(value, 1)]
    if not isinstance(value, dict):
        raise InputError(f"{where.rstrip(': ')} holds {_describe(value)}".strip())
    keys = {str(key).lower(): key for key in value}
    if set(SPLITS) & keys.keys():
        if "test" not in keys:
            raise InputError(f"has the keys {first_few(map(repr, value))}, but no key 'test'")
        return _read_value(value[keys["test"]], "test: ")
    for key in ("questions", "annotations"):
        if isinstance(value.get(key), list):
            return _read_value(value[key], f"{key}: ")
    named = {str(split).lower() for split in value.values() if isinstance(split, str)}
    if named and named <= set(SPLITS):
        return [(_read_id(key, where), str(split).lower()) for key, split in value.items()]
    return [(_read_id(key, f"{where}key"), None) for key in value]


def _read_entry(entry: Any, where: str) -> Listed:
    if not isinstance(entry, dict):
        return _read_id(entry, where), None
    keys = {str(key).lower(): key for key in entry}
    name = next((keys[name] for name in ID_NAMES if name in keys), None)
    if name is None:
        raise InputError(f"{where}: an object without question_id (keys {first_few(map(repr, entry))})")
    split = next((entry[keys[name]] for name in SPLIT_NAMES if name in keys), None)
    return _read_id(entry[name], where), _read_split(split, where)


def _read_lines(text: str) -> list[Listed]:
    lines = [line for line in text.splitlines() if line.strip()]
    head_line = lines[0].lstrip("# ") or "#"  # as NumPy writes headers
    lines = [head_line, *(line for line in lines[1:] if not line.startswith("#"))]
    separator = next((mark for mark in ("\t", ";", ",") if mark in head_line), None)
    split_lines = csv.reader(lines, delimiter=separator) if separator else map(str.split, lines)
    try:
        rows = [[cell.strip() for cell in row] for row in split_lines]
    except csv.Error as error:
        raise InputError(f"not a CSV file: {error}") from error
    if len(rows) == 1:
        return [(_read_id(cell, "line 1"), None) for cell in rows[0] if cell]
    has_head = not any(re.match(r"[+-]?\d", cell) for cell in rows[0])
    head = [cell.lower() for cell in rows[0]] if has_head else []
    if has_head and not separator and len(head) > 1 and all(len(row) == 1 for row in rows[1:]):
        head = [" ".join(head)]  # a heading of several words
    rows, first = (rows[1:], 2) if has_head else (rows, 1)
    column = _choose_column(head, rows)
    split_column = next((head.index(name) for name in SPLIT_NAMES if name in head), None)
    listed = []
    for number, row in enumerate(rows, first):
        where = f"line {number}"
        if len(row) <= max(column, split_column or 0):
            raise InputError(f"{where}: has only {len(row)} columns")
        split = None if split_column is None else _read_split(row[split_column], where)
        listed.append((_read_id(row[column], where), split))
    return listed


def _choose_column(head: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    for name in ID_NAMES:
        if name in head:
            return head.index(name)
    columns = max(map(len, rows), default=1)
    if columns == 1:
        return 0
    whole = [n for n in range(columns) if all(len(row) > n and _find_id(row[n]) is not None for row in rows)]
    if len(whole) == 1:
        return whole[0]
    raise InputError(
        f"{len(whole)} of {columns} columns hold only whole numbers, so it is not clear which are the "
        "question ids; begin the file with a header line that names one of them question_id"
    )


def _read_id(value: object, where: str) -> int:
    found = _find_id(value)
    if found is None:
        raise InputError(f"{where}: {_describe(value)} is not a question id")
    return found


def _find_id(value: object) -> int | None:
    return find_id(re.sub(r"^\+(?=\d)", "", value.strip()) if isinstance(value, str) else value)


def _read_split(value: object, where: str) -> str | None:
    if value is None:
        return None
    name = str(value).strip().lower()
    if name not in SPLITS:
        raise InputError(f"{where}: {_describe(value)} is not a split; valid: {', '.join(SPLITS)}")
    return name


def _describe(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    spelled = repr(value)
    return spelled if len(spelled) <= 40 else f"{spelled[:37]}..."

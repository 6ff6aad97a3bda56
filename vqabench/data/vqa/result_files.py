"""Read results files of any model, in several formats.

The official format is a list of objects with `question_id` and `answer`. Other formats are read if they are
unambiguous. Otherwise the error names what was found, what is expected, and a command that converts it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from vqabench.data.vqa.annotations import Prediction
from vqabench.errors import InputError, first_few
from vqabench.files.json_files import broken, decode_text, describe, explaining, find_id, read_json

WANTED = 'a results file is a list: [{"question_id": 1, "answer": "yes"}, ...]'
FORMS = f'{WANTED}, one such object per line, or an object {{"1": "yes", ...}}'
_OFFICIAL = msgspec.json.Decoder(list[Prediction])


def read_results(path: Path) -> list[Prediction]:
    """Read a results file: the official list, one object a line, {id: answer}, or one of these under a key.

    Ids may be text or floats. Repeated questions are not checked. Raises InputError, naming file and entry, if the
    file is broken or ambiguous.
    """
    with explaining(path):
        content = read_json(path)
        try:
            return _OFFICIAL.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return list(_read_entries(path, *_parse(path, decode_text(path, content))))


def _parse(path: Path, text: str) -> tuple[Any, str]:
    """Parse a JSON document, or one per line; return it, or their list, with jq's option that does the same."""
    try:
        return _decode(path, text), ""
    except json.JSONDecodeError as error:
        first, end = text.lstrip(), text.find("\n", len(text) - len(text.lstrip()))
        is_lines = first.startswith("{") and end >= 0 and _is_whole(text[:end])
        if error.msg == "Extra data" and not is_lines:
            joined = f"several JSON documents in one file; join them: {_format_command('-s ', 'add', path)}"
            raise broken(path, text, error.pos, joined) from error
        if first and not first.startswith(("[", "{")):
            start = first.splitlines()[0][:40]
            raise InputError(f"{path}: not JSON: it starts with {start!r}; {FORMS}") from error
        if not is_lines:
            raise broken(path, text, error.pos, error.msg) from error
    documents = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                documents.append(_decode(path, line))
            except json.JSONDecodeError as error:
                place = f"in line {number}, column {error.colno}"
                raise InputError(f"{path}: broken JSON {place}: {error.msg}") from error
    return documents, "-s "


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _decode(path: Path, text: str) -> Any:
    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Build an object. Python's `json` would silently keep the last of several equal keys."""
        collected: dict[str, Any] = {}
        for key, value in pairs:
            if collected.setdefault(key, value) != value and re.fullmatch(r"\s*-?[0-9]+(\.0*)?\s*", key):
                raise InputError(f"{path}: question {key} has two answers, {collected[key]!r} and {value!r}")
            collected[key] = value
        return collected

    try:
        return json.loads(text, object_pairs_hook=collect)
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{path}: {error}") from error


def _read_entries(path: Path, document: Any, option: str, select: str = "") -> Iterator[Prediction]:
    """Yield the results of a document, which jq prints with `option` and `select`."""
    if isinstance(document, list):
        for number, entry in enumerate(document, 1):
            command = _format_command(option, f"{select}map({{}})", path)
            yield _read_entry(path, f"entry {number}", entry, command)
    elif not isinstance(document, dict):
        raise InputError(f"{path}: holds {describe(document)}; {WANTED}")
    elif "question_id" in document or _rename(document):  # a single line of JSONL
        yield _read_entry(path, "its only entry", document, _format_command("", "[{}]", path))
    elif _is_mapping(document):
        for key, answer in document.items():
            yield Prediction(_read_id(path, key), answer)
    else:
        key = _find_list(path, document)
        yield from _read_entries(path, document[key], option, f".{_format_key(key)} | ")


def _find_list(path: Path, document: Mapping[str, Any]) -> str:
    """Return the only key of an object that holds results."""
    firsts = {key: value[0] for key, value in document.items() if isinstance(value, list) and value}
    lists = [key for key, first in firsts.items() if isinstance(first, dict)]
    with_ids = [k for k in document if _is_mapping(document[k]) or (k in lists and "question_id" in firsts[k])]
    for keys in (with_ids, lists):
        if len(keys) == 1:
            return keys[0]
        if keys:
            raise InputError(
                f"{path}: several keys hold results: {first_few(keys)}; {WANTED}. "
                f"Choose one: {_format_command('', f'.{_format_key(keys[0])}', path)}"
            )
    value = next(iter(document.values()), None)
    if isinstance(value, dict) and "answer" in value and all(find_id(key) is not None for key in document):
        raise InputError(
            f"{path}: an object of objects by question id; {WANTED}. Convert it: "
            f"{_format_command('', 'map_values(.answer)', path)}"
        )
    found = f"an object with the keys {first_few(document)}" if document else "an empty object"
    raise InputError(f"{path}: {found}; {WANTED}")


def _is_mapping(value: object) -> bool:
    """Return whether a value maps question ids to answers."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(answer, str) and find_id(key) is not None for key, answer in value.items())
    )


def _read_entry(path: Path, what: str, entry: Any, command: str) -> Prediction:
    """Read one entry; `command` converts all of them, once its braces are replaced by a jq filter."""
    where = f"{path}: {what}"
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {describe(entry)}; {WANTED}")
    if not {"question_id", "answer"} <= entry.keys():
        filter_ = _rename(entry)
        advice = f". Convert it: {command.replace('{}', filter_, 1)}" if filter_ else ""
        raise InputError(f"{where} has the keys {first_few(entry, 8) or '(none)'}; {WANTED}{advice}")
    question_id, answer = _read_id(where, entry["question_id"]), entry["answer"]
    if not isinstance(answer, str):
        is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
        advice = f". Convert it: {command.replace('{}', '.answer |= tostring', 1)}" if is_number else ""
        raise InputError(f"{where} (question {question_id}): the answer is {describe(answer)}, not a text{advice}")
    return Prediction(question_id, answer)


def _read_id(where: object, value: object) -> int:
    found = find_id(value)
    if found is None:
        raise InputError(f"{where}: the question_id {json.dumps(value)[:80]} is not a whole number")
    return found


def _rename(entry: Mapping[str, Any]) -> str:
    """Return a jq filter that renames the keys; empty if they are ambiguous."""
    ids = [key for key in entry if re.fullmatch(r"(?i)(question|ques|q)?_?id|qid", key)]
    answers = [key for key in entry if re.fullmatch(r"(?i)(pred(iction|icted)?(_?ans(wer)?)?|ans(wer)?|text)", key)]
    if len(ids) != 1 or len(answers) != 1:
        return ""
    return f"{{question_id: .{_format_key(ids[0])}, answer: .{_format_key(answers[0])}}}"


def _format_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) else json.dumps(key)


def _format_command(option: str, filter_: str, path: Path) -> str:
    return f"jq {option}'{filter_}' {shlex.quote(str(path))} > results.json"

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqabench.data.vqa.annotations import Prediction
from vqabench.data.vqa.result_files import read_results
from vqabench.errors import InputError

GIVEN = [Prediction(1, "yes"), Prediction(2, "a red one"), Prediction(30, "2")]
ENTRIES: list[dict[str, Any]] = [{"question_id": one.question_id, "answer": one.answer} for one in GIVEN]
MAPPING = {str(one.question_id): one.answer for one in GIVEN}


def lines(*documents: object, end: str = "\n") -> str:
    return "".join(json.dumps(one) + end for one in documents)


def change(**values: Any) -> str:
    return json.dumps([{**entry, **values} for entry in ENTRIES])


def with_ids(form: Any) -> str:
    return json.dumps([{**entry, "question_id": form(entry["question_id"])} for entry in ENTRIES])


SHAPES = {
    "the official one": json.dumps(ENTRIES),
    "indented": json.dumps(ENTRIES, indent=2),
    "other keys first": json.dumps([{"image_id": 3, "logits": [{}], **entry} for entry in ENTRIES]),
    "a line each": lines(*ENTRIES),
    "a line each, from Windows": lines(*ENTRIES, end="\r\n"),
    "a line each, with empty lines": "\n" + lines(*ENTRIES, end="\n\n"),
    "a line each, the last one open": lines(*ENTRIES).rstrip(),
    "a line each, NaN beside": lines(*({**entry, "loss": float("nan")} for entry in ENTRIES)),
    "a mapping": json.dumps(MAPPING),
    "a mapping, float keys": json.dumps({f"{key}.0": value for key, value in MAPPING.items()}),
    "a mapping, equal answers twice": json.dumps(MAPPING)[:-1] + ', "1": "yes"}',
    "under a key": json.dumps({"results": ENTRIES}),
    "under a key, beside others": json.dumps(
        {"epoch": 3, "log": [{"loss": 1}], "predictions": ENTRIES, "tags": []}
    ),
    "a mapping under a key": json.dumps({"model": "m", "answers": MAPPING}),
    "keys within keys": json.dumps({"val": {"results": ENTRIES}})[8:-1],
    "text ids": with_ids(str),
    "float ids": with_ids(float),
    "float ids as text": with_ids(lambda number: f"{number}.0"),
    "NaN beside": change(score=float("nan")),
    "infinity beside": change(score=float("-inf")),
    "a huge number beside": change(score=7).replace("7}", "1e999}"),
    "half a pair beside": change(text="\ud800"),
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, b"\xef\xbb\xbf".__add__], ids=["plain", "gzip", "mark"])
def test_results_are_the_same_in_every_plain_shape(tmp_path: Path, text: str, pack: Any) -> None:
    path = tmp_path / "results"
    path.write_bytes(pack(text.encode()))
    assert list(read_results(path)) == GIVEN


def test_half_a_surrogate_pair_in_an_answer_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('[{"question_id": 1, "answer": "\\ud83d"}]')
    assert read_results(path) == [Prediction(1, "\ud83d")]


def test_a_single_line_is_one_answer_and_an_empty_list_none(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(lines(ENTRIES[0]))
    assert read_results(path) == GIVEN[:1]
    path.write_text("[]")
    assert read_results(path) == []


REFUSED = {
    "a number": ("3", "holds a number; a results file is a list"),
    "null": ("null", "holds null; a results file"),
    "no keys": ("{}", "an empty object; a results file"),
    "a list of lists": ("[[1, 2]]", "entry 1 is a list; a results file"),
    "a list of pairs as text": ('["1 yes"]', "entry 1 is a text; a results file"),
    "other keys": ('{"epoch": 3, "loss": 1}', "an object with the keys epoch, loss; a results file"),
    "two lists": (
        json.dumps({"train": ENTRIES, "val-2": ENTRIES}),
        r"several keys hold results: train, val-2; .* jq '\.train' ",
    ),
    "objects by id": (
        '{"1": {"answer": "yes"}}',
        r"objects by question id; .* jq 'map_values\(\.answer\)'",
    ),
    "a mapping that says two things": ('{"1": "yes", "1": "no"}', "question 1 has two answers, 'yes' and 'no'"),
    "a mapping under a key that says two things": ('{"a": {"1": "y", "1": "n"}}', "question 1 has two answers"),
    "names for ids": ('{"one": "yes"}', "an object with the keys one; a results file"),
    "an entry without an answer": (json.dumps([*ENTRIES, {"question_id": 4}]), "entry 4 has the keys question_id;"),
    "no id": ('[{"answer": "yes"}]', "entry 1 has the keys answer;"),
    "half an id": (with_ids(lambda number: number + 0.5), r"entry 1: the question_id 1\.5 is not a whole number"),
    "a name for an id": (
        with_ids(lambda number: f"q{number}"),
        'entry 1: the question_id "q1" is not a whole number',
    ),
    "true for an id": (with_ids(bool), "entry 1: the question_id true is not a whole number"),
    "null for an id": (with_ids(lambda _: None), "entry 1: the question_id null is not"),
    "an id beyond 64 bits": (with_ids(lambda number: number + 2**63), "entry 1: the question_id 922"),
    "an id that floats blur": (with_ids(lambda number: 2.0**60 + number), "entry 1: the question_id 1.15"),
    "NaN for an id": (with_ids(lambda _: float("nan")), "entry 1: the question_id NaN"),
    "a number for an answer": (
        change(answer=2),
        r"entry 1 \(question 1\): .* jq 'map\(\.answer \|= to",
    ),
    "a list for an answer": (change(answer=["yes"]), r"entry 1 \(question 1\): the answer is a list, not a text$"),
    "null for an answer": (change(answer=None), r"entry 1 \(question 1\): the answer is null, not a text$"),
    "a list that breaks off": (json.dumps(ENTRIES)[:-9], "broken JSON: the file ends too early, after "),
    "a line that breaks off": (lines(*ENTRIES)[:-9], r"broken JSON in line 3, column \d+: "),
    "a comma too many": (json.dumps(ENTRIES)[:-1] + ",]", r"broken JSON in line 1, column \d+: "),
    "two lists in one file": (lines(ENTRIES, ENTRIES), r"broken JSON in line 2, .* jq -s 'add' "),
    "a table": (
        "question_id,answer\n1,yes\n",
        "not JSON: it starts with 'question_id,answer'; a results file is a list",
    ),
    "lists in lists": ("[" * 100_000, "nested too deeply"),
    "a number of 5,000 digits": (
        '[{"question_id": 1, "answer": "a", "x": NaN, "y": ' + "9" * 5000 + "}]",
        "digits",
    ),
    "annotations": (
        json.dumps({"annotations": [{"question_id": 1, "answers": [{"answer": "yes"}]}]}),
        "entry 1 has the keys question_id, answers; a results file",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_plain_meaning_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_results(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


OTHERS = {
    "as GQA has it": [{"questionId": "1", "prediction": "yes"}, {"questionId": "2", "prediction": "no"}],
    "as LLaVA has it": [{"question_id": 1, "prompt": "Is it?", "text": "yes"}],
    "short keys": [{"qid": 7, "pred_answer": "yes", "score": 0.5}],
    "numbers for answers": [{"question_id": 1, "answer": 2}],
}


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not here")
@pytest.mark.parametrize("entries", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("spell", [json.dumps, lambda entries: lines(*entries), lambda e: json.dumps({"a-b": e})])
def test_the_command_that_is_named_makes_the_file_a_results_file(tmp_path: Path, entries: Any, spell: Any) -> None:
    path = tmp_path / "r.json"
    path.write_text(spell(entries))
    with pytest.raises(InputError, match="Convert it: jq ") as caught:
        read_results(path)
    command = str(caught.value).partition("Convert it: ")[2]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert len(read_results(tmp_path / "results.json")) == len(entries)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["1", "2.0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["question_id", "answer", "1", "2", "results", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON, st.booleans())
def test_any_json_is_either_read_or_refused(document: object, as_lines: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.json"
        path.write_text(lines(document, document) if as_lines else json.dumps(document))
        with suppress(InputError):
            found = read_results(path)
            assert all(isinstance(one.answer, str) and isinstance(one.question_id, int) for one in found)

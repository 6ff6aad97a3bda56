from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_annotation_table import spell
from vqabench.data import annotation_reading
from vqabench.data.annotation_reading import reading_annotations
from vqabench.data.annotation_table import AnnotationTable, tabulate
from vqabench.data.annotations import Annotation, Answer, read_annotations
from vqabench.errors import InputError


def read_annotation_table(path: Path) -> AnnotationTable:
    with reading_annotations(path) as read:
        return read()


def make_annotations(count: int) -> list[Annotation]:
    generator = random.Random(count)
    tricky = ["yes", 'a "}, {" b', "ünï", "日本", "back\\slash", "}] , [{", "\u0085"]
    return [
        Annotation(
            number,
            number if generator.random() < 0.5 else "one.jpg",
            generator.choice(tricky),
            "other",
            tuple(Answer(generator.choice(tricky), "yes", k) for k in range(1, 11)),
        )
        for number in range(count)
    ]


def as_official(annotations: list[Annotation], **others: object) -> bytes:
    entries = [plain(annotation) for annotation in annotations]
    return json.dumps({"info": {"a": [{}]}, "annotations": entries, **others}, ensure_ascii=False).encode()


def plain(annotation: Annotation) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(annotation, name) for name in annotation.__struct_fields__}
    answers = [{name: getattr(one, name) for name in one.__struct_fields__} for one in annotation.answers]
    return fields | {"answers": answers}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small files be cut, and read by three processes."""
    monkeypatch.setattr(annotation_reading, "LARGE", 1)
    monkeypatch.setattr(annotation_reading, "PIECE", 5_000)
    monkeypatch.setattr(annotation_reading, "count_processors", lambda: 3)


LAYOUTS = {
    "official": lambda given: as_official(given, license={"url": "x"}),
    "official, indented": lambda given: json.dumps(json.loads(as_official(given)), indent=3).encode(),
    "bare": lambda given: json.dumps([plain(one) for one in given]).encode(),
    "bare, with a mark of order": lambda given: (
        b"\xef\xbb\xbf" + json.dumps([plain(one) for one in given]).encode()
    ),
    "gzip": lambda given: gzip.compress(as_official(given)),
}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("count", [1, 2, 7, 200])
def test_several_processes_read_what_one_reads(tmp_path: Path, layout: Any, count: int) -> None:
    annotations = make_annotations(count)
    path = tmp_path / "annotations.json"
    path.write_bytes(layout(annotations))
    expected = spell(tabulate(annotations))
    assert spell(read_annotation_table(path)) == expected


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("layout", [LAYOUTS[name] for name in LAYOUTS if name != "gzip"])
def test_each_process_reads_its_share_and_no_other(tmp_path: Path, layout: Any) -> None:
    annotations = make_annotations(200)
    path = tmp_path / "annotations.json"
    path.write_bytes(layout(annotations))
    shares = [spell(tabulate(annotation_reading._read_share(path, share, 3))) for share in range(3)]
    assert all(50 < len(share) < 80 for share in shares)
    assert [row for share in shares for row in share] == spell(tabulate(annotations))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("where", [0.01, 0.4, 0.9])
def test_what_is_wrong_anywhere_is_told_as_one_process_tells_it(tmp_path: Path, where: float) -> None:
    content = as_official(make_annotations(200))
    place = content.index(b'"question_id"', int(len(content) * where))
    path = tmp_path / "annotations.json"
    path.write_bytes(content[:place] + b'"question_ix"' + content[place + 13 :])
    with pytest.raises(InputError) as told:
        read_annotation_table(path)
    with pytest.raises(InputError) as expected:
        read_annotations(path)
    assert str(told.value) == str(expected.value)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda given: given + given[:1], "1 question ids occur more than once: 0"),
        (lambda given: [*given, Annotation(999, 1, "", "", ())], r"1 questions have other than ten answers \(0 of"),
    ],
)
def test_questions_given_twice_or_without_ten_answers_are_refused(tmp_path: Path, change: Any, told: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(as_official(change(make_annotations(100))))
    with pytest.raises(InputError, match=rf"annotations\.json: {told}"):
        read_annotation_table(path)


@pytest.mark.usefixtures("small_pieces")
def test_children_do_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = make_annotations(200)
    path = tmp_path / "annotations.json"
    path.write_bytes(as_official(annotations))
    monkeypatch.setattr(annotation_reading, "read_annotations", lambda _: pytest.fail("read at one go"))
    assert spell(read_annotation_table(path)) == spell(tabulate(annotations))


@pytest.mark.usefixtures("small_pieces")
def test_children_that_cannot_start_only_cost_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = make_annotations(50)
    path = tmp_path / "annotations.json"
    path.write_bytes(as_official(annotations))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert spell(read_annotation_table(path)) == spell(tabulate(annotations))

from __future__ import annotations

import gzip
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqabench.data.vqa.annotations import (
    Annotation,
    Answer,
    Question,
    SurePrediction,
    match,
    read_annotations,
    read_predictions,
    read_questions,
    require_ten_answers,
    write_annotations,
    write_predictions,
    write_questions,
)
from vqabench.errors import InputError

QUESTIONS = [Question(1, 10, "Is it red?"), Question(2, "b.jpg", "How many?")]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
IDS = st.integers(0, 2**53)


def annotate(question_id: int, image_id: int | str = 10, answers: int = 10) -> Annotation:
    given = tuple(Answer("yes", "maybe", number) for number in range(1, answers + 1))
    return Annotation(question_id, image_id, "is it", "yes/no", given, "yes")


def entries(questions: list[Question]) -> bytes:
    return msgspec.json.encode(questions)


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.json", content)
    return path


@given(st.lists(st.builds(Question, IDS, IDS | TEXT, TEXT), unique_by=lambda q: q.question_id))
def test_questions_come_back_as_they_were_written(questions: list[Question]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.json"
        write_questions(path, questions)
        assert read_questions(path) == questions


@given(TEXT, TEXT, TEXT, st.none() | TEXT)
def test_annotations_come_back_as_they_were_written(kind: str, type_: str, answer: str, best: str | None) -> None:
    annotation = Annotation(1, 2, kind, type_, (Answer(answer, "yes", 1), Answer(answer)), best)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.json"
        write_annotations(path, [annotation])
        assert list(read_annotations(path)) == [annotation]


@given(st.lists(st.builds(SurePrediction, IDS, TEXT)))
def test_predictions_come_back_as_they_were_written_in_the_official_format(
    predictions: list[SurePrediction],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.json"
        write_predictions(path, predictions)
        assert read_predictions(path) == predictions
        assert json.loads(path.read_bytes()) == [msgspec.to_builtins(one) for one in predictions]


def test_the_same_entries_make_the_same_bytes_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        write_questions(tmp_path / name, QUESTIONS)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "b.json"]


@pytest.mark.parametrize("spell", [b'{"info": {"a": [1]}, "questions": %s}', b"%s", b" \n%s\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_layout_and_packing_are_told_from_the_content(
    tmp_path: Path, spell: bytes, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "whatever.bin"
    path.write_bytes(pack(spell % entries(QUESTIONS)))
    assert read_questions(path) == QUESTIONS


def test_fields_that_only_some_data_sets_have_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "cp.json"
    path.write_text('[{"question_id": 1, "image_id": 7, "question": "Why?", "coco_split": "val2014", "x": {}}]')
    assert read_questions(path) == [Question(1, 7, "Why?")]


def test_the_open_ended_member_of_a_zip_is_meant(tmp_path: Path) -> None:
    wanted = entries(QUESTIONS)
    path = archive(tmp_path / "v1.zip", MultipleChoice_mscoco=b"[]", OpenEnded_mscoco=wanted)
    assert read_questions(path) == QUESTIONS
    assert read_questions(Path(f"{path}::MultipleChoice_mscoco.json")) == []


def test_a_zip_with_two_candidates_asks_for_a_choice_by_name(tmp_path: Path) -> None:
    path = archive(tmp_path / "two.zip", train=entries(QUESTIONS), val=b"[]")
    with pytest.raises(InputError, match=r"two\.zip: holds train\.json, val\.json; name one as .*two\.zip::MEMBER"):
        read_questions(path)
    with pytest.raises(InputError, match=r"unknown member 'vall\.json': did you mean 'val\.json'"):
        read_questions(Path(f"{path}::vall.json"))
    assert read_questions(Path(f"{path}::train.json")) == QUESTIONS


GOOD = entries(QUESTIONS)
BROKEN = {
    "an empty file": (b" \n", "empty, but JSON is expected"),
    "a web page": (b"<html>gone</html>", r"broken JSON in line 1, column 1: "),
    "a slip in line 3": (b"[\n\n ,]", r"broken JSON in line 3, column 2: Expecting value"),
    "a file that breaks off": (
        GOOD[:-9],
        f"broken JSON: .* too early, after {len(GOOD) - 9} characters",
    ),
    "a file that breaks off between entries": (
        GOOD[: GOOD.index(b",{") + 1],
        "broken JSON: the file ends too early",
    ),
    "a file without its last bracket": (GOOD[:-1], "broken JSON: the file ends too early"),
    "an object without its last brace": (b'{"questions": ' + GOOD, "broken JSON: the file ends too early"),
    "text behind the end": (GOOD + b"]", r"broken JSON in line 1, column \d+: Extra data"),
    "bytes that are no text": (
        b'[{"question_id": 1, "image_id": 1, "question": "\xff"}]',
        ".*not in UTF-8",
    ),
    "lists in lists": (b"[" * 100_000, "lists or objects are nested too deeply"),
    "lists in an entry": (b'[{"question_id": ' + b"[" * 9_000 + b"]" * 9_000 + b"}]", ".*nested too deeply"),
    "a number of 5,000 digits": (b'[{"question_id": ' + b"9" * 5_000 + b"}]", "entry 1 of the questions: .*digits"),
    "an id beyond 64 bits": (b'[{"question_id": 9223372036854775808}]', "entry 1 of the questions: "),
    "a number": (b"3", "not a file of questions: a number where a list is expected"),
    "an entry that is none": (b"[7]", "entry 1 of the questions: Expected `object`, got `int`"),
    "a wrong type": (
        b'[{"question_id": 1, "image_id": 1, "question": "?"}, {"question_id": "one"}]',
        r"entry 2 of the questions: .*`\$\.question_id`",
    ),
    "a missing field": (
        b'{"questions": [{"question_id": 1}]}',
        r"entry 1 of the questions: .*`image_id`",
    ),
    "another kind of file": (
        b'{"info": {}, "annotations": []}',
        "not a file of questions: an object with the keys info, annotations where .* under the key 'questions'",
    ),
    "half a gzip": (gzip.compress(GOOD)[:-12], "cannot be read: .*ended before"),
    "a damaged gzip": (gzip.compress(GOOD)[:-8] + bytes(8), "cannot be read: .*CRC"),
    "half a zip": (b"PK\x03\x04half", "cannot be read: .*not a zip"),
    "an empty zip": (b"PK\x05\x06" + bytes(18), r"holds no \.json"),
    "questions given twice": (GOOD[:-1] + b"," + GOOD[1:], "2 question ids occur more than once: 1, 2"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_in_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"broken\.json: {message}") as caught:
        read_questions(path)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_members_of_plain_files_are_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.json"
    plain.write_bytes(GOOD)
    for path, message in [
        (tmp_path / "none.json", "there is no such file"),
        (tmp_path, "cannot be read"),
        (Path(f"{plain}::a.json"), "is not a zip, so it has no member .a.json."),
    ]:
        with pytest.raises(InputError, match=message):
            read_questions(path)


@pytest.mark.parametrize("answer", ["{}", "null", "3", '["yes"]'])
def test_a_prediction_is_a_number_and_a_text(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(f'[{{"question_id": 1, "answer": "a"}}, {{"question_id": 2, "answer": {answer}}}]')
    with pytest.raises(InputError, match=r"not a file of predictions: .*`\$\[1\]\.answer`"):
        read_predictions(path)


def rows(questions: list[Question], annotations: list[Annotation]) -> list[int]:
    """Match questions with annotations."""
    ids, images = [a.question_id for a in annotations], [a.image_id for a in annotations]
    return list(match(questions, ids, images, "here"))


def test_matching_follows_the_order_of_the_questions() -> None:
    assert rows(QUESTIONS, [annotate(2, "b.jpg"), annotate(1)]) == [1, 0]
    assert rows(QUESTIONS, [annotate(1), annotate(2, "b.jpg")]) == [0, 1]


@pytest.mark.parametrize(
    ("questions", "annotations", "message"),
    [
        (QUESTIONS, [annotate(1)], r"1 questions without annotations \(ids 2\)$"),
        (
            QUESTIONS[:1],
            [annotate(n) for n in range(1, 9)],
            r"7 annotations .* \(ids 2, 3, 4, 5, 6, and 2 more\)",
        ),
        (QUESTIONS[:1], [annotate(3)], "1 questions without annotations .*; 1 annotations without questions"),
        (QUESTIONS[:1], [annotate(1, 11)], r"1 questions whose annotation names another image \(ids 1\)"),
        (QUESTIONS[:1] * 2, [annotate(1)], r"1 questions given more than once \(ids 1\)"),
        (QUESTIONS[:1], [annotate(1), annotate(1)], r"1 questions annotated more than once \(ids 1\)"),
    ],
)
def test_questions_and_annotations_that_do_not_belong_together_are_told_apart(
    questions: list[Question], annotations: list[Annotation], message: str
) -> None:
    with pytest.raises(InputError, match=f"here: {message}"):
        rows(questions, annotations)


@pytest.mark.parametrize("answers", [0, 9, 11])
def test_ten_answers_are_asked_for(answers: int) -> None:
    assert len(list(require_ten_answers([annotate(1), annotate(2)], "here"))) == 2
    with pytest.raises(InputError, match=rf"here: 1 questions .* ten answers, but {answers} \(ids 7\)"):
        list(require_ten_answers([annotate(1), annotate(7, answers=answers)], "here"))


@pytest.mark.parametrize(
    ("questions", "annotations", "count"),
    [
        ("v2_OpenEnded_mscoco_train2014_questions.60000", "v2_mscoco_train2014_annotations.60000", 60_000),
        ("flat_layout_questions.32723", "flat_layout_annotations.32723", 32_723),
        ("smallval_questions", "smallval_annotations", 589),
        ("official_header_questions.5", "official_header_annotations.5", 5),
    ],
)
def test_the_real_files_are_read_and_belong_together(
    samples: Path, questions: str, annotations: str, count: int
) -> None:
    found = [next((samples / "vqa-v2").glob(f"{name}.json*")) for name in (questions, annotations)]
    given_ = list(require_ten_answers(read_annotations(found[1]), "samples"))
    assert sorted(rows(read_questions(found[0]), given_)) == list(range(count))
    assert {annotation.answer_type for annotation in given_} <= {"yes/no", "number", "other"}
    assert all(a.multiple_choice_answer is None for a in given_) == (count == 589)

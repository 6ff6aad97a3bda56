"""Questions, annotations and answers as VQA publishes them: JSON, plain, `.gz` or inside `.zip`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from vqabench.errors import InputError, first_few
from vqabench.files.atomic import write_file
from vqabench.files.json_files import as_id, explaining, read_entries, read_json

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
ImageId = Int64 | str

ANSWER_TYPES = ("yes/no", "number", "other")
ANNOTATORS = 10
"""Of every question."""


class Question(msgspec.Struct, gc=False, frozen=True):
    """One entry of a questions file."""

    question_id: Int64
    image_id: ImageId
    question: str


class Answer(msgspec.Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    """The answer of one annotator, with the fields that distinguish it from the question's other records.

    The official evaluation compares whole records. Records with other fields are read with an `answer_id` instead
    of them, equal for records of the question that agree in all these fields.
    """

    answer: str
    answer_confidence: str | msgspec.UnsetType | None = msgspec.UNSET
    answer_id: int | msgspec.UnsetType | None = msgspec.UNSET


class Annotation(msgspec.Struct, gc=False, frozen=True):
    """One entry of an annotations file: the question's type and its ten human answers."""

    question_id: Int64
    image_id: ImageId
    question_type: str
    answer_type: str
    answers: tuple[Answer, ...]
    multiple_choice_answer: str | None = None


class Prediction(msgspec.Struct, gc=False, frozen=True):
    """One entry of a results file in the official format."""

    question_id: Int64
    answer: str


class SurePrediction(Prediction, gc=False, frozen=True, omit_defaults=True):
    """An entry of a run's results: the official format with a confidence."""

    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """The model's probability of the answer, in [0, 1]; None if unknown."""


def read_questions(path: Path) -> list[Question]:
    """Read a questions file, in the official layout or as a bare list.

    Raises InputError, naming file and entry, if it is missing, broken, or names a question twice.
    """
    entries = read_entries(path, "questions", _QUESTION, lambda one: msgspec.convert(_with_ids(one), Question))
    questions = [question for question, _ in entries]
    check_ids([question.question_id for question in questions], path)
    return questions


def read_annotations(path: Path) -> Iterator[Annotation]:
    """Yield the entries of an annotations file, likewise, without a check for repeated questions."""
    return (annotation for annotation, _ in read_entries(path, "annotations", _ANNOTATION, _as_annotation))


def read_raw_entries(path: Path, kind: Literal["questions", "annotations"]) -> Iterator[tuple[int, msgspec.Raw]]:
    """Yield the entries of a file as undecoded JSON, each with its question's id.

    Raises InputError if the file is broken or an entry has no id.
    """
    entries = read_entries(path, kind, _IDENTIFIED, lambda one: msgspec.convert(_with_ids(one), _Identified))
    return ((identified.question_id, raw) for identified, raw in entries)


def write_raw_entries(path: Path, kind: Literal["questions", "annotations"], entries: list[msgspec.Raw]) -> None:
    """Write undecoded JSON entries in the official layout."""
    write_file(path, msgspec.json.encode({kind: entries}))


def read_predictions(path: Path) -> list[SurePrediction]:
    """Read a results file in the official format, with confidences or without, which may repeat questions."""
    with explaining(path):
        content = read_json(path)
        try:
            return _PREDICTIONS.decode(content)
        except msgspec.ValidationError as error:
            raise InputError(f"{path}: not a file of predictions: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: broken JSON: {error} ({len(content):,} bytes in all)") from error


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Write a questions file in the official layout."""
    write_file(path, msgspec.json.encode({"questions": questions}))


def write_annotations(path: Path, annotations: Sequence[Annotation]) -> None:
    """Write an annotations file in the official layout."""
    write_file(path, msgspec.json.encode({"annotations": annotations}))


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write a results file in the official format."""
    write_file(path, msgspec.json.encode(predictions))


def match(
    questions: Sequence[Question], question_ids: Sequence[int], image_ids: Sequence[ImageId], where: str
) -> Sequence[int]:
    """Return each question's row in the annotations, which are given by their ids.

    Raises InputError unless every question has one annotation and the other way round, with the same image.
    """
    if [q.question_id for q in questions] == question_ids and [q.image_id for q in questions] == image_ids:
        return range(len(questions))  # the usual case, ten times as fast
    rows = {question_id: row for row, question_id in enumerate(question_ids)}
    asked = {question.question_id for question in questions}
    problems = {
        # Within one file this was checked before, but a split may have several.
        "questions given more than once": _repeated([q.question_id for q in questions]),
        "questions annotated more than once": _repeated(question_ids),
        "questions without annotations": [q.question_id for q in questions if q.question_id not in rows],
        "annotations without questions": [number for number in rows if number not in asked],
    }
    if not any(problems.values()):
        problems["questions whose annotation names another image"] = [
            q.question_id for q in questions if image_ids[rows[q.question_id]] != q.image_id
        ]
    message = [f"{len(ids)} {what} (ids {first_few(ids)})" for what, ids in problems.items() if ids]
    if message:
        raise InputError(f"{where}: {'; '.join(message)}")
    return [rows[question.question_id] for question in questions]


def require_ten_answers(annotations: Iterable[Annotation], where: str) -> Iterator[Annotation]:
    """Yield annotations; raise InputError at the end if some do not have ten answers.

    Soft targets and accuracy are defined for ten.
    """
    other: dict[int, int] = {}
    for annotation in annotations:
        if len(annotation.answers) == ANNOTATORS:
            yield annotation
        else:
            other[annotation.question_id] = len(annotation.answers)
    if other:
        counts, ids = first_few(sorted(set(other.values()))), first_few(other)
        raise InputError(f"{where}: {len(other)} questions do not have ten answers, but {counts} (ids {ids})")


def hash_ids(ids: Iterable[int]) -> str:
    """Return the SHA-256 of question ids, sorted, one per line: it identifies a split and is easy to recompute."""
    return hashlib.sha256("".join(f"{number}\n" for number in sorted(ids)).encode()).hexdigest()


class _Identified(msgspec.Struct, gc=False):
    question_id: Int64


_QUESTION = msgspec.json.Decoder(Question)
_ANNOTATION = msgspec.json.Decoder(Annotation)
_IDENTIFIED = msgspec.json.Decoder(_Identified)
_PREDICTIONS = msgspec.json.Decoder(list[SurePrediction])


def _as_annotation(entry: Any) -> Annotation:
    entry = _with_ids(entry)
    records = entry.get("answers") if isinstance(entry, Mapping) else None
    if isinstance(records, list) and all(isinstance(record, Mapping) for record in records):
        rests = [{key: value for key, value in record.items() if key != "answer"} for record in records]
        answers = [
            # Numbered by Python's equality, as in the official evaluation.
            {key: value for key, value in record.items() if key == "answer"} | {"answer_id": rests.index(rest)}
            for record, rest in zip(records, rests, strict=True)
        ]
        entry = {**entry, "answers": answers}
    return msgspec.convert(entry, Annotation)


def _with_ids(entry: Any) -> Any:
    """Return an entry with ids as numbers if possible: some programs write 7.0, or "7" for a question."""
    if not isinstance(entry, Mapping):
        return entry
    image = entry.get("image_id")
    ids = {
        "question_id": as_id(entry.get("question_id")),
        "image_id": as_id(image) if isinstance(image, float) else image,
    }
    return {**entry, **{key: value for key, value in ids.items() if key in entry}}


def check_ids(ids: Sequence[int], path: Path) -> None:
    """Raise InputError if a file names a question twice."""
    repeated = _repeated(ids)
    if repeated:
        raise InputError(f"{path}: {len(repeated)} question ids occur more than once: {first_few(repeated)}")


def _repeated(ids: Sequence[int]) -> list[int]:
    if len(set(ids)) == len(ids):
        return []
    return [number for number, count in Counter(ids).items() if count > 1]

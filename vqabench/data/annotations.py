"""Questions, annotations and results as VQA publishes them: JSON, plain, `.gz` or inside `.zip`."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from vqabench.data.packed_files import read_packed
from vqabench.errors import InputError, first_few
from vqabench.results import write_file

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


class Answer(msgspec.Struct, gc=False, frozen=True):
    """What one annotator answered. Two answers are the same record only if every field agrees."""

    answer: str
    answer_confidence: str | None = None
    answer_id: int | None = None


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
    """An entry as a run keeps it: the official format, and how sure the model was."""

    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """The probability that it gave the answer, in [0, 1]; None where it is not known."""


def read_questions(path: Path) -> list[Question]:
    """Read a questions file, in the official layout or as a bare list.

    Raises InputError, naming file and position, where it is missing, broken, or names a question twice.
    """
    questions = _decode(path, _read(path), _QUESTIONS)
    check_ids([question.question_id for question in questions], path)
    return questions


def read_annotations(path: Path) -> list[Annotation]:
    """Read an annotations file, likewise."""
    annotations = decode_annotations(path, _read(path))
    check_ids([annotation.question_id for annotation in annotations], path)
    return annotations


def decode_annotations(path: Path, content: bytes) -> list[Annotation]:
    """Decode what an annotations file holds, or what might be one. Raises InputError where it is broken."""
    return _decode(path, content, _ANNOTATIONS)


def read_raw_entries(path: Path, kind: Literal["questions", "annotations"]) -> Iterator[tuple[int, msgspec.Raw]]:
    """Read the entries of a file as they were written, each with its question's id.

    Raises InputError where the file is broken or an entry has no id.
    """
    raw = _RAW[kind]
    for entry in _decode(path, _read(path), raw):
        try:
            yield _ID.decode(entry).question_id, entry
        except msgspec.MsgspecError as error:
            raise InputError(f"{path}: not a file of {kind}: {error}") from error


def write_raw_entries(path: Path, kind: Literal["questions", "annotations"], entries: list[msgspec.Raw]) -> None:
    """Write entries as they were written elsewhere, in the official layout."""
    write_file(path, msgspec.json.encode({kind: entries}))


def read_predictions(path: Path) -> list[Prediction]:
    """Read a results file: a bare list. Repeated questions are the evaluation's concern."""
    return _decode(path, _read(path), _PREDICTIONS)


def read_sure_predictions(path: Path) -> list[SurePrediction]:
    """Read a run's results file, with the confidences that it holds."""
    return _decode(path, _read(path), _SURE_PREDICTIONS)


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
    """Give each question's row of the annotations, of which the ids are given.

    Raises InputError where one has none of the other, comes twice, or they disagree about the image.
    """
    if [q.question_id for q in questions] == question_ids and [q.image_id for q in questions] == image_ids:
        return range(len(questions))  # the usual case, at a tenth of the time
    rows = {question_id: row for row, question_id in enumerate(question_ids)}
    asked = {question.question_id for question in questions}
    problems = {
        # One file holds no question twice, but several read one behind the other may.
        "questions given more than once": _repeated([q.question_id for q in questions]),
        "questions annotated more than once": _repeated(question_ids),
        "questions without annotations": [q.question_id for q in questions if q.question_id not in rows],
        "annotations without questions": [number for number in rows if number not in asked],
    }
    if not any(problems.values()):
        problems["questions whose annotation names another image"] = [
            q.question_id for q in questions if image_ids[rows[q.question_id]] != q.image_id
        ]
    told = [f"{len(ids)} {what} (ids {first_few(ids)})" for what, ids in problems.items() if ids]
    if told:
        raise InputError(f"{where}: {'; '.join(told)}")
    return [rows[question.question_id] for question in questions]


def check_answers(annotations: Sequence[Annotation], where: str) -> None:
    """Raise InputError unless every question has ten answers: soft targets and accuracy build on it."""
    other = [annotation.question_id for annotation in annotations if len(annotation.answers) != ANNOTATORS]
    if other:
        counts = sorted({len(a.answers) for a in annotations if len(a.answers) != ANNOTATORS})
        raise InputError(
            f"{where}: {len(other)} questions have other than ten answers ({first_few(counts)} of them; "
            f"ids {first_few(other)})"
        )


def hash_ids(ids: Iterable[int]) -> str:
    """Give the SHA-256 of question ids, sorted, a line each: the name of a split that anyone can compute."""
    return hashlib.sha256("".join(f"{number}\n" for number in sorted(ids)).encode()).hexdigest()


class _QuestionFile(msgspec.Struct, gc=False):
    questions: list[Question]


class _AnnotationFile(msgspec.Struct, gc=False):
    annotations: list[Annotation]


class _RawQuestionFile(msgspec.Struct, gc=False):
    questions: list[msgspec.Raw]


class _RawAnnotationFile(msgspec.Struct, gc=False):
    annotations: list[msgspec.Raw]


class _Identified(msgspec.Struct, gc=False):
    question_id: Int64


Entry = TypeVar("Entry")


@dataclass(frozen=True)
class _Layouts(Generic[Entry]):
    """The two layouts of one kind of file, and the key that holds the entries in the official one."""

    key: str
    bare: msgspec.json.Decoder[list[Entry]]
    official: msgspec.json.Decoder[Any] | None = None


_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_QUESTIONS = _Layouts("questions", msgspec.json.Decoder(list[Question]), msgspec.json.Decoder(_QuestionFile))
_ANNOTATIONS = _Layouts(
    "annotations", msgspec.json.Decoder(list[Annotation]), msgspec.json.Decoder(_AnnotationFile)
)
_RAW = {
    "questions": _Layouts("questions", _RAW_LIST, msgspec.json.Decoder(_RawQuestionFile)),
    "annotations": _Layouts("annotations", _RAW_LIST, msgspec.json.Decoder(_RawAnnotationFile)),
}
_ID = msgspec.json.Decoder(_Identified)
_PREDICTIONS = _Layouts("predictions", msgspec.json.Decoder(list[Prediction]))
_SURE_PREDICTIONS = _Layouts("predictions", msgspec.json.Decoder(list[SurePrediction]))


def _decode(path: Path, content: bytes, layouts: _Layouts[Entry]) -> list[Entry]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}: is in UTF-16; save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    start = re.search(rb"\S", content)
    if start is None:
        raise InputError(f"{path}: empty, but JSON is expected")
    try:
        if layouts.official is not None and start[0] == b"{":
            entries: list[Entry] = getattr(layouts.official.decode(content), layouts.key)
            return entries
        return layouts.bare.decode(content)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: not a file of {layouts.key}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        line = _line(content, str(error))
        raise InputError(f"{path}: broken JSON{line}: {error} ({len(content)} bytes in all)") from error


def _line(content: bytes, message: str) -> str:
    """Tell the line of the byte that a decoder's message names."""
    position = re.search(r"\(byte (\d+)\)", message)
    if position is None:
        return ""
    line = content.count(b"\n", 0, int(position[1])) + 1
    return f" in line {line}"


def _read(path: Path) -> bytes:
    """Read a file; of two in a zip that of the open-ended questions, which v1 archives mean."""
    return read_packed(path, ".json", unless="MultipleChoice")


def check_ids(ids: Sequence[int], path: Path) -> None:
    """Raise InputError where a file names a question twice."""
    repeated = _repeated(ids)
    if repeated:
        raise InputError(f"{path}: {len(repeated)} question ids occur more than once: {first_few(repeated)}")


def _repeated(ids: Sequence[int]) -> list[int]:
    if len(set(ids)) == len(ids):
        return []
    return [number for number, count in Counter(ids).items() if count > 1]

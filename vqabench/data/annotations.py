"""Questions, annotations and results as VQA publishes them: JSON, plain, `.gz` or inside `.zip`."""

from __future__ import annotations

import msgspec

ImageId = int | str


class Question(msgspec.Struct, gc=False, frozen=True):
    """One entry of a questions file."""

    question_id: int
    image_id: ImageId
    question: str


class Answer(msgspec.Struct, gc=False, frozen=True):
    """What one annotator answered. Two answers are the same record only if every field agrees."""

    answer: str
    answer_confidence: str | None = None
    answer_id: int | None = None


class Annotation(msgspec.Struct, gc=False, frozen=True):
    """One entry of an annotations file: the question's type and its ten human answers."""

    question_id: int
    image_id: ImageId
    question_type: str
    answer_type: str
    answers: tuple[Answer, ...]
    multiple_choice_answer: str | None = None


class Prediction(msgspec.Struct, gc=False, frozen=True):
    """One entry of a results file in the official format."""

    question_id: int
    answer: str

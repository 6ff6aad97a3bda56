import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqabench.data.annotations import Annotation, Answer
from vqabench.data.answers import normalise, strip_space
from vqabench.evaluation.accuracy import add, mean_percent, question_accuracies, question_accuracy

GOLDEN = Path(__file__).parents[1] / "golden" / "official_accuracy.json"
TEXTS = st.sampled_from(["yes", "Yes", "yes.", " yes\n", "no", "the yes", "two", "2"])
IDS = st.one_of(st.none(), st.integers(1, 12))
RECORDS = st.lists(st.builds(Answer, TEXTS, st.sampled_from(["yes", "no", None]), IDS), min_size=1, max_size=12)


def leave_one_out(prediction: str, answers: Sequence[Answer]) -> float:
    """The official loop, spelled out over plain records."""
    records = [(strip_space(a.answer), a.answer_confidence, a.answer_id) for a in answers]
    prediction = strip_space(prediction)
    if len({text for text, *_ in records}) > 1:
        records = [(normalise(text), confidence, number) for text, confidence, number in records]
        prediction = normalise(prediction)
    accuracies = []
    for record in records:
        others = [other for other in records if other != record]
        accuracies.append(min(1, sum(text == prediction for text, *_ in others) / 3))
    return add(accuracies) / len(accuracies)


@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=10, max_size=10)), min_size=1, max_size=8), st.booleans())
def test_many_questions_at_once_have_the_accuracy_of_each_to_the_bit(
    asked: list[tuple[str, list[str]]], numbered: bool
) -> None:
    predictions = [prediction for prediction, _ in asked]
    answers = [number(*texts) if numbered else [Answer(text) for text in texts] for _, texts in asked]
    expected = [leave_one_out(*pair) for pair in zip(predictions, answers, strict=True)]
    assert question_accuracies(predictions, answers) == expected


def number(*texts: str) -> list[Answer]:
    return [Answer(text, "yes", place) for place, text in enumerate(texts, 1)]


@given(TEXTS, RECORDS)
def test_accuracy_equals_the_official_loop_to_the_bit_whatever_the_ids(
    prediction: str, answers: list[Answer]
) -> None:
    assert question_accuracy(prediction, answers) == leave_one_out(prediction, answers)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=12))
def test_accuracy_equals_the_official_loop_to_the_bit_where_ids_are_distinct(
    prediction: str, texts: list[str]
) -> None:
    answers = number(*texts)
    accuracy = question_accuracy(prediction, answers)
    assert accuracy == leave_one_out(prediction, answers)
    assert 0 <= accuracy <= 1


@pytest.mark.parametrize(("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_each_matching_annotator_adds_three_tenths(matches: int, expected: float) -> None:
    answers = number(*["yes"] * matches, *["no"] * (10 - matches))
    assert question_accuracy("yes", answers) == pytest.approx(expected)


def test_equal_records_are_left_out_together() -> None:
    answers = [Answer("yes")] * 9 + [Answer("no")]
    assert question_accuracy("yes", answers) == pytest.approx(0.1)


def test_nothing_is_normalised_where_all_answers_are_the_same() -> None:
    assert question_accuracy("yes", number(*["Yes."] * 10)) == 0
    assert question_accuracy(" Yes.\n", number("Yes.\t", *["Yes."] * 9)) == 1


def test_a_question_without_answers_has_no_accuracy() -> None:
    with pytest.raises(ZeroDivisionError):
        question_accuracy("yes", [])


def test_a_mean_at_a_rounding_tie_rounds_as_the_official_sum_does() -> None:
    accuracies = [question_accuracy("x", number(*["x"] * m, *["y"] * (10 - m))) for m in [2] * 7 + [4] * 9]
    official = 100 * float(sum(accuracies)) / len(accuracies)
    assert mean_percent(accuracies) == official
    assert mean_percent([]) is None


def test_every_golden_question_is_met_to_the_last_printed_digit() -> None:
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    predictions = {entry["question_id"]: entry["answer"] for entry in golden["predictions"]}
    annotations = msgspec.convert(golden["annotations"], list[Annotation])
    scored = {
        str(a.question_id): round(100 * question_accuracy(predictions[a.question_id], a.answers), 2)
        for a in annotations
    }
    assert scored == golden["expected"]["per_question"]

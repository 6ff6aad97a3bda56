import json
import operator
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqabench.data.vqa.accuracy import best_accuracies, mean_percent, question_accuracies
from vqabench.data.vqa.annotation_table import tabulate
from vqabench.data.vqa.annotations import Annotation, Answer
from vqabench.data.vqa.answers import normalise, strip_space

GOLDEN = Path(__file__).parents[2] / "golden" / "official_accuracy.json"
TEXTS = st.sampled_from(["yes", "Yes", "yes.", " yes\n", "no", "the yes", "two", "2"])
IDS = st.one_of(st.none(), st.integers(1, 12))
RECORDS = st.lists(st.builds(Answer, TEXTS, st.sampled_from(["yes", "no", None]), IDS), min_size=10, max_size=10)


def score_all(predictions: Sequence[str], answers: Sequence[Sequence[Answer]]) -> list[float]:
    """Score one prediction for each question's ten answers."""
    table = tabulate(Annotation(n, n, "", "", tuple(given)) for n, given in enumerate(answers))
    accuracies: list[float] = question_accuracies(predictions, table.answers, table.records).tolist()
    return accuracies


def score_one(prediction: str, answers: Sequence[Answer]) -> float:
    return score_all([prediction], [answers])[0]


def add(values: Sequence[float]) -> float:
    """Add one by one, rounding each time: from Python 3.12 on, `sum` does not."""
    return reduce(operator.add, values, 0.0)


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


@given(st.lists(st.tuples(TEXTS, RECORDS), min_size=1, max_size=8))
def test_accuracy_equals_the_official_loop_to_the_bit_whatever_the_ids(
    asked: list[tuple[str, list[Answer]]],
) -> None:
    predictions, answers = zip(*asked, strict=True)
    expected = [leave_one_out(*pair) for pair in zip(predictions, answers, strict=True)]
    assert score_all(predictions, answers) == expected


def number(*texts: str) -> list[Answer]:
    return [Answer(text, "yes", place) for place, text in enumerate(texts, 1)]


@given(TEXTS, st.lists(TEXTS, min_size=10, max_size=10))
def test_accuracy_equals_the_official_loop_to_the_bit_where_ids_are_distinct(
    prediction: str, texts: list[str]
) -> None:
    answers = number(*texts)
    accuracy = score_one(prediction, answers)
    assert accuracy == leave_one_out(prediction, answers)
    assert 0 <= accuracy <= 1


@pytest.mark.parametrize(("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_each_matching_annotator_adds_three_tenths(matches: int, expected: float) -> None:
    answers = number(*["yes"] * matches, *["no"] * (10 - matches))
    assert score_one("yes", answers) == pytest.approx(expected)


def test_equal_records_are_left_out_together() -> None:
    answers = [Answer("yes")] * 9 + [Answer("no")]
    assert score_one("yes", answers) == pytest.approx(0.1)


def test_nothing_is_normalised_where_all_answers_are_the_same() -> None:
    assert score_one("yes", number(*["Yes."] * 10)) == 0
    assert score_one(" Yes.\n", number("Yes.\t", *["Yes."] * 9)) == 1


@given(st.lists(RECORDS, min_size=1, max_size=6), st.lists(TEXTS, max_size=4))
def test_the_best_accuracy_is_that_of_the_best_answer_of_the_vocabulary(
    answers: list[list[Answer]], vocabulary: list[str]
) -> None:
    table = tabulate(Annotation(n, n, "", "", tuple(given)) for n, given in enumerate(answers))
    every = [[0.0] * len(answers), *(score_all([text] * len(answers), answers) for text in vocabulary)]
    best = best_accuracies(vocabulary, table.answers, table.records)
    assert best.tolist() == [max(column) for column in zip(*every, strict=True)]


def test_a_mean_at_a_rounding_tie_rounds_as_the_official_sum_does() -> None:
    accuracies = [score_one("x", number(*["x"] * m, *["y"] * (10 - m))) for m in [2] * 7 + [4] * 9]
    assert mean_percent(np.array(accuracies)) == 100 * add(accuracies) / len(accuracies)
    assert mean_percent(np.array([])) is None


def test_every_golden_question_is_met_to_the_last_printed_digit() -> None:
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    predictions = {entry["question_id"]: entry["answer"] for entry in golden["predictions"]}
    annotations = msgspec.convert(golden["annotations"], list[Annotation])
    accuracies = score_all([predictions[a.question_id] for a in annotations], [a.answers for a in annotations])
    scored = {str(a.question_id): round(100 * own, 2) for a, own in zip(annotations, accuracies, strict=True)}
    assert scored == golden["expected"]["per_question"]

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.tables import LISTS, Asked, ask, counts_of, repeat
from vqabench.evaluation.prior import OTHERS, compare_answers, count_by_type, distance_between, largest_shifts

COUNTS = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 20), min_size=1).map(Counter)


@given(LISTS)
def test_answers_are_counted_by_type(questions: list[Asked]) -> None:
    table = ask(questions)
    counts = count_by_type(table.question_types, table.modal_answers.strings())
    assert counts == {kind: counts_of(questions, kind) for kind in {kind for kind, _ in questions}}


def test_predictions_are_counted_in_their_normal_form() -> None:
    table = ask(repeat("how many", {"2": 3}))
    assert count_by_type(table.question_types, ["two", "2", "Two."]) == {"how many": Counter({"2": 3})}


@given(COUNTS, COUNTS)
def test_the_distance_is_the_largest_difference_in_probability_of_any_set_of_answers(
    one: Counter[str], other: Counter[str]
) -> None:
    gaps = {answer: one[answer] / one.total() - other[answer] / other.total() for answer in one | other}
    assert distance_between(one, other) == pytest.approx(sum(gap for gap in gaps.values() if gap > 0))
    assert distance_between(one, other) == pytest.approx(distance_between(other, one))
    assert distance_between(one, one) == 0


def test_the_largest_shift_is_that_of_most_questions() -> None:
    train = {"rare": Counter(a=1), "common": Counter(a=60, b=40), "same": Counter(a=9), "untested": Counter(a=5)}
    test = {"rare": Counter(b=1), "common": Counter(a=40, b=60), "same": Counter(a=99), "unseen": Counter(a=99)}
    assert largest_shifts(train, test, 9) == ["common", "rare", "same"]
    assert largest_shifts(train, test, 1) == ["common"]


def test_shares_stand_in_the_order_of_training_and_add_up() -> None:
    train, test = {"t": Counter(a=6, b=3, c=1)}, {"t": Counter(a=1, b=1, d=8)}
    shift = compare_answers("t", {"train": train, "test": test}, {"model": {"t": Counter(a=1, e=1)}}, 2)
    assert shift.answers == ("a", "d", OTHERS)
    assert shift.shares == {
        "train": (0.6, 0.0, pytest.approx(0.4)),
        "test": (0.1, 0.8, pytest.approx(0.1)),
        "model": (0.5, 0.0, 0.5),
    }
    assert shift.questions == {"train": 10, "test": 10}
    assert shift.distance == pytest.approx(0.8)


def test_nothing_is_called_other_where_every_answer_is_shown() -> None:
    own = {"t": Counter(yes=1, no=3)}
    shift = compare_answers("t", {"train": own, "test": own}, {"model": {}}, 8)
    assert shift.answers == ("no", "yes")
    assert shift.shares["model"] == (0.0, 0.0)

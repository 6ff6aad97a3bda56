from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given

from tests.evaluation.tables import LISTS, Asked, ask, counts_of, repeat
from vqabench.evaluation.prior import GROUPS, count_train_prior, group_questions


def groups_of(train: list[Asked], questions: list[Asked]) -> list[set[str]]:
    """Name the groups of each question."""
    groups = group_questions(ask(questions), count_train_prior(ask(train)))
    assert tuple(groups) == GROUPS
    return [{name for name in GROUPS if groups[name][row]} for row in range(len(questions))]


def define(train: list[Asked], kind: str, answer: str) -> set[str]:
    """Spell the definitions out, in fractions."""
    counts = counts_of(train, kind)
    if not counts:
        return set()
    mean = Fraction(counts.total(), len(counts))
    first = "tail" if counts[answer] <= Fraction(6, 5) * mean else "head"
    return {first, "with the prior" if counts[answer] == max(counts.values()) else "against the prior"}


@given(LISTS, LISTS)
def test_every_question_is_where_the_definitions_put_it(train: list[Asked], questions: list[Asked]) -> None:
    assert groups_of(train, questions) == [define(train, *question) for question in questions]


@given(LISTS)
def test_counts_are_those_of_the_training_questions(train: list[Asked]) -> None:
    prior = count_train_prior(ask(train))
    kinds, answers = list(prior.types), list(prior.answers)
    rows = zip(prior.types_M.tolist(), prior.answers_M.tolist(), prior.counts_M.tolist(), strict=True)
    counted = {(kinds[kind], answers[answer]): count for kind, answer, count in rows}
    assert counted == {asked: train.count(asked) for asked in train}
    for kind, number in prior.types.items():
        counts = counts_of(train, kind)
        own = prior.questions_T[number], prior.distinct_T[number], prior.most_T[number]
        assert own == (counts.total(), len(counts), max(counts.values()))


def test_the_bound_of_the_tail_is_inclusive() -> None:
    train = repeat("is the", {"yes": 6, "no": 4})  # 6 is 1.2 times the mean of 5
    assert groups_of(train, [("is the", "yes")]) == [{"tail", "with the prior"}]
    train = repeat("is the", {"yes": 7, "no": 4})
    assert groups_of(train, [("is the", "yes")]) == [{"head", "with the prior"}]


def test_every_one_of_several_most_frequent_answers_is_with_the_prior() -> None:
    train = repeat("what", {"red": 3, "blue": 3, "white": 1})
    asked = [("what", "blue"), ("what", "red"), ("what", "white")]
    agreeing = ["with the prior" in groups for groups in groups_of(train, asked)]
    assert agreeing == [True, True, False]


def test_what_training_gave_to_another_type_or_to_none_is_of_the_tail_and_against() -> None:
    train = [*repeat("how many", {"2": 5, "1": 1}), *repeat("is the", {"yes": 3, "no": 1})]
    asked = [("how many", "yes"), ("how many", "never"), ("is the", "2")]
    assert groups_of(train, asked) == [{"tail", "against the prior"}] * 3


def test_questions_of_a_type_that_training_lacks_are_in_no_group() -> None:
    train = repeat("is the", {"yes": 3, "no": 1})
    assert groups_of(train, [("never seen", "yes"), ("is the", "yes")])[0] == set()


def test_questions_that_were_carved_off_do_not_count() -> None:
    whole = ask([*repeat("is the", {"yes": 3}), *repeat("what", {"red": 2}), *repeat("is the", {"no": 1})])
    prior = count_train_prior(whole.take([0, 1, 5]))
    assert (list(prior.types), list(prior.answers)) == (["is the"], ["yes", "no"])
    assert prior.counts_M.tolist() == [2, 1]


def test_without_training_questions_or_others_there_are_no_groups_to_be_in() -> None:
    nothing = count_train_prior(ask([]))
    assert not np.any(list(group_questions(ask([("what", "red")]), nothing).values()))
    assert all(len(own) == 0 for own in group_questions(ask([]), nothing).values())

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.tables import LISTS, Asked, ask, counts_of, repeat
from vqabench.data.catalog.changing_priors import groups_of, resplit
from vqabench.data.catalog.entries import Carving
from vqabench.data.vqa.annotation_table import AnnotationTable, tabulate
from vqabench.data.vqa.annotations import read_annotations
from vqabench.evaluation.prior import LEAST_DISTANCE, TIMES_CHANCE, Reliance, count_train_prior, prior_reliance

KINDS = ("how many", "is the", "what")
TRAIN = [*repeat("how many", {"2": 600, "1": 300, "0": 100}), *repeat("is the", {"yes": 700, "no": 300})]
TEST = [*repeat("how many", {"2": 100, "1": 300, "0": 600}), *repeat("is the", {"yes": 300, "no": 700})]


def measure(train: list[Asked], questions: list[Asked], answers: list[str]) -> Reliance:
    return prior_reliance(answers, ask(questions), count_train_prior(ask(train)))


def score_of(train: list[Asked], questions: list[Asked], answers: list[str]) -> float:
    score = measure(train, questions, answers).score
    assert score is not None
    return score


def shares(counts: Counter[str], answers: list[str]) -> np.ndarray:
    return np.array([counts[answer] / counts.total() for answer in answers])


def define(train: list[Asked], questions: list[Asked], answers: list[str]) -> tuple[float, float, float]:
    """Spell out the least squares: of how much of the prior is left, the size of the shift, what chance makes."""
    fits, shifts, moved, chance = [], [], 0.0, 0.0
    seen = 0
    for kind in KINDS:
        trained, true = counts_of(train, kind), counts_of(questions, kind)
        if not trained or not true:
            continue
        given_ = Counter(answer for (own, _), answer in zip(questions, answers, strict=True) if own == kind)
        everything = sorted(trained.keys() | true.keys() | given_.keys())
        p, q, g, both = (shares(counts, everything) for counts in (trained, true, given_, trained + true))
        weight = true.total() ** 0.5
        fits.append(weight * (g - q))
        shifts.append(weight * (p - q))
        moved += true.total() * float(((p - q) ** 2).sum())
        chance += true.total() * (1 / true.total() + 1 / trained.total()) * (1 - float((both**2).sum()))
        seen += true.total()
    fit, shift = np.concatenate(fits), np.concatenate(shifts)
    score = np.linalg.lstsq(shift[:, None], fit, rcond=None)[0][0] if moved else 0.0
    return float(score), (moved / seen) ** 0.5, (chance / seen) ** 0.5


@settings(deadline=None)
@given(LISTS, LISTS, st.data())
def test_the_score_is_the_least_squares_share_of_the_prior(
    train: list[Asked], questions: list[Asked], data: st.DataObject
) -> None:
    options = st.sampled_from(["0", "1", "2", "yes", "no", "never"])
    answers = data.draw(st.lists(options, min_size=len(questions), max_size=len(questions)))
    found = measure(train, questions, answers)
    if not {kind for kind, _ in train} & {kind for kind, _ in questions}:
        assert found == Reliance(None, None, None)
        return
    score, distance, by_chance = define(train, questions, answers)
    assert found.distance == pytest.approx(distance, abs=1e-9)
    assert found.by_chance == pytest.approx(by_chance, abs=1e-6)
    if abs(distance - max(LEAST_DISTANCE, TIMES_CHANCE * by_chance)) > 1e-6:
        assert (found.score is not None) == (distance > max(LEAST_DISTANCE, TIMES_CHANCE * by_chance))
    if found.score is not None:
        assert found.score == pytest.approx(score, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(len(TEST) // 100)), st.integers(0, 1_000))
def test_neither_the_order_of_questions_nor_which_one_is_given_an_answer_matters(
    order: list[int], share: int
) -> None:
    answers = ["2"] * share + [answer for _, answer in TEST[share:1000]] + ["yes"] * 1000
    expected = measure(TRAIN, TEST, answers)
    rows = [100 * block + row for block in order for row in range(100)]
    shuffled = measure(TRAIN, [TEST[row] for row in rows], [answers[row] for row in rows])
    assert shuffled.score == pytest.approx(expected.score)


def test_who_answers_as_the_split_does_has_0_and_as_training_did_1() -> None:
    assert score_of(TRAIN, TEST, [answer for _, answer in TEST]) == 0
    assert score_of(TRAIN, TEST, [answer for _, answer in TRAIN]) == pytest.approx(1)


def test_a_mixture_of_both_has_the_share_of_training_in_it() -> None:
    answers = [answer for _, answer in TEST]
    for block in range(0, 2000, 1000):  # a tenth of each count
        half = [*TRAIN[block : block + 1000 : 10]] * 5 + [*TEST[block : block + 1000 : 10]] * 5
        answers[block : block + 1000] = [answer for _, answer in half]
    assert score_of(TRAIN, TEST, answers) == pytest.approx(0.5)


def test_always_the_most_frequent_answer_is_above_1_and_always_the_least_below_0() -> None:
    assert score_of(TRAIN, TEST, ["2"] * 1000 + ["yes"] * 1000) > 1.3
    assert score_of(TRAIN, TEST, ["0"] * 1000 + ["no"] * 1000) < -0.3


def test_answers_of_neither_kind_are_halfway() -> None:
    assert score_of(TRAIN, TEST, ["never"] * 2000) == pytest.approx(0.5)


def test_answers_are_compared_in_their_normal_form() -> None:
    answers = [{"2": "Two", "yes": "yes."}.get(answer, answer) for _, answer in TRAIN]
    assert score_of(TRAIN, TEST, answers) == pytest.approx(1)


def test_types_that_training_lacks_are_left_out() -> None:
    more = [*TEST, *repeat("what", {"red": 5000})]
    answers = [answer for _, answer in TRAIN] + ["blue"] * 5000
    assert measure(TRAIN, more, answers) == measure(TRAIN, TEST, answers[:2000])


def test_where_the_two_hardly_differ_there_is_no_score() -> None:
    near = repeat("is the", {"yes": 650, "no": 350})  # of 700 and 300: a distance of 0.07
    found = measure(TRAIN, near, ["yes"] * 1000)
    assert found.score is None
    assert found.distance == pytest.approx(0.05 * 2**0.5)


def test_where_chance_explains_the_difference_there_is_no_score() -> None:
    few = [*repeat("is the", {"yes": 2, "no": 3})]  # a distance of 0.42
    found = measure(TRAIN, few, ["yes"] * 5)
    assert found.distance is not None
    assert found.distance > 4 * LEAST_DISTANCE
    assert found.score is None


def test_what_chance_explains_is_what_draws_of_one_distribution_show() -> None:
    generator = random.Random(0)
    squares, chances = [], []
    for _ in range(200):
        draws = [generator.choices("abcdefgh", [40, 20, 10, 8, 6, 5, 4, 3], k=n) for n in (60, 90)]
        test, train = ([("what", answer) for answer in drawn] for drawn in draws)
        found = measure(train, test, ["a"] * 60)
        assert found.distance is not None
        assert found.by_chance is not None
        squares.append(found.distance**2)
        chances.append(found.by_chance**2)
    assert np.mean(squares) == pytest.approx(np.mean(chances), rel=0.1)


def draw_from(train: AnnotationTable, questions: AnnotationTable) -> list[str]:
    """Answer each question by a draw from the training answers of its type."""
    generator = random.Random(0)
    pools: dict[str, list[str]] = {}
    for kind, answer in groups_of(train):
        pools.setdefault(kind, []).append(answer)
    return [generator.choice(pools.get(kind, ["yes"])) for kind in questions.question_types.strings()]


@pytest.fixture(scope="module")
def real(samples: Path) -> AnnotationTable:
    return tabulate(read_annotations(samples / "vqa-v2" / "v2_mscoco_train2014_annotations.60000.json.gz"))


def split(table: AnnotationTable, in_test: list[bool]) -> tuple[AnnotationTable, AnnotationTable]:
    train, test = (table.take(np.flatnonzero(np.array(in_test) == side).tolist()) for side in (False, True))
    return train, test


@pytest.mark.parametrize("share", [0.02, 0.05, 0.5])
def test_real_questions_of_an_in_domain_validation_differ_by_chance_alone(
    real: AnnotationTable, share: float
) -> None:
    chosen = Carving(share).choose(set(real.image_ids))
    train, val = split(real, [image in chosen for image in real.image_ids])
    found = prior_reliance(draw_from(train, val), val, count_train_prior(train))
    assert found.score is None
    assert found.distance == pytest.approx(found.by_chance, rel=0.1)


def test_real_questions_split_by_their_priors_tell_who_answers_by_them(real: AnnotationTable) -> None:
    train, test = split(real, resplit(groups_of(real), 1 / 3, 0))
    prior = count_train_prior(train)
    assert prior_reliance(test.modal_answers.strings(), test, prior).score == 0
    assert prior_reliance(draw_from(train, test), test, prior).score == pytest.approx(1, abs=0.02)
    most: dict[str, Counter[str]] = {}
    for kind, answer in groups_of(train):
        most.setdefault(kind, Counter())[answer] += 1
    frequent = [most[kind].most_common(1)[0][0] for kind in test.question_types.strings()]
    exaggerated = prior_reliance(frequent, test, prior).score
    assert exaggerated is not None
    assert exaggerated > 1.05

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vqabench.evaluation.run_answers import find_changes

LEVELS = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])
PAIRS = st.lists(st.tuples(LEVELS, LEVELS, st.sampled_from("xyz")), min_size=1, max_size=30)


@given(PAIRS)
def test_examples_are_those_that_changed_the_most(questions: list[tuple[float, float, str]]) -> None:
    before, after, types = (list(column) for column in zip(*questions, strict=True))
    found = find_changes(np.array(before), np.array(after), types, 4)
    gains = [round(b - a, 6) for a, b in zip(before, after, strict=True)]
    assert (found.questions, found.gained, found.lost) == (
        len(gains),
        sum(gain > 0 for gain in gains),
        sum(gain < 0 for gain in gains),
    )
    assert [gains[row] for row in found.best] == sorted((gain for gain in gains if gain > 0), reverse=True)[:4]
    assert [gains[row] for row in found.worst] == sorted(gain for gain in gains if gain < 0)[:4]


def test_of_equal_changes_each_type_is_shown_before_any_comes_twice() -> None:
    before, after = np.zeros(6), np.array([1.0, 1, 1, 1, 1, 0.3])
    assert find_changes(before, after, list("xxxyzz"), 4).best == (0, 3, 4, 1)


def test_what_differs_in_the_last_bit_alone_is_equal() -> None:
    before, after = np.array([0.3, 0.1]), np.array([0.1 + 0.2, 0.3])
    found = find_changes(before, after, list("xy"), 4)
    assert found.best == (1,)

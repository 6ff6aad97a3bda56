"""Split data sets so that the answer priors change between training and test.

`split_by_ids` follows a published list of test questions, such as VQA-CP's. `resplit` makes a similar split of any
data set, after Agrawal et al. 2018 ("Don't Just Assume; Look and Answer", section 4); it is not VQA-CP.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.data.vqa.words import split_words
from vqabench.errors import InputError, first_few

AnswerGroup = tuple[str, str]
"""Question type and most common answer, normalised: all questions of a group go to one split."""

LEAST_OF_TYPE = 0.1
"""Minimum share of a type's questions that stays in train, and preferred share of a type's first test group."""


@dataclass(frozen=True)
class Shift:
    """How much the priors differ, and which words of the test are in training."""

    distance: float
    """Total variation distance between a type's answers in train and test, averaged over test questions: 0 to 1."""
    concepts_covered: float
    """Share of the test's concepts that are also in train: 0 to 1."""
    types: int
    """Question types in all."""
    train_only: tuple[str, ...]
    """Question types without a test question."""
    test_only: tuple[str, ...]
    """Question types without a training question: they have no prior."""


def split_by_ids(question_ids: Sequence[int], test_ids: Collection[int]) -> list[bool]:
    """Return for each question whether it is in the test. Raises InputError if a test id has no question."""
    missing = sorted(set(test_ids) - set(question_ids))
    if missing:
        message = f"{len(missing):,} of the {len(test_ids):,} test questions are not in the data"
        raise InputError(f"{message} (ids {first_few(missing)}): is a part of the data missing?")
    return [question_id in test_ids for question_id in question_ids]


def groups_of(annotations: AnnotationTable) -> list[AnswerGroup]:
    """Return each question's group."""
    return list(zip(annotations.question_types.strings(), annotations.modal_answers.strings(), strict=True))


def resplit(groups: Sequence[AnswerGroup], share: float, seed: int) -> list[bool]:
    """Return for each question whether it is in the test: almost `share` of them, and never more.

    Questions are given by their groups, which are visited in an order drawn from the seed. A group goes to the test
    unless it is in train, exceeds the remaining size of the test, would leave less than a tenth of its question
    type for train, or is the only remaining one with some concept, because train must cover all concepts of the
    test. After each of these, the group with the most concepts that the test has and train lacks goes to train. The
    rest goes to train at the end.

    One group of each question type goes first, so that every type is in both splits if possible. Raises InputError
    if no group can go to the test.
    """
    order = sorted(set(groups))
    random.Random(seed).shuffle(order)
    split = _Split(groups, share, order)
    by_type: dict[str, list[AnswerGroup]] = defaultdict(list)
    for group in order:
        by_type[group[0]].append(group)
    smallest = {name: min(split.sizes[group] for group in own) for name, own in by_type.items()}
    reserved = sum(smallest.values())
    for name, own in by_type.items():
        reserved -= smallest[name]  # keep space for the later types
        by_size = sorted(own, key=lambda group: split.sizes[group] < LEAST_OF_TYPE * split.type_sizes[group[0]])
        for group in by_size:
            if split.fits(group, reserved):
                split.add_to_test(group)
                break
    for group in order:
        if split.fits(group):
            split.add_to_test(group)
            split.add_to_train()
    if not split.test:
        raise InputError(
            "no group of questions can go to the test split: each is too large, is its whole question type, or has "
            "a word that no other group has"
        )
    return [group in split.test for group in groups]


def concepts_of(group: AnswerGroup) -> frozenset[str]:
    """Return the words of a group's question type and answer, without stop words."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # imported here, as it takes a second

    words = [word for text in group for word in split_words(text)]
    return frozenset(word for word in words if word not in ENGLISH_STOP_WORDS)


class _Split:
    """An unfinished split: a test of limited size, and a greedy cover of its concepts by groups in train."""

    def __init__(self, groups: Sequence[AnswerGroup], share: float, order: Sequence[AnswerGroup]) -> None:
        self.sizes = Counter(groups)
        self.type_sizes = Counter(name for name, _ in groups)
        self.test: set[AnswerGroup] = set()
        self.space = round(share * len(groups))
        """Questions that may still go to the test."""
        self.space_of_type = {name: int((1 - LEAST_OF_TYPE) * size) for name, size in self.type_sizes.items()}
        self.concepts = {group: concepts_of(group) for group in order}
        self.rank = {group: number for number, group in enumerate(order)}
        self.left = dict.fromkeys(order, 0)
        """Group that is in neither split yet -> number of wanted concepts that it contains."""
        self.holders: dict[str, list[AnswerGroup]] = defaultdict(list)
        for group, concepts in self.concepts.items():
            for concept in concepts:
                self.holders[concept].append(group)
        self.holding = Counter({concept: len(holders) for concept, holders in self.holders.items()})
        """Concept -> number of groups in neither split that contain it."""
        self.wanted: set[str] = set()
        """Concepts of the test that train lacks."""
        self.covered: set[str] = set()
        """Concepts of train."""
        self.heap: list[tuple[int, int, AnswerGroup]] = []

    def fits(self, group: AnswerGroup, reserved: int = 0) -> bool:
        """Return whether a group may go to the test, with `reserved` of its questions kept for other groups."""
        if group not in self.left or self.sizes[group] > min(self.space - reserved, self.space_of_type[group[0]]):
            return False
        # Others must remain for those of its concepts that train lacks.
        return all(self.holding[concept] > 1 for concept in self.concepts[group] - self.covered)

    def add_to_test(self, group: AnswerGroup) -> None:
        """Put a group into the test; its concepts are then wanted in train."""
        self.test.add(group)
        self.space -= self.sizes[group]
        self.space_of_type[group[0]] -= self.sizes[group]
        self._remove(group)
        new = self.concepts[group] - self.covered - self.wanted
        self.wanted |= new
        self._change(new, +1)

    def add_to_train(self) -> None:
        """Put the group with the most wanted concepts into train, if there is one."""
        while self.heap:
            count, _, group = heapq.heappop(self.heap)
            if self.left.get(group) == -count:  # otherwise the entry is out of date, or the group is gone
                break
        else:
            return
        self._remove(group)
        brought = self.concepts[group] & self.wanted
        self.wanted -= brought
        self.covered |= self.concepts[group]
        self._change(brought, -1)

    def _remove(self, group: AnswerGroup) -> None:
        del self.left[group]
        self.holding.subtract(self.concepts[group])

    def _change(self, concepts: Iterable[str], by: int) -> None:
        touched = set()
        for concept in concepts:
            for group in self.holders[concept]:
                if group in self.left:
                    self.left[group] += by
                    touched.add(group)
        for group in touched:
            if self.left[group]:
                heapq.heappush(self.heap, (-self.left[group], self.rank[group], group))


def measure_shift(groups: Sequence[AnswerGroup], in_test: Sequence[bool]) -> Shift:
    """Measure how a split of questions, given by their groups, changes the priors.

    Raises InputError if one side is empty.
    """
    counts: dict[bool, dict[str, Counter[str]]] = {False: defaultdict(Counter), True: defaultdict(Counter)}
    for (question_type, answer), is_test in zip(groups, in_test, strict=True):
        counts[is_test][question_type][answer] += 1
    train, test = counts[False], counts[True]
    if not train or not test:
        raise InputError(f"all {len(groups):,} questions would be in {'train' if train else 'the test'}")
    train_only, test_only = tuple(sorted(train.keys() - test)), tuple(sorted(test.keys() - train))
    distances = 0.0
    for question_type, answers in test.items():
        known = train.get(question_type, Counter())
        # Half the sum of absolute differences is the total variation distance; it is 1 if train lacks the type.
        differences = (
            abs(answers[a] / answers.total() - known[a] / known.total()) for a in answers.keys() | known.keys()
        )
        distances += answers.total() * (sum(differences) / 2 if known else 1.0)
    train_concepts, test_concepts = (
        {concept for name, own in types.items() for answer in own for concept in concepts_of((name, answer))}
        for types in (train, test)
    )
    covered = len(test_concepts & train_concepts) / max(1, len(test_concepts))
    distance = min(1.0, distances / in_test.count(True))
    return Shift(distance, covered, len(train | test), train_only, test_only)

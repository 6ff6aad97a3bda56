"""Splits whose answer priors change between training and test.

`split_by_ids` follows a published list of test questions, as VQA-CP's. `resplit` makes such a split of any data
set, after Agrawal et al. 2018 (Don't Just Assume; Look and Answer, section 4): it is not VQA-CP.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.data.vqa.words import split_words
from vqabench.errors import InputError, first_few

Group = tuple[str, str]
"""Question type and most common answer, normalised: all questions of a group go to one split."""

LEAST_OF_TYPE = 0.1
"""Share of a type's questions that stay in train; a group of less says little of its type in the test."""


@dataclass(frozen=True)
class Shift:
    """How far the priors differ, and how much of the test the training split has words for."""

    distance: float
    """Total variation distance between a type's answers in train and test, averaged over test questions: 0 to 1."""
    concepts_covered: float
    """Share of the test's concepts that are in train, too: 0 to 1."""
    types: int
    """Question types in all."""
    train_only: tuple[str, ...]
    """Question types without a test question."""
    test_only: tuple[str, ...]
    """Question types without a training question: they have no prior."""


def split_by_ids(question_ids: Sequence[int], test_ids: Collection[int]) -> list[bool]:
    """Return which questions are of the test split. Raises InputError if a test id is of no question."""
    missing = sorted(set(test_ids) - set(question_ids))
    if missing:
        message = f"{len(missing):,} of the {len(test_ids):,} test questions are not in the data"
        raise InputError(f"{message} (ids {first_few(missing)}): are all of its parts there?")
    return [question_id in test_ids for question_id in question_ids]


def groups_of(annotations: AnnotationTable) -> list[Group]:
    """Return each question's group."""
    return list(zip(annotations.question_types.spell(), annotations.modal_answers.spell(), strict=True))


def resplit(groups: Sequence[Group], share: float, seed: int) -> list[bool]:
    """Return which questions, whose groups are given, become the test: nearly `share` of them, and no more.

    Groups are visited in an order drawn from the seed. A group goes to the test unless it is in train already, is
    too large for what the test still lacks, would leave train less than a tenth of its question type, or is the
    only one left with some concept: train must cover all concepts of the test. Then the group that holds the most
    concepts which the test has and train lacks goes to train. What is left at the end goes to train.

    One group of each question type goes first, so that a type is on both sides wherever that is possible. Raises
    InputError where no group can go to the test.
    """
    order = sorted(set(groups))
    random.Random(seed).shuffle(order)
    test = _Test(groups, share, {group: concepts_of(group) for group in order})
    by_type: dict[str, list[Group]] = defaultdict(list)
    for group in order:
        by_type[group[0]].append(group)
    smallest = {name: min(test.sizes[group] for group in own) for name, own in by_type.items()}
    reserved = sum(smallest.values())
    for name, own in by_type.items():
        reserved -= smallest[name]  # later types must find room, too
        telling = sorted(own, key=lambda group: test.sizes[group] < LEAST_OF_TYPE * test.type_sizes[group[0]])
        for group in telling:
            if test.has_room(group, reserved):
                test.take(group)
                break
    for group in order:
        if test.has_room(group):
            test.take(group)
            test.cover.answer()
    if not test.groups:
        raise InputError(
            "no group of questions can go to the test split: each is too large, is its whole question type, or has "
            "a word that no other group has"
        )
    return [group in test.groups for group in groups]


class _Test:
    """The groups that are in the test, and the room that is left in it."""

    def __init__(self, groups: Sequence[Group], share: float, concepts: Mapping[Group, frozenset[str]]) -> None:
        self.sizes = Counter(groups)
        self.type_sizes = Counter(name for name, _ in groups)
        self.room = round(share * len(groups))
        self.type_room = {name: int((1 - LEAST_OF_TYPE) * size) for name, size in self.type_sizes.items()}
        self.cover = _Cover(concepts)
        self.groups: set[Group] = set()

    def has_room(self, group: Group, reserved: int = 0) -> bool:
        """Return whether a group may go to the test, so many questions of which are kept for others."""
        fits = self.sizes[group] <= min(self.room - reserved, self.type_room[group[0]])
        return fits and self.cover.spares(group)

    def take(self, group: Group) -> None:
        """Put a group into the test."""
        self.cover.ask(group)
        self.groups.add(group)
        self.room -= self.sizes[group]
        self.type_room[group[0]] -= self.sizes[group]


def concepts_of(group: Group) -> frozenset[str]:
    """Return the words of a question type and an answer, without stop words."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # it takes a second to load

    words = [word for text in group for word in split_words(text)]
    return frozenset(word for word in words if word not in ENGLISH_STOP_WORDS)


@dataclass
class _Cover:
    """A greedy cover of concepts: how many of those wanted each group that is left would bring."""

    concepts: Mapping[Group, frozenset[str]]
    left: dict[Group, int] = field(init=False)
    """Group -> wanted concepts that it holds."""

    def __post_init__(self) -> None:
        self.left = dict.fromkeys(self.concepts, 0)
        self.rank = {group: number for number, group in enumerate(self.concepts)}
        self.holders: dict[str, list[Group]] = defaultdict(list)
        for group, concepts in self.concepts.items():
            for concept in concepts:
                self.holders[concept].append(group)
        self.holding = Counter({concept: len(holders) for concept, holders in self.holders.items()})
        self.wanted: set[str] = set()
        self.covered: set[str] = set()
        self.heap: list[tuple[int, int, Group]] = []

    def spares(self, group: Group) -> bool:
        """Return whether a group is left, and others are for what train lacks of its concepts."""
        return group in self.left and all(self.holding[c] > 1 for c in self.concepts[group] - self.covered)

    def ask(self, group: Group) -> None:
        """Put a group into the test: its concepts are wanted in train."""
        self._take(group)
        new = self.concepts[group] - self.covered - self.wanted
        self.wanted |= new
        self._change(new, +1)

    def answer(self) -> None:
        """Put the group that holds the most wanted concepts into train, if one holds any."""
        while self.heap:
            count, _, group = heapq.heappop(self.heap)
            if self.left.get(group) == -count:  # otherwise it was counted anew since, or has gone
                break
        else:
            return
        self._take(group)
        brought = self.concepts[group] & self.wanted
        self.wanted -= brought
        self.covered |= self.concepts[group]
        self._change(brought, -1)

    def _take(self, group: Group) -> None:
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


def measure_shift(groups: Sequence[Group], in_test: Sequence[bool]) -> Shift:
    """Measure what a split of questions, of whom the groups are given, does to the priors.

    Raises InputError if one side is empty.
    """
    counts: dict[bool, dict[str, Counter[str]]] = {False: defaultdict(Counter), True: defaultdict(Counter)}
    for (question_type, answer), test in zip(groups, in_test, strict=True):
        counts[test][question_type][answer] += 1
    train, tested = counts[False], counts[True]
    if not train or not tested:
        raise InputError(f"all {len(groups):,} questions would be in {'train' if train else 'the test'}")
    total = sum(answers.total() for answers in tested.values())
    distance = (
        sum(answers.total() * _distance(answers, train.get(name, Counter())) for name, answers in tested.items())
        / total
    )
    train_concepts, test_concepts = (
        {
            concept
            for name, answers in types.items()
            for answer in answers
            for concept in concepts_of((name, answer))
        }
        for types in (train, tested)
    )
    covered = len(test_concepts & train_concepts) / max(1, len(test_concepts))
    train_only, test_only = tuple(sorted(train.keys() - tested)), tuple(sorted(tested.keys() - train))
    return Shift(min(1.0, distance), covered, len(train | tested), train_only, test_only)


def _distance(first: Counter[str], second: Counter[str]) -> float:
    """Return the total variation distance of two distributions; 1 where one of them is empty."""
    if not first or not second:
        return 1.0
    answers = first.keys() | second.keys()
    return sum(abs(first[a] / first.total() - second[a] / second.total()) for a in answers) / 2

"""Comparison of two configurations, over seeds and over questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.errors import InputError
from vqabench.evaluation.comparison import compare_cells
from vqabench.evaluation.rows import Row, SeedTest, format_origin
from vqabench.evaluation.run_answers import RunAnswers, find_changes
from vqabench.evaluation.scores import CATEGORIES
from vqabench.evaluation.significance import QuestionTest, compare_questions, holm
from vqabench.results import Manifest, Run

Read = Callable[[Run, Manifest, str], tuple[AnnotationTable, RunAnswers]]
"""Reads what a run answered to a split, and the annotations of these questions."""


@dataclass(frozen=True)
class Change:
    """A question that the two sides answer with another accuracy."""

    question_id: int
    question_type: str
    image_id: int | str
    humans: dict[str, int]
    """Human answers, and how many gave each."""
    before: dict[str, int]
    """Answers of one side, and how many of its seeds gave each."""
    after: dict[str, int]
    """Likewise, of the other side."""
    change: float
    """Of the accuracy, mean over seeds, in points."""


@dataclass(frozen=True)
class CategoryPair:
    """The difference in one category of questions."""

    before: float
    """Accuracy of one side, mean over seeds, in percent."""
    after: float
    seeds: SeedTest | None
    """None if the seeds allow no test."""
    questions: QuestionTest
    """Of the trained models, on other images."""
    p_holm: float
    """The permutation test's p-value, corrected for the categories."""


@dataclass(frozen=True)
class SplitPair:
    """The two sides on one split."""

    split: str
    domain: str
    categories: dict[str, CategoryPair]
    gained: int
    """Questions that the other side answers better."""
    lost: int
    kept: int
    """Questions that both answer equally well."""
    changes: tuple[Change, ...]
    """Examples of the largest changes, of several types: first gained, then lost."""


@dataclass(frozen=True)
class Pair:
    """Two configurations; differences are `after` minus `before`."""

    before: Row
    after: Row
    settings: tuple[str, ...]
    """Settings that differ, besides the name of the strategy."""
    splits: tuple[SplitPair, ...]


@dataclass(frozen=True)
class _Side:
    """The answers of a row's seeds to a split."""

    table: AnnotationTable
    answers_SN: Sequence[Sequence[str]]
    accuracies_N: NDArray[np.float64]
    """Mean over seeds, [0, 1]."""


def compare_pair(
    before: Row, after: Row, read: Read, listed: int = 5, splits: Sequence[str] = ("test", "val")
) -> Pair:
    """Compare two configurations on the splits that both have answered; list some changed questions.

    Raises InputError if they saw different data, or their answers cannot be read.
    """
    if (before.dataset, before.fingerprint) != (after.dataset, after.fingerprint):
        raise InputError(f"{before.runs[0].folder} and {after.runs[0].folder} were trained on different data")
    folders = [{run.folder.resolve() for run in row.runs} for row in (before, after)]
    if folders[0] & folders[1]:  # a run has no differences from itself to test
        raise InputError(f"{before.runs[0].folder}: both are the same configuration")
    keys = before.cells.keys() & after.cells.keys()
    shared = [split for split in splits if (split, "accuracy", "answer-type", "all") in keys]
    pairs = tuple(_compare_split(before, after, split, read, listed) for split in shared)
    was, now = before.manifests[0], after.manifests[0]
    first, second = _list_settings(was, now), _list_settings(now, was)
    differing = tuple(
        f"{name} {_format(first.get(name))} against {_format(second.get(name))}"
        for name in first | second
        if first.get(name) != second.get(name)
    )
    return Pair(before, after, differing, pairs)


def _compare_split(before: Row, after: Row, split: str, read: Read, listed: int) -> SplitPair:
    sides = [_read_side(row, split, read) for row in (before, after)]
    table = sides[0].table
    if not np.array_equal(table.question_ids, sides[1].table.question_ids):
        raise InputError(
            f"{before.runs[0].folder} and {after.runs[0].folder} answer different questions of {split}"
        )
    types = table.question_types.strings()
    changes = find_changes(sides[0].accuracies_N, sides[1].accuracies_N, types, listed)
    return SplitPair(
        split,
        after.domain(split),
        _compare_categories(before, after, split, sides),
        changes.gained,
        changes.lost,
        changes.questions - changes.gained - changes.lost,
        tuple(_describe(row, sides) for row in (*changes.best, *changes.worst)),
    )


def _read_side(row: Row, split: str, read: Read) -> _Side:
    found = [read(run, manifest, split) for run, manifest in zip(row.runs, row.manifests, strict=True)]
    for run, (table, _) in zip(row.runs, found, strict=True):
        if not np.array_equal(table.question_ids, found[0][0].question_ids):
            raise InputError(f"{run.folder} and {row.runs[0].folder} answer different questions of {split}")
    # Seeds are averaged per question: answers of several seeds to one question are not independent.
    accuracies = np.mean([answered.accuracies_N for _, answered in found], axis=0)
    return _Side(found[0][0], [answered.answers for _, answered in found], accuracies)


def _compare_categories(before: Row, after: Row, split: str, sides: Sequence[_Side]) -> dict[str, CategoryPair]:
    table = sides[0].table
    # Ids of images may be numbers or names; the tests need indices.
    images_N = np.unique([str(image) for image in table.image_ids], return_inverse=True)[1]
    types = np.array([*table.answer_types.names, ""])[table.answer_types.codes]
    tests = compare_cells(after, before)
    found: dict[str, QuestionTest] = {}
    for category in CATEGORIES:
        own_N = np.ones(len(table), bool) if category == "all" else types == category
        if own_N.any():
            ours, theirs = (side.accuracies_N[own_N] for side in (sides[1], sides[0]))
            found[category] = compare_questions(ours, theirs, images_N[own_N])
    # Tests over seeds and over questions are two families: they answer different questions.
    adjusted = holm(np.array([test.permutation_p for test in found.values()])).tolist()
    keys = {category: (split, "accuracy", "answer-type", category) for category in found}
    over_seeds = [tests.get(key) for key in keys.values()]
    corrected = holm(np.array([np.nan if test is None else test.p for test in over_seeds])).tolist()
    return {
        category: CategoryPair(
            before.cells[keys[category]].mean or 0.0,
            after.cells[keys[category]].mean or 0.0,
            None if seeds is None else replace(seeds, p_holm=p),
            test,
            p_holm,
        )
        for (category, test), p_holm, seeds, p in zip(found.items(), adjusted, over_seeds, corrected, strict=True)
    }


def _describe(row: int, sides: Sequence[_Side]) -> Change:
    table = sides[0].table
    given = [dict(Counter(answers[row] for answers in side.answers_SN).most_common()) for side in sides]
    humans = Counter(table.answers.names[code] for code in table.answers.codes[row].tolist())
    return Change(
        int(table.question_ids[row]),
        table.question_types.names[table.question_types.codes[row]],
        table.image_ids[row],
        dict(humans.most_common()),
        given[0],
        given[1],
        float(100 * (sides[1].accuracies_N[row] - sides[0].accuracies_N[row])),
    )


def _list_settings(run: Manifest, other: Manifest) -> dict[str, Any]:
    """Return the settings of a run by name, to compare them with those of another."""
    names = ("backbone", "objective", "select", "precision", "vocabulary", "bases", "pretraining")
    settings = {name: getattr(run, name) for name in names}
    # Both stages together: a strategy may split the same number of epochs over two.
    settings |= {"epochs": sum(int(stage["epochs"]) for stage in run.stages), "start from": format_origin(run)}
    # Options of a part that only one side has belong to its strategy, which its name shows.
    for part in sorted(run.options.keys() & other.options.keys()):
        settings |= {f"{part}.{option}": value for option, value in sorted(run.options[part].items())}
    recipe = {f"recipe.{key}": value for key, value in sorted(run.recipe.items())}
    return settings | {key: recipe[key] for key in recipe if key not in ("recipe.epochs", "recipe.finetune_epochs")}


def _format(value: Any) -> str:
    return ", ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)

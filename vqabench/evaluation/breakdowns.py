"""What lies under one accuracy: its parts, computed from stored answers; nothing is trained or asked again."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from vqabench.data.accuracy import best_accuracies, mean_percent
from vqabench.data.annotation_table import AnnotationTable
from vqabench.evaluation.answered import Answered
from vqabench.evaluation.calibration import Calibration, calibrate
from vqabench.evaluation.reliance import Reliance, prior_reliance
from vqabench.evaluation.train_prior import TrainPrior, group_questions


class GroupScore(msgspec.Struct, frozen=True):
    """The questions of one group and their mean accuracy, in percent; None where it is empty."""

    questions: int
    accuracy: float | None


class Breakdown(msgspec.Struct, frozen=True):
    """One run's answers to one split, taken apart. Percent, unrounded; None where a number is undefined."""

    questions: int
    accuracy: float | None
    groups: dict[str, GroupScore]
    """By the names of GROUPS."""
    ungrouped: int
    """Questions in no group: training has none of their type."""
    reliance: Reliance
    calibration: Calibration | None
    """None where the run kept no confidences."""
    upper_bound: float | None
    """The accuracy of the best answers that the vocabulary holds."""


def break_down(
    answered: Answered, table: AnnotationTable, prior: TrainPrior, vocabulary: Sequence[str]
) -> Breakdown:
    """Take answers apart: `table` holds their questions, in the same order; `vocabulary` is the run's."""
    groups = group_questions(table, prior)
    sure = answered.confidences_N
    return Breakdown(
        len(answered),
        mean_percent(answered.accuracies_N),
        {
            name: GroupScore(int(own_N.sum()), mean_percent(answered.accuracies_N[own_N]))
            for name, own_N in groups.items()
        },
        len(answered) - sum(int(groups[name].sum()) for name in ("head", "tail")),
        prior_reliance(answered.answers, table, prior),
        None if sure is None else calibrate(answered.accuracies_N, sure),
        upper_bound(table, vocabulary),
    )


def upper_bound(table: AnnotationTable, vocabulary: Sequence[str]) -> float | None:
    """Give the accuracy of the best answers that a vocabulary holds, in percent; None without questions."""
    return mean_percent(best_accuracies(vocabulary, table.answers, table.records))

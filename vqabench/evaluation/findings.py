"""The content of a report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vqabench.data.prepare.digits import Picture
from vqabench.evaluation.comparison import Comparison
from vqabench.evaluation.pair import Pair
from vqabench.evaluation.prior import TypeShift
from vqabench.evaluation.rows import Row
from vqabench.results import Run

LAST_EPOCH = 200_000
"""Of two stages of the longest recipe."""


@dataclass(frozen=True)
class Point:
    """One epoch: mean soft accuracy over the seeds, and the lowest and highest of them, in percent."""

    epoch: int
    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Curve:
    """The accuracy of one configuration on one split, by epoch."""

    seeds: int
    """Seeds that recorded it."""
    points: tuple[Point, ...]


def read_curve(runs: Sequence[Run], split: str) -> Curve | None:
    """Read the accuracy by epoch of the seeds of one configuration on a split; None if none recorded it.

    Epochs that a seed lacks, such as those of a broken line, are left out: a mean over fewer seeds would look like
    a change. Raises InputError if a record cannot be read.
    """
    recorded = []
    for run in runs:
        found = ((record["epoch"], record.get(f"{split}_accuracy")) for record in run.read_epochs())
        own = {
            epoch: float(value)
            for epoch, value in found
            # Bounded: a damaged line may hold any number, and a chart draws every epoch up to the last.
            if isinstance(value, int | float) and 0 <= value <= 100.001 and 1 <= epoch <= LAST_EPOCH
        }
        if own:  # seeds may differ in --track-test, so some may have recorded nothing
            recorded.append(own)
    if not recorded:
        return None
    shared = sorted(set.intersection(*map(set, recorded)))
    values = {epoch: [own[epoch] for own in recorded] for epoch in shared}
    points = (Point(epoch, statistics.fmean(v), min(v), max(v)) for epoch, v in values.items())
    return Curve(len(recorded), tuple(points))


@dataclass(frozen=True)
class Region:
    """A region of an image."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in [0, 1]."""
    name: str
    """Of its class; empty if unknown."""
    picture: Picture | None
    """Its pixels, if known."""


@dataclass(frozen=True)
class Reply:
    """One run's answer to a question."""

    answer: str
    confidence: float | None
    """The model's confidence, in [0, 1]; None if it was not stored."""
    accuracy: float
    """Official accuracy, in [0, 1]."""
    attention: tuple[float, ...] | None
    """Over the regions; sums to 1. None if the backbone returns none, or its weights are not here."""


@dataclass(frozen=True)
class ChangedQuestion:
    """A question that two runs answer differently."""

    question_id: int
    question: str
    question_type: str
    human_answers: tuple[tuple[str, int], ...]
    """Human answers as written, the most frequent first, with the number of annotators who gave each."""
    before: Reply
    after: Reply
    regions: tuple[Region, ...]
    """Of its image; none if its features are not here."""


@dataclass(frozen=True)
class ChangedPair:
    """Two runs with one seed: plain, and a strategy."""

    before: Row
    after: Row
    seed: int
    split: str
    questions: int
    gained: int
    lost: int
    best: tuple[ChangedQuestion, ...]
    worst: tuple[ChangedQuestion, ...]
    missing: tuple[str, ...]
    """Parts that are missing, with the reason."""


@dataclass(frozen=True)
class DatasetFindings:
    """All about one data set."""

    name: str
    comparison: Comparison
    curves: tuple[dict[str, Curve], ...]
    """For each row of the comparison: split -> accuracy by epoch, if it was recorded."""
    shifts: tuple[TypeShift, ...]
    pairs: tuple[ChangedPair, ...]
    missing: tuple[str, ...]
    """Parts that are missing, with the reason."""
    tests: tuple[Pair, ...] = ()
    """Strategies and plain rows, compared over questions."""

"""Accuracy by epoch, as runs recorded it (Fig. 8 is one of them)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

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
    """Read how accurate the seeds of one configuration were on a split; None where none recorded it.

    Epochs that one of them lacks, as where a line is broken, are left out: a mean over fewer seeds would look like
    a change. Raises InputError where a record cannot be read.
    """
    recorded = [own for own in (_read(run, f"{split}_accuracy") for run in runs) if own]
    if not recorded:
        return None
    shared = sorted(set.intersection(*map(set, recorded)))
    values = {epoch: [own[epoch] for own in recorded] for epoch in shared}
    points = (Point(epoch, statistics.fmean(v), min(v), max(v)) for epoch, v in values.items())
    return Curve(len(recorded), tuple(points))


def _read(run: Run, key: str) -> dict[int, float]:
    found = ((record["epoch"], record.get(key)) for record in run.read_epochs())
    return {
        epoch: float(value)
        for epoch, value in found
        if isinstance(value, int | float) and 0 <= value <= 100.001 and 1 <= epoch <= LAST_EPOCH
    }

"""The language prior: the share of each answer in a question type, in training and in the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vqabench.data.catalog.dataset import Dataset
from vqabench.data.catalog.entries import SPLITS
from vqabench.files.hdf5 import reading


@dataclass(frozen=True)
class TypeShares:
    """The shares of the answers of one question type."""

    question_type: str
    questions: dict[str, int]
    """Split -> questions of the type."""
    distance: float | None
    """Total variation distance between train and the other split, 0 to 1; None if the type is in one only."""
    shares: dict[str, dict[str, float]]
    """Answer, the most frequent in training first -> split -> its share of the type's soft targets."""


def read_answer_shares(dataset: Dataset, against: str, types: int, answers: int) -> list[TypeShares]:
    """Compare the answers of training with those of another split, for the most frequent question types.

    Lists at most `answers` answers per type: those with the largest share in either split. The data set must be
    prepared.
    """
    with reading(dataset.prepared_file) as file:
        names = file["types"].asstr()[:].tolist(), file["answers"].asstr()[:].tolist()
        splits: list[str] = [split for split in SPLITS if split in file and split in ("train", against)]
        masses = {split: _sum_targets(file[split], len(names[0]), len(names[1])) for split in splits}
        counts = {split: np.bincount(file[split]["types"][:], minlength=len(names[0])) for split in splits}
    largest = np.argsort(-sum(counts.values()), kind="stable")[:types]
    return [_compare(int(row), names, masses, counts, answers) for row in largest]


def _sum_targets(split: h5py.Group, types: int, answers: int) -> NDArray[Any]:
    """Return the sums of the soft targets: [T, A]."""
    rows = np.repeat(split["types"][:], np.diff(split["starts"][:]))
    cells = rows * answers + split["target_answers"][:]
    return np.bincount(cells, split["target_values"][:], types * answers).reshape(types, answers)


def _compare(
    row: int,
    names: tuple[Sequence[str], Sequence[str]],
    masses: Mapping[str, NDArray[Any]],
    counts: Mapping[str, NDArray[Any]],
    answers: int,
) -> TypeShares:
    shares = {split: mass[row] / max(mass[row].sum(), 1e-12) for split, mass in masses.items()}
    seen = [share for share in shares.values() if share.any()]
    largest = np.argsort(-np.max(list(shares.values()), axis=0), kind="stable")[:answers]
    chosen = sorted((int(n) for n in largest if any(share[n] for share in seen)), key=lambda n: -shares["train"][n])
    return TypeShares(
        names[0][row],
        {split: int(count[row]) for split, count in counts.items()},
        float(np.abs(seen[0] - seen[1]).sum() / 2) if len(seen) == 2 else None,
        {names[1][n]: {split: float(share[n]) for split, share in shares.items()} for n in chosen},
    )

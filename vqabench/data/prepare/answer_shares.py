"""The language prior: the share of each answer in a question type, in training and in the test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
        type_names, answer_names = (file[name].asstr()[:].tolist() for name in ("types", "answers"))
        counts, shares_TA = {}, {}
        for split in SPLITS:
            if split in file and split in ("train", against):
                types_N = file[split]["types"][:]
                counts[split] = np.bincount(types_N, minlength=len(type_names))
                rows = np.repeat(types_N, np.diff(file[split]["starts"][:]))
                cells = rows * len(answer_names) + file[split]["target_answers"][:]
                size = len(type_names) * len(answer_names)
                sums_TA = np.bincount(cells, file[split]["target_values"][:], size).reshape(len(type_names), -1)
                shares_TA[split] = sums_TA / np.maximum(sums_TA.sum(1, keepdims=True), 1e-12)
    found = []
    for row in np.argsort(-sum(counts.values()), kind="stable")[:types].tolist():
        shares = {split: every_TA[row] for split, every_TA in shares_TA.items()}
        seen = [share_A for share_A in shares.values() if share_A.any()]
        largest = np.argsort(-np.max(list(shares.values()), axis=0), kind="stable")[:answers].tolist()
        chosen = [n for n in largest if any(share_A[n] for share_A in seen)]
        chosen.sort(key=lambda n: -shares["train"][n])
        found.append(
            TypeShares(
                type_names[row],
                {split: int(count_T[row]) for split, count_T in counts.items()},
                float(np.abs(seen[0] - seen[1]).sum() / 2) if len(seen) == 2 else None,
                {answer_names[n]: {split: float(share_A[n]) for split, share_A in shares.items()} for n in chosen},
            )
        )
    return found

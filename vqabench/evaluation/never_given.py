"""Answers that training never gave to their question's type, such as a colour to "is there a"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqabench.data.catalog.dataset import Dataset
from vqabench.errors import InputError, first_few
from vqabench.evaluation.notes import UNRANKED
from vqabench.evaluation.rows import Row
from vqabench.evaluation.run_answers import read_stored

SUSPECT = 40.0
"""Percent. Only rows with a lower accuracy on yes/no questions are checked: guessing scores higher."""
GUESSED = 10.0
"""Percent on yes/no questions: answering yes, or no, to all of them scores at least this."""
WORTH_A_NOTE = 0.05
"""Share of answers never given from which a row gets a note."""
NAMED_TYPE = 0.5
"""Share of a question type's answers from which the note names the type."""

Open = Callable[[str], Dataset]
"""Returns the data set of a name; raises InputError where no catalogue has it."""


@dataclass
class _Counts:
    answers_T: NDArray[np.int64]
    never_given_T: NDArray[np.int64]
    types: tuple[str, ...]


def warn_of_never_given(rows: Sequence[Row], open_dataset: Open) -> list[str]:
    """Return a note for each row that answers questions with answers of other question types.

    Stored answers are compared with the prepared data, if both are here as the runs saw them. Otherwise, a row is
    only named if it is worse on yes/no questions than any guess. Nothing is prepared or fetched.
    """
    return [note for row in rows if (note := _warn_of(row, open_dataset))]


def _warn_of(row: Row, open_dataset: Open) -> str | None:
    """Return the note on the first split that a row is suspect on, if it calls for one: test before val."""
    for split in ("test", "val"):
        lowest = _lowest_on_yes_no(row, split)
        if lowest is None or lowest >= SUSPECT:
            continue
        counts = _count(row, split, open_dataset)
        if counts is not None:
            return _describe(row, split, counts)
        if lowest < GUESSED:
            return (
                f"{row.title}: {lowest:.2f} on the yes/no questions of {split}, less than guessing yes or no "
                f"scores: {UNRANKED} {row.dataset}"
            )
    return None


def _lowest_on_yes_no(row: Row, split: str) -> float | None:
    cell = row.cells.get((split, "accuracy", "answer-type", "yes/no"))
    return min((value for value in cell.values if value is not None), default=None) if cell else None


def _describe(row: Row, split: str, counts: _Counts) -> str | None:
    share = counts.never_given_T.sum() / max(1, counts.answers_T.sum())
    if share < WORTH_A_NOTE:
        return None
    shares_T = counts.never_given_T / np.maximum(1, counts.answers_T)
    worst = [int(number) for number in np.argsort(-shares_T, kind="stable") if shares_T[number] >= NAMED_TYPE]
    message = first_few((f"“{counts.types[number]}” ({shares_T[number]:.0%})" for number in worst), 3)
    return (
        f"{row.title}: {share:.0%} of its answers to {split} never occur with their question type in training"
        f"{f', such as {message}' if worst else ''}: {UNRANKED} {row.dataset}"
    )


def _count(row: Row, split: str, open_dataset: Open) -> _Counts | None:
    """Count a row's answers by question type, all seeds together; None if data or answers are not here."""
    from vqabench.files.hdf5 import reading  # h5py takes its time to load, and few rows need it

    try:
        with reading(open_dataset(row.dataset).prepared_file) as file:
            if split not in file or str(file.attrs["fingerprint"]) != row.fingerprint:
                return None
            types = tuple(file["types"].asstr()[:])
            answers = {name: number for number, name in enumerate(file["answers"].asstr()[:])}
            given_TA = file["priors/answer_counts"][:] > 0
            type_of = dict(
                zip(file[split]["question_ids"][:].tolist(), file[split]["types"][:].tolist(), strict=True)
            )
        given_TA = np.pad(given_TA, ((0, 0), (0, 1)))  # the last column: an answer that the vocabulary lacks
        pairs = [
            (type_of[one.question_id], answers.get(one.answer, len(answers)))
            for run in row.runs
            for one in read_stored(run, run.predictions_file(split)) or ()
        ]
    except (InputError, OSError, KeyError):
        return None
    if not pairs:
        return None
    types_N, answers_N = np.array(pairs, np.int64).T
    never_N = ~given_TA[types_N, answers_N]
    return _Counts(
        np.bincount(types_N, minlength=len(types)), np.bincount(types_N[never_N], minlength=len(types)), types
    )

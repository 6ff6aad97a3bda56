"""Notes for the reader of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vqabench.data.catalog.dataset import Dataset
from vqabench.errors import InputError, first_few
from vqabench.evaluation.published import SOURCE, SPLITS, find_published, find_split
from vqabench.evaluation.rows import Row
from vqabench.evaluation.run_answers import read_stored

LEVEL = 0.01
"""The paper marks p-values below this (†)."""
UNRANKED = "do not rank it by"
"""Part of each note on a row whose numbers do not show its rank."""
ONE_SEED = "Only one seed, so gains are not tested. Use --seeds 0-4."
PRIOR_NOTE = (
    "Head and Tail: questions whose answer is frequent or rare for their type in training; With prior and Against: "
    "whose answer is the most frequent one there, or is not. Reliance: 0 if answers are distributed like the "
    "split's true ones, 1 if as in training, above 1 if the prior is exaggerated, below 0 if it is reversed; "
    "– if the split does not differ from training. ECE, Overconf.: calibration error, and confidence "
    "minus accuracy. Bound: best accuracy that the vocabulary allows"
)
"""How to read the numbers on the training prior."""


ABOUT_PUBLISHED = (
    f"published: {SOURCE}; run by its authors, or quoted there from another paper. It states neither seeds nor "
    "deviations, so `differs` (yours - published) cannot be tested. It does not define its kappas, so they cannot "
    "be compared with yours"
)


def describe_incomparable(rows: Sequence[Row]) -> list[str]:
    """Return notes on rows that cannot be compared with others, and why."""
    brands: dict[str, list[str]] = {}
    for row in rows:
        for brand in row.brands:
            brands.setdefault(brand, []).append(row.title)
    notes = [
        f"‡ {f'{first_few(which, 3)}: ' if len(brands) > 1 else ''}{brand}: not comparable with unmarked runs"
        for brand, which in brands.items()
    ]
    for dataset in sorted({row.dataset for row in rows}):
        prints = {row.fingerprint for row in rows if row.dataset == dataset}
        if len(prints) > 1:
            notes.append(f"{dataset}: these runs were trained on {len(prints)} different versions of the data")
    # Labels leave out defaults, which may have changed between versions.
    names = [(row.dataset, row.title) for row in rows]
    if len(set(names)) < len(names):
        notes.append(
            "rows with the same name differ in data, options, precision or defaults that their labels do not show; "
            "see their run.json"
        )
    return notes


def is_warning(note: str) -> bool:
    """Return whether a note warns that a row's numbers are not comparable with those of others."""
    return note.startswith("‡") or UNRANKED in note


def describe_gains(rows: Sequence[Row], bases: Sequence[tuple[Row, Row]], against: str | None = None) -> list[str]:
    """Return notes on rows without a gain and gains without a test; `bases` pairs rows with their bases."""
    notes = []
    based = {id(row) for row, _ in bases}
    if against is None:
        alone = [row.title for row in rows if not row.plain and id(row) not in based]
        # If no row has a gain, there is no column to explain.
        if alone and len(alone) < len(rows):
            notes.append(f"no gain, because there are no plain runs in the same setting: {first_few(alone, 3)}")
    else:
        notes.append(f"gain: against {against}, even if other settings differ")
        others = [row for row in rows if not row.is_called(against)]
        alone = [f"{row.title} on {row.dataset}" for row in others if id(row) not in based]
        if alone:
            notes.append(f"no gain, because {against} has no run on the same data: {first_few(alone, 3)}")
    single = [row.title for row in rows if len(row.seeds) == 1]
    if len(single) == len(rows):
        notes.append(ONE_SEED)
    elif single:
        notes.append(f"Only one seed of {first_few(single, 3)}, so gains with it are not tested. Use --seeds 0-4.")
    return notes


def explain_marks(rows: Sequence[Row], against: str | None = None) -> tuple[str, ...]:
    """Return how gains over plain, or over the row `against`, were tested over seeds; empty if none was."""
    paired = {cell.test.paired for row in rows for cell in row.cells.values() if cell.test is not None}
    if not paired:
        return ()
    kinds = {
        True: "paired t-test (the seeds of both sides are the same)",
        False: "Welch's t-test (the seeds of the two sides are not the same)",
    }
    how = " or ".join(text for kind, text in kinds.items() if kind in paired)
    return (
        f"† p < {LEVEL} against {against or 'plain'}, over seeds: two-sided {how}, without correction",
        "p (Holm): p-value of All, corrected for all rows of the table",
    )


def add_published(rows: Sequence[Row]) -> list[str]:
    """Add the paper's results to rows; return notes on them, and on the rows that have none, with the reason."""
    unknown: dict[str, None] = {}
    others: dict[str, list[str]] = {}
    without: list[str] = []
    for row in rows:
        manifest, tested = row.manifests[0], row.test_questions
        published_as = find_split(manifest, tested)
        if published_as is not None:
            row.published = find_published(manifest, published_as)
            without += [] if row.published else [row.title]
        elif row.dataset not in SPLITS:
            unknown[row.dataset] = None
        else:
            difference = "there is no test split"
            if tested is not None:
                difference = str(SPLITS[row.dataset].find_difference(manifest, tested))
            others.setdefault(f"{row.dataset} here is not the published split: {difference}", []).append(row.title)
    notes = [f"{name}: the paper has no results on this data set" for name in unknown]
    notes += [
        f"{why}, so the paper's numbers are not shown: {first_few(which, 3)}" for why, which in others.items()
    ]
    if without:
        notes.append(f"the paper has no row for {first_few(without)}")
    return [*notes, ABOUT_PUBLISHED] if any(row.published for row in rows) else notes


SUSPECT = 40.0
"""Percent. Only rows with a lower accuracy on yes/no questions are checked: guessing scores higher."""
GUESSED = 10.0
"""Percent on yes/no questions: answering yes, or no, to all of them scores at least this."""
WORTH_A_NOTE = 0.05
"""Share of answers never given from which a row gets a note."""
NAMED_TYPE = 0.5
"""Share of a question type's answers from which the note names the type."""

Integers = NDArray[np.int64]
Open = Callable[[str], Dataset]
"""Returns the data set of a name; raises InputError if no catalogue has it."""


def warn_of_never_given(rows: Sequence[Row], open_dataset: Open) -> list[str]:
    """Return a note for each row that answers questions with answers of other question types.

    Stored answers are compared with the prepared data, if both are here as the runs saw them. Otherwise, a row is
    only named if it is worse on yes/no questions than any guess. Nothing is prepared or fetched.
    """
    return [note for row in rows if (note := _warn_of(row, open_dataset))]


def _warn_of(row: Row, open_dataset: Open) -> str | None:
    """Return the note on the first split, test before val, on which a row is suspect; None if it needs no note."""
    for split in ("test", "val"):
        lowest = min((value for value in row.cell(split, "yes/no").values if value is not None), default=SUSPECT)
        # Reading answers is slow, so rows that beat guessing are not checked.
        if lowest >= SUSPECT:
            continue
        counts = _count(row, split, open_dataset)
        if counts is not None:
            return _describe_never_given(row, split, *counts)
        if lowest < GUESSED:
            return (
                f"{row.title}: {lowest:.2f} on the yes/no questions of {split}, less than guessing yes or no "
                f"scores: {UNRANKED} {row.dataset}"
            )
    return None


def _describe_never_given(
    row: Row, split: str, types: Sequence[str], answers_T: Integers, never_given_T: Integers
) -> str | None:
    share = never_given_T.sum() / max(1, answers_T.sum())
    if share < WORTH_A_NOTE:
        return None
    # max: a type of the data may have no question in this split.
    shares_T = never_given_T / np.maximum(1, answers_T)
    worst = [int(number) for number in np.argsort(-shares_T, kind="stable") if shares_T[number] >= NAMED_TYPE]
    message = first_few((f"“{types[number]}” ({shares_T[number]:.0%})" for number in worst), 3)
    return (
        f"{row.title}: {share:.0%} of its answers to {split} never occur with their question type in training"
        f"{f', such as {message}' if worst else ''}: {UNRANKED} {row.dataset}"
    )


def _count(row: Row, split: str, open_dataset: Open) -> tuple[list[str], Integers, Integers] | None:
    """Count a row's answers by question type, all seeds together, and those that training never gives to the type.

    None if data or answers are missing.
    """
    from vqabench.files.hdf5 import reading  # h5py takes its time to load, and few rows need it

    try:
        with reading(open_dataset(row.dataset).prepared_file) as file:
            # Prepared again since: its counts do not describe these runs.
            if split not in file or str(file.attrs["fingerprint"]) != row.fingerprint:
                return None
            types = list(file["types"].asstr()[:])
            answers = {name: number for number, name in enumerate(file["answers"].asstr()[:])}
            given_TA = file["priors/answer_counts"][:] > 0
            ids, kinds = file[split]["question_ids"][:], file[split]["types"][:]
        type_of = dict(zip(ids.tolist(), kinds.tolist(), strict=True))
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
    given_TA = np.pad(given_TA, ((0, 0), (0, 1)))  # the last column: an answer that the vocabulary lacks
    never_N = ~given_TA[types_N, answers_N]
    return types, np.bincount(types_N, minlength=len(types)), np.bincount(types_N[never_N], minlength=len(types))

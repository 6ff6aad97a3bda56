"""Notes for the reader of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from vqabench.errors import first_few
from vqabench.evaluation.published import SOURCE, SPLITS, find_split
from vqabench.evaluation.rows import Row

LEVEL = 0.01
"""Below which the paper marks a p-value (†)."""
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
    "deviations, so `differs` (ours - published) cannot be tested. It does not define its kappas, so they cannot "
    "be compared with ours"
)


def warn(rows: Sequence[Row]) -> list[str]:
    """Return notes on rows that cannot be compared with others, and why."""
    brands: dict[str, list[str]] = {}
    for row in rows:
        for brand in row.brands:
            brands.setdefault(brand, []).append(row.title)
    notes = [
        f"‡ {f'{first_few(which, 3)}: ' if len(brands) > 1 else ''}{brand}: not comparable with honest runs"
        for brand, which in brands.items()
    ]
    for dataset in sorted({row.dataset for row in rows}):
        prints = {row.fingerprint for row in rows if row.dataset == dataset}
        if len(prints) > 1:
            notes.append(f"{dataset}: these runs were trained on {len(prints)} different versions of the data")
    names = [(row.dataset, row.title) for row in rows]
    if len(set(names)) < len(names):
        notes.append(
            "rows with the same name differ in data, options, precision or defaults that their labels do not show; "
            "see their run.json"
        )
    return notes


def is_warning(note: str) -> bool:
    """Return whether a note says that a row's numbers do not compare with those of others."""
    return note.startswith("‡") or UNRANKED in note


def describe_gains(rows: Sequence[Row], bases: Sequence[tuple[Row, Row]], against: str | None = None) -> list[str]:
    """Return notes on rows without a gain and gains without a test; `bases` pairs rows with their bases."""
    notes = []
    based = {id(row) for row, _ in bases}
    if against is None:
        alone = [row.title for row in rows if not row.plain and id(row) not in based]
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
        f"† p < {LEVEL} against {against or 'plain'}, over seeds: two-sided {how}, each on its own",
        "p (Holm): p-value of All, corrected for all rows of the table",
    )


def describe_published(rows: Sequence[Row]) -> list[str]:
    """Explain the published rows, and say for which rows of ours there is none, and why."""
    on = {id(row): find_split(row.manifests[0], row.test_questions) for row in rows}
    unknown = dict.fromkeys(row.dataset for row in rows if on[id(row)] is None and row.dataset not in SPLITS)
    notes = [f"{name}: the paper has no results on this data set" for name in unknown]
    others: dict[str, list[str]] = {}
    for row in rows:
        if on[id(row)] is None and row.dataset in SPLITS:
            difference = (
                "there is no test split"
                if row.test_questions is None
                else SPLITS[row.dataset].find_difference(row.manifests[0], row.test_questions)
            )
            others.setdefault(f"{row.dataset} here is not the published split: {difference}", []).append(row.title)
    notes += [
        f"{why}, so the paper's numbers are not shown: {first_few(which, 3)}" for why, which in others.items()
    ]
    without = [row.title for row in rows if on[id(row)] is not None and not row.published]
    if without:
        notes.append(f"the paper has no row for {first_few(without)}")
    return [*notes, ABOUT_PUBLISHED] if any(row.published for row in rows) else notes

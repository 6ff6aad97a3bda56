"""Rows side by side: gains over plain, tested over seeds, and what their reader must know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vqabench.errors import InputError, first_few
from vqabench.evaluation.published import SOURCE, find_published, published_datasets
from vqabench.evaluation.rows import BreakDown, Cell, Key, Row, SeedTest, add_breakdowns, gather
from vqabench.evaluation.significance import compare_seeds, holm
from vqabench.results import Run

METRICS = ("accuracy", "kappa")
DECIMALS = 2
"""Of a number in a table: what looks the same there is as good."""
LEVEL = 0.01
"""Below which the paper marks a p-value (†)."""

PRIOR_NOTE = (
    "Head and Tail: questions whose answer is frequent or rare for their type in training; With prior and Against: "
    "whose answer is the most frequent one there, or is not. Reliance: 0 where the answers are shared out as the "
    "split's true ones, 1 as in training, beyond 1 where the prior is exaggerated, below 0 where it is turned "
    "over; – where the split does not differ from training. ECE, Overconf.: calibration error, and confidence "
    "less accuracy. Bound: what the vocabulary allows"
)
"""How to read what stored answers show of the training prior."""


@dataclass(frozen=True)
class Comparison:
    """Rows in the order of a table, and what its reader must know."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def compare(
    runs: Iterable[Run],
    dataset: str | None = None,
    *,
    by_type: bool = True,
    published: bool = False,
    break_down: BreakDown | None = None,
) -> Comparison:
    """Gather finished runs into rows, and test the gains. Runs that are not finished, or damaged, become notes.

    Without `by_type`, there are no numbers by question type. With `published`, rows have beside them what the paper
    has printed on the same; with `break_down`, what their stored answers show of the training prior.

    Raises InputError where there is no finished run.
    """
    left_out: dict[str, list[str]] = {}
    rows = gather(runs, dataset, left_out, by_type=by_type)
    notes = [f"left out, {why}: {first_few(which, 3)}" for why, which in left_out.items()]
    if not rows:
        which = f" of {dataset}" if dataset else ""
        raise InputError("; ".join([f"no finished run{which}", *notes]))
    if break_down is not None:
        notes += _take_apart(rows, break_down)
    add_gains(rows)
    mark_best(rows)
    for row in rows if published else ():
        row.published = find_published(row.manifests[0])
    told = _tell_of_published(rows) if published else []
    return Comparison(tuple(rows), (*notes, *_warn(rows), *told))


def _take_apart(rows: Sequence[Row], break_down: BreakDown) -> list[str]:
    """Add to rows what their stored answers show of the prior; tell how to read it, and where it cannot be done."""
    notes = [PRIOR_NOTE]
    for row in rows:
        try:
            add_breakdowns(row, break_down)
        except InputError as error:
            notes.append(f"{row.backbone} {row.strategy} is not taken apart: {error}")
    return notes


def find_plain(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Pair each strategy with the plain row of its backbone and objective, trained in the same setting."""
    rows = list(rows)
    plain = {(row.dataset, row.backbone, row.objective, row.setting): row for row in rows if row.plain}
    pairs = [(row, plain.get((row.dataset, row.backbone, row.objective, row.setting))) for row in rows]
    return [(row, base) for row, base in pairs if base is not None and not row.plain]


def add_gains(rows: Sequence[Row]) -> None:
    """Give each cell its gain over plain, and the test of it where there are seeds enough."""
    for row, base in find_plain(rows):
        tests = test_cells(row, base)
        for key, test in tests.items():
            cell, other = row.cells[key], base.cells[key]
            row.cells[key] = replace(cell, gain=(cell.mean or 0.0) - (other.mean or 0.0), test=test)
    for dataset in dict.fromkeys(row.dataset for row in rows):
        _correct([row for row in rows if row.dataset == dataset])


def test_cells(row: Row, base: Row) -> dict[Key, SeedTest | None]:
    """Test the differences of all accuracies and kappas of two rows; paired where their seeds are the same."""
    keys = [key for key, cell in row.cells.items() if key[1] in METRICS and _are_defined(cell, base.cells.get(key))]
    if min(len(row.seeds), len(base.seeds)) < 2 or not keys:
        return dict.fromkeys(keys)
    paired = row.seeds == base.seeds
    ours_SK, theirs_SK = (np.array([side.cells[key].values for key in keys], float).T for side in (row, base))
    found = compare_seeds(ours_SK, theirs_SK, paired=paired)
    columns = (found.lows_K, found.highs_K, found.p_values_K, found.effects_K)
    return {
        key: None if np.isnan(p) else SeedTest(low, high, p, p, None if np.isnan(effect) else effect, paired)
        for key, low, high, p, effect in zip(keys, *(column.tolist() for column in columns), strict=True)
    }


def _are_defined(cell: Cell, other: Cell | None) -> bool:
    return other is not None and other.mean is not None and cell.mean is not None


def _correct(rows: Sequence[Row]) -> None:
    """Correct the p-values of each column of a table for their number."""
    for key in dict.fromkeys(key for row in rows for key in row.cells):
        tested = [(row, row.cells[key]) for row in rows if key in row.cells and row.cells[key].test is not None]
        adjusted = holm(np.array([cell.test.p for _, cell in tested if cell.test is not None]))
        for (row, cell), p_holm in zip(tested, adjusted.tolist(), strict=True):
            assert cell.test is not None
            row.cells[key] = replace(cell, test=replace(cell.test, p_holm=p_holm))


def mark_best(rows: Sequence[Row]) -> None:
    """Mark the highest mean of each column within a data set, of honest runs."""
    for dataset in {row.dataset for row in rows}:
        within = [row for row in rows if row.dataset == dataset and not row.branded]
        if len(within) < 2:
            continue
        for key in {key for row in within for key in row.cells if key[1] in METRICS}:
            cells = [
                (row, row.cells[key]) for row in within if key in row.cells and row.cells[key].mean is not None
            ]
            highest = max((cell.mean or 0.0 for _, cell in cells), default=0.0)
            for row, cell in cells:
                if round(cell.mean or 0.0, DECIMALS) == round(highest, DECIMALS):
                    row.cells[key] = replace(cell, best=True)


def _warn(rows: Sequence[Row]) -> list[str]:
    brands: dict[str, list[str]] = {}
    for row in rows:
        for brand in row.brands:
            brands.setdefault(brand, []).append(f"{row.backbone} {row.strategy}")
    notes = [
        f"‡ {f'{first_few(which, 3)}: ' if len(brands) > 1 else ''}{brand}: not comparable with honest runs"
        for brand, which in brands.items()
    ]
    for dataset in sorted({row.dataset for row in rows}):
        prints = {row.fingerprint for row in rows if row.dataset == dataset}
        if len(prints) > 1:
            notes.append(f"{dataset}: these runs saw {len(prints)} different states of the data")
    names = [(row.dataset, row.backbone, row.objective, row.name) for row in rows]
    if len(set(names)) < len(names):
        notes.append(
            "rows of one name differ in data, options or defaults that their labels do not show: see their run.json"
        )
    return [*notes, *_explain_tests(rows)]


def _explain_tests(rows: Sequence[Row]) -> list[str]:
    """Tell how gains were tested, and which could not be."""
    tests = [cell.test for row in rows for cell in row.cells.values() if cell.test is not None]
    notes = []
    if tests:
        kinds = {
            True: "paired t-test (the same seeds on both sides)",
            False: "Welch's t-test (other seeds on the two sides)",
        }
        how = " or ".join(text for paired, text in kinds.items() if any(test.paired == paired for test in tests))
        notes.append(
            f"† p < {LEVEL} against plain, over seeds: two-sided {how}, each on its own; "
            "p (Holm) is that of All, corrected for all rows of the table"
        )
    single = [row for row in rows if len(row.seeds) == 1]
    if single:
        which = "a row" if len(rows) > 1 else "it"
        notes.append(f"one seed: no claim; {which} with a single seed shows no spread, so train several")
    return notes


def _tell_of_published(rows: Sequence[Row]) -> list[str]:
    """Tell what published rows are, and for which rows of ours there is none."""
    known = published_datasets()
    unknown = dict.fromkeys(row.dataset for row in rows if row.dataset not in known)
    notes = [f"{name}: the paper has no results on this data set" for name in unknown]
    without = [f"{row.backbone} {row.strategy}" for row in rows if row.dataset in known and not row.published]
    if without:
        notes.append(f"the paper has no row for {first_few(without)}")
    if any(row.published for row in rows):
        notes.append(
            f"published: {SOURCE}; run by its authors, or reported there from another paper. It tells neither "
            "seeds nor deviations, so that `differs` (ours - published) cannot be tested"
        )
    return notes

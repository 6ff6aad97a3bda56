"""Comparison of rows: gains over plain, tested over seeds, and notes for the reader."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vqabench.errors import InputError, first_few
from vqabench.evaluation.notes import (
    ABOUT_PUBLISHED,
    PRIOR_NOTE,
    add_published,
    describe_gains,
    describe_incomparable,
    explain_marks,
)
from vqabench.evaluation.published import SPLITS, Published, read_tables
from vqabench.evaluation.rows import BreakDown, Key, Row, SeedTest, gather_rows, summarise
from vqabench.evaluation.significance import compare_seeds, holm
from vqabench.results import Run

METRICS = ("accuracy", "kappa")
DECIMALS = 2
"""Decimals of a number in a table; numbers that look the same there are equally good."""


@dataclass(frozen=True)
class Comparison:
    """Rows in the order of a table, and notes for its reader."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    gain_notes: tuple[str, ...] = ()
    """Notes for tables with gains: rows that have none, and rows that are not tested."""
    marks: tuple[str, ...] = ()
    """How the gains were tested; empty if none was."""
    published: tuple[Published, ...] = ()
    """The paper's tables, if they are requested and there are no runs."""
    left_out: tuple[str, ...] = ()
    """Runs that are left out, with the reason; each damaged run has its own line."""

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Return the notes on every table."""
        return (*self.notes, *self.gain_notes, *self.marks)


def compare(
    runs: Iterable[Run],
    dataset: str | None = None,
    *,
    by_type: bool = True,
    published: bool = False,
    break_down: BreakDown | None = None,
    against: str | None = None,
) -> Comparison:
    """Gather finished runs into rows, and test the gains. Runs that are not finished, or damaged, are `left_out`.

    Without `by_type`, there are no numbers by question type. `published` adds the paper's results on the same
    configurations, `break_down` numbers computed from stored answers. Gains are over plain runs
    in the same setting, or over the row that `against` names.

    Without a finished run, `published` returns the paper's tables alone. Raises InputError if there is neither, or
    no row of that name.
    """
    runs = list(runs)
    rows, left_out = gather_rows(runs, dataset, by_type=by_type)
    # Without runs, the paper's tables are still worth showing, unless a row of ours was requested.
    if not rows and published and against is None:
        return show_tables(dataset, left_out)
    if not rows:
        raise InputError("; ".join([_describe_none(runs, dataset), *map(_advise, left_out)]))
    bases = find_plain(rows) if against is None else find_chosen(rows, against)
    notes: list[str] = []
    if break_down is not None:
        notes += _add_breakdowns(rows, break_down)
    add_gains(rows, bases)
    mark_best(rows)
    about_published = add_published(rows) if published else []
    notes += [*describe_incomparable(rows), *about_published]
    gain_notes = _describe_choices(bases, rows) if against is None else []
    gain_notes += describe_gains(rows, bases, against)
    marks = explain_marks(rows, against)
    return Comparison(tuple(rows), tuple(notes), tuple(gain_notes), marks, left_out=tuple(left_out))


def _describe_none(runs: Sequence[Run], dataset: str | None) -> str:
    """Return the message that no run is finished, with the nearest name of a data set that runs have."""
    if not dataset:
        return "no finished run"
    names = set()
    for run in runs:
        with suppress(InputError):
            names.add(run.read_manifest().dataset)
    nearest = difflib.get_close_matches(dataset, names - {dataset}, n=1)
    hint = f": did you mean {nearest[0]!r}?" if nearest else ""
    return f"no finished run of {dataset}{hint}"


def _advise(line: str) -> str:
    """Return a line on runs that are left out; for stopped ones, with how to continue them."""
    stopped = line.startswith("left out, stopped: ")
    return f"{line}; continue with: vqabench train ... --resume" if stopped else line


def show_tables(dataset: str | None, left_out: Sequence[str]) -> Comparison:
    """Return the paper's tables, of one data set or all. Raises InputError if it has no results on it."""
    if dataset is not None and dataset not in SPLITS:
        raise InputError(
            f"no finished run of {dataset}, and the paper has no results on it; it has {', '.join(SPLITS)}"
        )
    chosen = tuple(row for row in read_tables() if dataset in (None, row.dataset))
    return Comparison((), (ABOUT_PUBLISHED,), published=chosen, left_out=tuple(left_out))


def _add_breakdowns(rows: Sequence[Row], break_down: BreakDown) -> list[str]:
    """Add numbers computed from stored answers; return notes on them and on rows without."""
    failed: dict[str, list[str]] = {}
    for row in rows:
        reasons: dict[str, None] = {}
        for split in dict.fromkeys(key[0] for key in row.cells):
            try:
                forms = [break_down(run, own, split) for run, own in zip(row.runs, row.manifests, strict=True)]
            except InputError as error:
                # The answers to one split may be gone while those to the other are here.
                reasons[str(error)] = None
                continue
            for key in forms[0]:
                row.cells[split, *key] = summarise([form[key] for form in forms])
        if reasons:
            failed.setdefault("; ".join(reasons), []).append(row.title)
    message = [f"no breakdown of {first_few(which, 3)}: {why}" for why, which in failed.items()]
    by_prior = any(key[2] == "prior" for row in rows for key in row.cells)
    return [PRIOR_NOTE, *message] if by_prior else message


def find_plain(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Pair each strategy with the plain row of its backbone and objective, trained in the same setting.

    Of several, which differ only in their labels, prefer the same label, then the same seeds, then the most seeds.
    """
    plain = _group_plain(rows)
    pairs = [(row, plain[_setting(row)]) for row in rows if not row.plain and _setting(row) in plain]

    def difference(row: Row, base: Row) -> tuple[bool, bool, int]:
        return base.label != row.label, base.seeds != row.seeds, -len(base.seeds)

    return [(row, min(bases, key=partial(difference, row))) for row, bases in pairs]


def find_chosen(rows: Sequence[Row], name: str) -> list[tuple[Row, Row]]:
    """Pair each row with the one of its data set that is called `name`, if both saw the same data.

    Raises InputError if no row has this name, or several rows of one data set have it.
    """
    chosen = [row for row in rows if name and row.is_called(name)]
    if not chosen:
        spelled = {f"{row.backbone}/{row.strategy}": f"{row.backbone}/{row.objective}-{row.loss}" for row in rows}
        nearest = difflib.get_close_matches(name, [*spelled, *spelled.values()], n=1)  # with its label or without
        meant = next((full for full, short in spelled.items() if nearest and nearest[0] in (full, short)), None)
        hint = f"did you mean {meant!r}? " if meant else ""
        raise InputError(f"--against: no row is called {name!r}: {hint}Rows: {first_few(spelled)}")
    for dataset in dict.fromkeys(row.dataset for row in chosen):
        folders = [str(row.runs[0].folder) for row in chosen if row.dataset == dataset]
        if len(folders) > 1:
            raise InputError(
                f"--against: {len(folders)} rows on {dataset} are called {name!r}; name the folder of one instead: "
                f"{first_few(folders, 3)}"
            )
    # Numbers on different data do not compare, even under one name.
    bases = {(row.dataset, row.fingerprint): row for row in chosen}
    pairs = [(row, bases.get((row.dataset, row.fingerprint))) for row in rows]
    return [(row, base) for row, base in pairs if base is not None and base is not row]


def _group_plain(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.plain:
            groups.setdefault(_setting(row), []).append(row)
    return groups


def _setting(row: Row) -> tuple[str, ...]:
    return row.dataset, row.backbone, row.objective, row.setting


def _describe_choices(bases: Sequence[tuple[Row, Row]], rows: Sequence[Row]) -> list[str]:
    """Return a note on which of several plain rows in one setting gains are against."""
    plain = _group_plain(rows)
    chosen = {(row.title, base.title) for row, base in bases if len(plain[_setting(row)]) > 1}
    if not chosen:
        return []
    message = first_few((f"{row} against {base}" for row, base in sorted(chosen)), 3)
    return [f"several plain rows have the same setting; gains are against the most similar one: {message}"]


def add_gains(rows: Sequence[Row], bases: Sequence[tuple[Row, Row]]) -> None:
    """Add to each cell its gain over the row's base, and the test of it if both have several seeds."""
    for row, base in bases:
        row.against = base.title
        tests = compare_cells(row, base)
        for key, test in tests.items():
            cell, other = row.cells[key], base.cells[key]
            # Both means are defined: compare_cells returns no other keys.
            row.cells[key] = replace(cell, gain=(cell.mean or 0.0) - (other.mean or 0.0), test=test)
    for dataset in dict.fromkeys(row.dataset for row in rows):  # each has its own table, and so its own family
        _correct([row for row in rows if row.dataset == dataset])


def compare_cells(row: Row, base: Row) -> dict[Key, SeedTest | None]:
    """Test the differences of all accuracies and kappas of two rows; paired if their seeds are the same."""
    defined = [
        {key for key, cell in side.cells.items() if key[1] in METRICS and cell.mean is not None}
        for side in (row, base)
    ]
    keys = [key for key in row.cells if key in defined[0] & defined[1]]
    if min(len(row.seeds), len(base.seeds)) < 2 or not keys:
        return dict.fromkeys(keys)
    # Runs with equal seeds saw the data in the same order, which makes them comparable in pairs.
    paired = row.seeds == base.seeds
    ours_SK, theirs_SK = (np.array([side.cells[key].values for key in keys], float).T for side in (row, base))
    found = compare_seeds(ours_SK, theirs_SK, paired=paired)
    columns = (found.lows_K, found.highs_K, found.p_values_K, found.effects_K)
    return {
        key: None if np.isnan(p) else SeedTest(low, high, p, p, None if np.isnan(effect) else effect, paired)
        for key, low, high, p, effect in zip(keys, *(column.tolist() for column in columns), strict=True)
    }


def _correct(rows: Sequence[Row]) -> None:
    """Correct the p-values of each column of a table for their number."""
    for key in dict.fromkeys(key for row in rows for key in row.cells):
        tested = [(row, row.cells[key]) for row in rows if key in row.cells and row.cells[key].test is not None]
        # By column: a reader claims all rows of a column together.
        adjusted = holm(np.array([cell.test.p for _, cell in tested if cell.test is not None]))
        for (row, cell), p_holm in zip(tested, adjusted.tolist(), strict=True):
            assert cell.test is not None
            row.cells[key] = replace(cell, test=replace(cell.test, p_holm=p_holm))


def mark_best(rows: Sequence[Row]) -> None:
    """Mark the highest mean of each column within a data set, among unmarked rows.

    The best row must have several seeds, and there must be another row with several seeds.
    """
    for dataset in {row.dataset for row in rows}:
        # A run that has seen the test split would win unfairly.
        within = [row for row in rows if row.dataset == dataset and not row.branded]
        if sum(len(row.seeds) > 1 for row in within) < 2:
            continue
        for key in {key for row in within for key in row.cells if key[1] in METRICS}:
            cells = [
                (row, row.cells[key]) for row in within if key in row.cells and row.cells[key].mean is not None
            ]
            highest = max((cell.mean or 0.0 for _, cell in cells), default=0.0)
            for row, cell in cells:
                # Rounded as printed: rows that look equal are both marked.
                if len(row.seeds) > 1 and round(cell.mean or 0.0, DECIMALS) == round(highest, DECIMALS):
                    row.cells[key] = replace(cell, best=True)

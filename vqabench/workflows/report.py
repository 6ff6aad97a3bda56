"""`vqabench report`: what is known of some runs, from their folders and, where it is here, their data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vqabench.errors import InputError, VqabenchError
from vqabench.evaluation.answered import read_answered
from vqabench.evaluation.comparison import Comparison, Row
from vqabench.evaluation.curves import read_curve
from vqabench.evaluation.findings import ChangedPair, DatasetFindings, Record
from vqabench.evaluation.shifts import Counts, TypeShift, compare_answers, count_by_type, largest_shifts
from vqabench.training.progress import Progress, Silence
from vqabench.workflows.changed_questions import describe_pair
from vqabench.workflows.comparison import compare
from vqabench.workflows.places import Places
from vqabench.workflows.tested import Tested, read_tested

TYPES = 4
"""Question types whose answers are shown."""
ANSWERS = 8
"""Of each of them."""
STRATEGIES = 3
"""Whose answers are shown beside those of plain runs."""
PAIRS = 3
"""Of rows whose changed questions are shown."""

Pairs = list[tuple[Row, Row]]


def gather(
    folders: Sequence[Path], name: str | None, places: Places, progress: Progress | None = None
) -> list[DatasetFindings]:
    """Gather what is known of the runs in the given folders, or of all runs: an entry for each data set.

    Nothing is trained, fetched or prepared. Raises InputError where there is no finished run.
    """
    everything = compare(folders, name, places)
    names = list(dict.fromkeys(row.dataset for row in everything.rows))
    comparisons = [compare(folders, one, places) for one in names] if len(names) > 1 else [everything]
    pairs = zip(names, comparisons, strict=True)
    return [_gather(one, comparison, places, progress or Silence()) for one, comparison in pairs]


def _gather(name: str, comparison: Comparison, places: Places, progress: Progress) -> DatasetFindings:
    rows = comparison.rows
    progress.say(f"{name}: {len(rows)} rows of {sum(len(row.runs) for row in rows)} runs")
    findings = DatasetFindings(name, comparison, tuple(map(_record, rows)), (), (), ())
    try:
        tested = read_tested(name, {row.fingerprint for row in rows}, places, progress)
        progress.say(f"{name}: reading answers")
        seen = [row for row in rows if row.fingerprint == tested.prepared.fingerprint]
        shifts = _compare_answers(tested, _choose_rows(seen))
    except (VqabenchError, OSError) as error:
        missing = f"answer distributions and changed questions are left out: {error}"
        progress.warn(missing)
        return replace(findings, missing=(missing,))
    described, missing_pairs = _describe_pairs(tested, pair_with_plain(seen)[:PAIRS], progress)
    return replace(findings, shifts=shifts, pairs=described, missing=missing_pairs)


def _record(row: Row) -> Record:
    curves = {split: read_curve(row.runs, split) for split in ("val", "test")}
    recorded = {split: curve for split, curve in curves.items() if curve is not None}
    return Record(row, tuple(run.read_manifest() for run in row.runs), recorded)


def pair_with_plain(rows: Sequence[Row]) -> Pairs:
    """Pair each row with the plain one that its gains are against; the largest gain or loss comes first."""
    plain = {(row.backbone, row.objective, row.setting): row for row in rows if row.plain}
    found = [(plain.get((row.backbone, row.objective, row.setting)), row) for row in rows if not row.plain]
    pairs = [(base, row) for base, row in found if base is not None]
    return sorted(pairs, key=lambda pair: -abs(_gain(pair[1])))


def _gain(row: Row) -> float:
    cells = [row.cells.get((split, "accuracy", "answer-type", "all")) for split in ("test", "val")]
    return next((cell.gain for cell in cells if cell is not None and cell.gain is not None), 0.0)


def _choose_rows(rows: Sequence[Row]) -> list[Row]:
    """Choose whose answers are shown: plain runs and strategies against them, where the gains are the largest."""
    pairs = pair_with_plain(rows)
    if not pairs:
        return list(rows[:1])
    base = pairs[0][0]
    return [base, *[row for other, row in pairs if other is base][:STRATEGIES]]


def _compare_answers(tested: Tested, rows: Sequence[Row]) -> tuple[TypeShift, ...]:
    """Compare the answers of training and test with those given, all seeds of a row together."""
    _, train = tested.dataset.read_split("train")
    splits = {
        name: count_by_type(table.question_types, table.modal_answers.spell())
        for name, table in (("train", train), (tested.split, tested.table))
    }
    predicted = {f"{row.backbone} {row.objective}-{row.name}": _count_predicted(tested, row) for row in rows}
    kinds = largest_shifts(splits["train"], splits[tested.split], TYPES)
    return tuple(compare_answers(kind, splits, predicted, ANSWERS) for kind in kinds)


def _count_predicted(tested: Tested, row: Row) -> Counts:
    counts: Counts = {}
    for run in row.runs:
        table, answered = read_answered(run, tested.split, tested.table)
        for kind, own in count_by_type(table.question_types, answered.answers).items():
            counts.setdefault(kind, Counter()).update(own)
    return counts


def _describe_pairs(
    tested: Tested, pairs: Pairs, progress: Progress
) -> tuple[tuple[ChangedPair, ...], tuple[str, ...]]:
    described, missing = [], []
    for before, after in pairs:
        name = f"{after.backbone} {after.objective}-{after.name}"
        progress.say(f"{tested.dataset.name}: questions that {name} changed")
        try:
            described.append(describe_pair(before, after, tested, progress))
        except InputError as error:
            missing.append(f"changed questions of {name} are left out: {error}")
            progress.warn(missing[-1])
    return tuple(described), tuple(missing)

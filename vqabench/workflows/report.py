"""`vqabench report`: gather the content of a report from runs and, if it is here, their data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vqabench.errors import InputError, VqabenchError
from vqabench.evaluation.comparison import Comparison, find_plain
from vqabench.evaluation.findings import ChangedPair, Curve, DatasetFindings, read_curve
from vqabench.evaluation.pair import Pair, compare_pair
from vqabench.evaluation.prior import Counts, TypeShift, compare_answers, count_by_type, largest_shifts
from vqabench.evaluation.rows import Row
from vqabench.evaluation.run_answers import read_answered
from vqabench.events import Emit, Warn, ignore
from vqabench.paths import Paths
from vqabench.workflows.comparison import compare, describe_pair
from vqabench.workflows.stored import StoredAnswers, TestedSplit, read_tested

TYPES = 4
"""Question types whose answers are shown."""
ANSWERS = 8
"""Of each of them."""
STRATEGIES = 3
"""Strategies whose answers are shown with those of plain runs."""
PAIRS = 3
"""Pairs of rows whose changed questions are shown."""
TESTED = 6
"""Pairs of rows that are compared over questions."""

Pairs = list[tuple[Row, Row]]
"""Strategies with their plain rows."""


def gather(
    folders: Sequence[Path],
    name: str | None,
    paths: Paths,
    emit: Emit = ignore,
    *,
    published: bool = False,
    prior: bool = False,
) -> list[DatasetFindings]:
    """Gather the content of a report on the runs in the given folders, or on all runs: an entry per data set.

    `published` adds the paper's results, `prior` how stored answers follow the training prior, if the data is here.
    Nothing is trained, fetched or prepared. Raises InputError if there is no finished run.
    """
    stored = StoredAnswers(paths, emit)
    groups: dict[str, list[Row]] = {}
    everything = compare(folders, name, paths, by_type=False)
    for message in everything.left_out:
        emit(Warn(message))
    for row in everything.rows:
        groups.setdefault(row.dataset, []).append(row)
    found = []
    for one, rows in groups.items():
        emit(f"{one}: {len(rows)} rows of {sum(len(row.runs) for row in rows)} runs")
        tested, missing = _find_data(rows, stored, emit)
        taken_apart = stored.break_down if prior and tested is not None else None
        comparison = compare(folders, one, paths, published=published, break_down=taken_apart)
        found.append(_gather(one, comparison, tested, stored, missing, emit))
    return found


def _find_data(rows: Sequence[Row], stored: StoredAnswers, emit: Emit) -> tuple[TestedSplit | None, list[str]]:
    try:
        return read_tested(rows, stored, emit), []
    except (VqabenchError, OSError) as error:
        return None, [f"answer distributions and changed questions are left out: {error}"]


def _gather(
    name: str,
    comparison: Comparison,
    tested: TestedSplit | None,
    stored: StoredAnswers,
    missing: list[str],
    emit: Emit,
) -> DatasetFindings:
    curves = tuple(_read_curves(row, missing) for row in comparison.rows)
    findings = DatasetFindings(name, comparison, curves, (), (), ())
    if tested is not None:
        seen = [row for row in comparison.rows if row.fingerprint == tested.prepared.fingerprint]
        shifts = _compare_answers(tested, _choose_rows(seen), missing, emit)
        pairs = _rank(seen)
        described = _describe_pairs(tested, pairs[:PAIRS], missing, emit)
        tests = _test_pairs(tested, pairs[:TESTED], stored, missing)
        findings = replace(findings, shifts=shifts, pairs=described, tests=tests)
    for message in missing:
        emit(Warn(message))
    return replace(findings, missing=tuple(missing))


def _read_curves(row: Row, missing: list[str]) -> dict[str, Curve]:
    try:
        curves = {split: read_curve(row.runs, split) for split in ("val", "test")}
    except InputError as error:
        missing.append(f"the learning curves of {row.title} are left out: {error}")
        return {}
    return {split: curve for split, curve in curves.items() if curve is not None}


def _rank(rows: Sequence[Row]) -> Pairs:
    """Pair each strategy with the plain row that its gains are against; the largest gain or loss comes first."""
    return sorted(find_plain(rows), key=lambda pair: -abs(_gain(pair[0])))


def _gain(row: Row) -> float:
    cells = [row.cells.get((split, "accuracy", "answer-type", "all")) for split in ("test", "val")]
    return next((cell.gain for cell in cells if cell is not None and cell.gain is not None), 0.0)


def _choose_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose answers are shown: plain runs, and the strategies with the largest gains over them."""
    pairs = _rank(rows)
    if not pairs:
        return list(rows[:1])
    _, plain = pairs[0]
    return [plain, *[row for row, base in pairs if base is plain][:STRATEGIES]]


def _compare_answers(
    tested: TestedSplit, rows: Sequence[Row], missing: list[str], emit: Emit
) -> tuple[TypeShift, ...]:
    """Compare the answers of training and test with the predicted ones, all seeds of a row together."""
    emit(f"{tested.dataset.name}: answer distributions")
    splits = {}
    for name in ("train", tested.split):
        table = tested.opened.tables[name]
        splits[name] = count_by_type(table.question_types, table.modal_answers.strings())
    predicted: dict[str, Counts] = {}
    for row in rows:
        name = row.title if row.title not in predicted else f"{row.title} ({row.seeds[0]})"
        try:
            predicted[name] = _count_predicted(tested, row)
        except (InputError, OSError) as error:
            missing.append(f"the answer distributions of {name} are left out: {error}")
    kinds = largest_shifts(splits["train"], splits[tested.split], TYPES)
    return tuple(compare_answers(kind, splits, predicted, ANSWERS) for kind in kinds)


def _count_predicted(tested: TestedSplit, row: Row) -> Counts:
    counts: Counts = {}
    for run in row.runs:
        table, answered = read_answered(run, tested.split, tested.table)
        for kind, own in count_by_type(table.question_types, answered.answers).items():
            counts.setdefault(kind, Counter()).update(own)
    return counts


def _test_pairs(tested: TestedSplit, pairs: Pairs, stored: StoredAnswers, missing: list[str]) -> tuple[Pair, ...]:
    """Compare strategies with plain rows over the questions of the tested split."""
    found = []
    for after, before in pairs:
        try:
            found.append(compare_pair(before, after, stored.read, listed=0, splits=(tested.split,)))
        except (InputError, OSError) as error:
            missing.append(f"{after.title} is not compared over questions: {error}")
    return tuple(found)


def _describe_pairs(tested: TestedSplit, pairs: Pairs, missing: list[str], emit: Emit) -> tuple[ChangedPair, ...]:
    described = []
    for after, before in pairs:
        emit(f"{tested.dataset.name}: questions that {after.title} changed")
        try:
            described.append(describe_pair(before, after, tested, emit))
        except (InputError, OSError) as error:
            missing.append(f"the questions that {after.title} changed are left out: {error}")
    return tuple(described)

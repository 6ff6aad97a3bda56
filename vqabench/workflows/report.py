"""`vqabench report`: gather the content of a report from runs and, if it is here, their data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vqabench.data.catalog.dataset import Dataset
from vqabench.data.prepare.digits import picture_regions
from vqabench.data.prepare.prepared import Prepared, prepare
from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.data.vqa.annotations import Question
from vqabench.errors import InputError, VqabenchError
from vqabench.evaluation.comparison import Comparison, find_plain
from vqabench.evaluation.findings import (
    ChangedPair,
    ChangedQuestion,
    Curve,
    DatasetFindings,
    Region,
    Reply,
    read_curve,
)
from vqabench.evaluation.pair import Pair, compare_pair
from vqabench.evaluation.prior import Counts, TypeShift, compare_answers, count_by_type, largest_shifts
from vqabench.evaluation.rows import Row
from vqabench.evaluation.run_answers import RunAnswers, find_changes, read_answered
from vqabench.events import Emit, Warn, ignore
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.attention import Attention, attend
from vqabench.workflows.comparison import compare
from vqabench.workflows.stored import OpenedDataset, StoredAnswers

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

EXAMPLES = 4
"""Of gains, and of losses."""

Pairs = list[tuple[Row, Row]]
"""Pairs of a strategy and its plain row."""


@dataclass(frozen=True)
class TestedSplit:
    """One split of a data set, with its annotations and images."""

    prepared: Prepared
    opened: OpenedDataset
    split: str
    """`test`, or `val` if there is no test split."""
    rows: dict[int, int]
    """Question id -> row of the prepared split."""

    @property
    def dataset(self) -> Dataset:
        """Return the data set."""
        return self.opened.dataset

    @property
    def questions(self) -> dict[int, Question]:
        """Return the questions by their ids."""
        return self.opened.questions[self.split]

    @property
    def table(self) -> AnnotationTable:
        """Return the annotations."""
        return self.opened.tables[self.split]


def _read_tested(rows: Sequence[Row], stored: StoredAnswers, emit: Emit) -> TestedSplit:
    """Read the split that the runs of one data set were tested on; nothing is fetched or prepared.

    Raises InputError if the data set is not prepared, is now in a state that none of them saw, or has no split
    to test on.
    """
    opened = stored.open_any(rows)
    dataset = opened.dataset
    split = next((name for name in ("test", "val") if name in dataset.scored), None)
    if split is None:
        raise InputError(f"{dataset.name} has neither a test nor a val split")
    prepared = prepare(dataset, emit)
    numbered = {number: row for row, number in enumerate(prepared.splits[split].question_ids.tolist())}
    return TestedSplit(prepared, opened, split, numbered)


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
        return _read_tested(rows, stored, emit), []
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
            described.append(_describe_pair(before, after, tested, emit))
        except (InputError, OSError) as error:
            missing.append(f"the questions that {after.title} changed are left out: {error}")
    return tuple(described)


def _describe_pair(before: Row, after: Row, tested: TestedSplit, emit: Emit) -> ChangedPair:
    """Describe what a strategy changed against plain runs, for the first seed that both have.

    Raises InputError if they share no seed, or answers are missing or not to the same questions.
    """
    seed, runs = _share_seed(before, after)
    (table, first), (other, second) = (read_answered(run, tested.split, tested.table) for run in runs)
    if table.question_ids.tolist() != other.question_ids.tolist():
        raise InputError(f"{runs[0].folder} and {runs[1].folder} answer different questions")
    changes = find_changes(first.accuracies_N, second.accuracies_N, table.question_types.strings(), EXAMPLES)
    chosen = [*changes.best, *changes.worst]
    missing, attention = _look(runs, tested, table.question_ids[chosen].tolist(), emit)
    sides = list(zip((first, second), attention, strict=True))
    described = [
        _describe(tested, table, row, *(_reply(answered, row, seen[place]) for answered, seen in sides))
        for place, row in enumerate(chosen)
    ]
    return ChangedPair(
        before,
        after,
        seed,
        tested.split,
        changes.questions,
        changes.gained,
        changes.lost,
        tuple(described[: len(changes.best)]),
        tuple(described[len(changes.best) :]),
        tuple(missing),
    )


def _share_seed(before: Row, after: Row) -> tuple[int, tuple[Run, Run]]:
    runs = [dict(zip(row.seeds, row.runs, strict=True)) for row in (before, after)]
    shared = sorted(runs[0].keys() & runs[1].keys())
    if not shared:
        raise InputError(f"{before.name} and {after.name} share no seed")
    return shared[0], (runs[0][shared[0]], runs[1][shared[0]])


def _look(
    runs: Sequence[Run], tested: TestedSplit, question_ids: Sequence[int], emit: Emit
) -> tuple[list[str], list[Sequence[Attention | None]]]:
    """Return notes on missing attention, and each run's attention to each question."""
    missing: list[str] = []
    attention: list[Sequence[Attention | None]] = []
    rows = [tested.rows[number] for number in question_ids]
    for run in runs:
        try:
            seen = attend(run, tested.dataset, tested.prepared, tested.split, rows, emit) if rows else []
            backbone = run.read_manifest().backbone
            missing += [f"no attention over regions: {backbone} gives none"] * (seen is None)
        except Exception as error:  # of a plugin, which may raise anything
            seen = None
            missing.append(f"no attention over regions: {error}")
            emit(Warn(missing[-1]))
        attention.append([None] * len(rows) if seen is None else seen)
    return list(dict.fromkeys(missing)), attention


def _reply(answered: RunAnswers, row: int, attention: Attention | None) -> Reply:
    sure = answered.confidences_N
    return Reply(
        answered.answers[row],
        None if sure is None else float(sure[row]),
        float(answered.accuracies_N[row]),
        attention,
    )


def _describe(
    tested: TestedSplit, table: AnnotationTable, row: int, before: Reply, after: Reply
) -> ChangedQuestion:
    asked = tested.questions[int(table.question_ids[row])]
    given = Counter(table.answers.names[code] for code in table.answers.codes[row].tolist())
    return ChangedQuestion(
        asked.question_id,
        asked.question,
        table.question_types.names[table.question_types.codes[row]],
        tuple(sorted(given.items(), key=lambda pair: (-pair[1], pair[0]))),
        before,
        after,
        _regions_of(tested, asked.question_id),
    )


def _regions_of(tested: TestedSplit, question_id: int) -> tuple[Region, ...]:
    features, spec = tested.prepared.features, tested.prepared.spec
    image = int(tested.prepared.splits[tested.split].image_rows[tested.rows[question_id]])
    real = range(int(features.counts[image]))
    pictures = picture_regions(tested.dataset, features.regions[image, : len(real)])
    names = [""] * len(real)
    if features.object_ids is not None and spec.object_names is not None:
        names = [spec.object_names[number] for number in features.object_ids[image].tolist()]
    boxes = features.boxes[image].tolist()
    return tuple(
        Region(tuple(boxes[number]), names[number], pictures[number] if pictures else None) for number in real
    )

"""`vqabench report`: gather the content of a report from runs and, if it is here, their data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from vqabench.evaluation.pair import compare_pair
from vqabench.evaluation.prior import Counts, TypeShift, compare_answers, count_by_type, largest_shifts
from vqabench.evaluation.rows import Row
from vqabench.evaluation.run_answers import RunAnswers, find_changes, read_answered
from vqabench.events import Emit, Warn, ignore
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.attention import Attention, attend
from vqabench.workflows.comparison import compare
from vqabench.workflows.stored import StoredAnswers

SPLITS = ("test", "val")
"""The first of them that is there is shown."""
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
    """The split that the runs of a data set were tested on, with its annotations and images."""

    dataset: Dataset
    prepared: Prepared
    name: str
    """`test`, or `val` if there is no test split."""
    questions: Mapping[int, Question]
    """By their ids."""
    train: AnnotationTable
    table: AnnotationTable
    """The annotations of its questions."""
    rows: dict[int, int]
    """Question id -> row of the prepared split."""


def _read_tested(rows: Sequence[Row], stored: StoredAnswers, emit: Emit) -> TestedSplit:
    """Read the split that the runs of one data set were tested on; nothing is fetched or prepared.

    Raises InputError if the data set is not prepared, is now in a state that none of them saw, or has no split
    to test on.
    """
    opened = stored.open_any(rows)
    dataset, tables = opened.dataset, opened.tables
    name = next((name for name in SPLITS if name in dataset.scored), None)
    if name is None:
        raise InputError(f"{dataset.name} has neither a test nor a val split")
    prepared = prepare(dataset, emit)
    numbered = {number: row for row, number in enumerate(prepared.splits[name].question_ids.tolist())}
    return TestedSplit(dataset, prepared, name, opened.questions[name], tables["train"], tables[name], numbered)


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
        missing: list[str] = []
        tested = None
        with _leaving_out("answer distributions and changed questions are left out", missing, VqabenchError):
            tested = _read_tested(rows, stored, emit)
        taken_apart = stored.break_down if prior and tested is not None else None
        comparison = compare(folders, one, paths, published=published, break_down=taken_apart)
        found.append(_gather(one, comparison, tested, stored, missing, emit))
    return found


@contextmanager
def _leaving_out(what: str, missing: list[str], expected: type[VqabenchError] = InputError) -> Iterator[None]:
    """Note in `missing` what is left out if an error ends this block, and why."""
    try:
        yield
    except (expected, OSError) as error:
        missing.append(f"{what}: {error}")


def _gather(
    name: str,
    comparison: Comparison,
    tested: TestedSplit | None,
    stored: StoredAnswers,
    missing: list[str],
    emit: Emit,
) -> DatasetFindings:
    curves: list[dict[str, Curve]] = []
    for row in comparison.rows:
        curves.append({})
        with _leaving_out(f"the learning curves of {row.title} are left out", missing):
            recorded = {split: read_curve(row.runs, split) for split in ("val", "test")}
            curves[-1] |= {split: curve for split, curve in recorded.items() if curve is not None}
    findings = DatasetFindings(name, comparison, tuple(curves), (), (), ())
    if tested is not None:
        seen = [row for row in comparison.rows if row.fingerprint == tested.prepared.fingerprint]
        # Each strategy with the plain row that its gains are against; the largest gain or loss comes first.
        pairs = sorted(find_plain(seen), key=lambda pair: -abs(_gain(pair[0])))
        shifts = _compare_answers(tested, _choose_rows(seen, pairs), missing, emit)
        described, tests = [], []
        for after, before in pairs[:PAIRS]:
            emit(f"{name}: questions that {after.title} changed")
            with _leaving_out(f"the questions that {after.title} changed are left out", missing):
                described.append(_describe_pair(before, after, tested, emit))
        for after, before in pairs[:TESTED]:
            with _leaving_out(f"{after.title} is not compared over questions", missing):
                tests.append(compare_pair(before, after, stored.read, listed=0, splits=(tested.name,)))
        findings = replace(findings, shifts=shifts, pairs=tuple(described), tests=tuple(tests))
    for message in missing:
        emit(Warn(message))
    return replace(findings, missing=tuple(missing))


def _gain(row: Row) -> float:
    gains = (row.cell(split).gain for split in SPLITS)
    return next((gain for gain in gains if gain is not None), 0.0)


def _choose_rows(rows: Sequence[Row], pairs: Pairs) -> list[Row]:
    """Return the rows whose answers are shown: plain runs, and the strategies with the largest gains over them."""
    if not pairs:
        return list(rows[:1])
    plain = pairs[0][1]
    return [plain, *[row for row, base in pairs if base is plain][:STRATEGIES]]


def _compare_answers(
    tested: TestedSplit, rows: Sequence[Row], missing: list[str], emit: Emit
) -> tuple[TypeShift, ...]:
    """Compare the answers of training and test with the predicted ones, all seeds of a row together."""
    emit(f"{tested.dataset.name}: answer distributions")
    splits = {
        name: count_by_type(table.question_types, table.modal_answers.strings())
        for name, table in (("train", tested.train), (tested.name, tested.table))
    }
    predicted: dict[str, Counts] = {}
    for row in rows:
        name = row.title if row.title not in predicted else f"{row.title} ({row.seeds[0]})"
        with _leaving_out(f"the answer distributions of {name} are left out", missing):
            counts: Counts = {}
            for run in row.runs:
                table, answered = read_answered(run, tested.name, tested.table)
                for kind, own in count_by_type(table.question_types, answered.answers).items():
                    counts.setdefault(kind, Counter()).update(own)
            predicted[name] = counts
    kinds = largest_shifts(splits["train"], splits[tested.name], TYPES)
    return tuple(compare_answers(kind, splits, predicted, ANSWERS) for kind in kinds)


def _describe_pair(before: Row, after: Row, tested: TestedSplit, emit: Emit) -> ChangedPair:
    """Describe what a strategy changed against plain runs, for the first seed that both have.

    Raises InputError if they share no seed, or answers are missing or not to the same questions.
    """
    own, other = (dict(zip(row.seeds, row.runs, strict=True)) for row in (before, after))
    if not own.keys() & other.keys():
        raise InputError(f"{before.name} and {after.name} share no seed")
    seed = min(own.keys() & other.keys())
    runs = own[seed], other[seed]
    (table, first), (answered, second) = (read_answered(run, tested.name, tested.table) for run in runs)
    if table.question_ids.tolist() != answered.question_ids.tolist():
        raise InputError(f"{runs[0].folder} and {runs[1].folder} answer different questions")
    changes = find_changes(first.accuracies_N, second.accuracies_N, table.question_types.strings(), EXAMPLES)
    chosen = [*changes.best, *changes.worst]
    missing: list[str] = []
    ids = table.question_ids[chosen].tolist()
    sides = [
        (answers, _look(run, tested, ids, missing, emit))
        for run, answers in zip(runs, (first, second), strict=True)
    ]
    described = [
        _describe(tested, table, row, *(_reply(answers, row, seen[place]) for answers, seen in sides))
        for place, row in enumerate(chosen)
    ]
    return ChangedPair(
        before,
        after,
        seed,
        tested.name,
        changes.questions,
        changes.gained,
        changes.lost,
        tuple(described[: len(changes.best)]),
        tuple(described[len(changes.best) :]),
        tuple(dict.fromkeys(missing)),
    )


def _look(
    run: Run, tested: TestedSplit, question_ids: Sequence[int], missing: list[str], emit: Emit
) -> Sequence[Attention | None]:
    """Return a run's attention to each question; why there is none is added to `missing`."""
    rows = [tested.rows[number] for number in question_ids]
    seen = None
    try:
        seen = attend(run, tested.dataset, tested.prepared, tested.name, rows, emit) if rows else []
        if seen is None:
            missing.append(f"no attention over regions: {run.read_manifest().backbone} gives none")
    except Exception as error:  # of a plugin, which may raise anything
        missing.append(f"no attention over regions: {error}")
        emit(Warn(missing[-1]))
    return [None] * len(rows) if seen is None else seen


def _reply(answered: RunAnswers, row: int, attention: Attention | None) -> Reply:
    sure = None if answered.confidences_N is None else float(answered.confidences_N[row])
    return Reply(answered.answers[row], sure, float(answered.accuracies_N[row]), attention)


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
        _read_regions(tested, asked.question_id),
    )


def _read_regions(tested: TestedSplit, question_id: int) -> tuple[Region, ...]:
    features, classes = tested.prepared.features, tested.prepared.spec.object_names
    image = int(tested.prepared.splits[tested.name].image_rows[tested.rows[question_id]])
    count = int(features.counts[image])
    pictures = picture_regions(tested.dataset, features.regions[image, :count])
    names = [""] * count
    if features.object_ids is not None and classes is not None:
        names = [classes[number] for number in features.object_ids[image].tolist()]
    boxes = features.boxes[image].tolist()
    return tuple(
        Region(tuple(boxes[number]), names[number], pictures[number] if pictures else None)
        for number in range(count)
    )

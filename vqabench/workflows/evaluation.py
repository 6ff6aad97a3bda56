"""`vqabench evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqabench.data.catalog.dataset import Dataset
from vqabench.data.vqa.accuracy import explain_oddities, find_oddities
from vqabench.data.vqa.annotation_table import AnnotationTable, read_annotation_table
from vqabench.data.vqa.annotations import Prediction, match, read_questions
from vqabench.data.vqa.result_files import read_results
from vqabench.errors import InputError
from vqabench.evaluation.scores import Scores, check_predictions, score
from vqabench.events import Emit, Warn, ignore
from vqabench.paths import Paths


def evaluate(
    predictions: Path,
    questions: Path,
    annotations: Path,
    emit: Emit = ignore,
    *,
    missing_is_wrong: bool = False,
) -> Scores:
    """Score any model's results file against a question and an annotation file.

    With `missing_is_wrong`, a question without an answer counts as wrong. Raises InputError if a file is broken,
    or the question ids of the three do not agree.
    """
    given = read_results(predictions)  # first: the smallest file, and the one most likely at fault
    asked, table = read_questions(questions), read_annotation_table(annotations)
    if not asked:
        raise InputError(f"{questions}: there are no questions in it")
    rows = match(asked, table.question_ids.tolist(), table.image_ids, f"{questions} and {annotations}")
    return _score(given, table.take(rows), predictions, str(annotations), emit, missing_is_wrong=missing_is_wrong)


def evaluate_on_dataset(
    predictions: Path,
    name: str,
    split: str,
    paths: Paths,
    emit: Emit = ignore,
    *,
    missing_is_wrong: bool = False,
) -> Scores:
    """Score a results file against a split of a data set of the catalogue.

    Raises InputError as `evaluate` does.
    """
    dataset = paths.dataset(name)
    dataset.require_scored(split)
    given = read_results(predictions)
    from vqabench.data.prepare.preparation import generate, prepare_files, read_question_ids  # slow to load

    skips = dataset.entry.images_without_features == "skip" and dataset.has_features()
    if skips:
        prepare_files(dataset, emit)
    generate(dataset, emit)
    dataset.check_questions_readable()
    _, table = dataset.read_split(split)
    if skips:  # preparation leaves out the questions of images without features
        table = table.choose(set(read_question_ids(dataset, split)))
    _check_split(given, table, dataset, split, predictions)
    return _score(given, table, predictions, f"{name}, split {split}", emit, missing_is_wrong=missing_is_wrong)


def _check_split(
    given: Sequence[Prediction], table: AnnotationTable, dataset: Dataset, split: str, source: Path
) -> None:
    """Raise InputError if all answers are to questions of another split of the data set."""
    answered = {prediction.question_id for prediction in given}
    if not answered or not answered.isdisjoint(table.question_ids.tolist()):
        return
    for other in dataset.scored:
        if other != split and answered <= {one.question_id for one in dataset.read_questions(other)}:
            raise InputError(
                f"{source}: its answers are to questions of the split {other}, not {split}: add --split {other}"
            )


def _score(
    given: Sequence[Prediction],
    table: AnnotationTable,
    source: Path,
    asked: str,
    emit: Emit,
    *,
    missing_is_wrong: bool,
) -> Scores:
    advice = "--missing wrong counts those without an answer as wrong"
    ids = table.question_ids.tolist()
    answers = check_predictions(given, ids, str(source), may_lack=missing_is_wrong, advice=advice)
    for line in explain_oddities({asked: find_oddities(table.answers, table.records)}):
        emit(Warn(line))
    return score(answers, table)

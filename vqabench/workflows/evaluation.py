"""`vqabench evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vqabench.data.annotation_reading import reading_annotations
from vqabench.data.annotation_table import AnnotationTable
from vqabench.data.annotations import match, read_predictions, read_questions
from vqabench.data.dataset import Dataset
from vqabench.errors import InputError
from vqabench.evaluation.scores import Scores, check_predictions, score
from vqabench.training.progress import Progress, Silence
from vqabench.workflows.places import Places


def evaluate(predictions: Path, questions: Path, annotations: Path) -> Scores:
    """Score any model's results file against a question and an annotation file.

    Raises InputError where a file is broken, or the question ids of the three do not agree.
    """
    with reading_annotations(annotations) as read:
        asked, answered = read_questions(questions), read_predictions(predictions)
        table = read()
    if not asked:
        raise InputError(f"{questions}: there are no questions in it")
    ids = table.question_ids.tolist()
    rows = match(asked, ids, table.image_ids, f"{questions} and {annotations}")
    return score(check_predictions(answered, ids, str(predictions)), table.take(rows))


def evaluate_on_dataset(
    predictions: Path, name: str, split: str, places: Places, progress: Progress | None = None
) -> Scores:
    """Score a results file against a split of a data set of the catalogue.

    Raises InputError as `evaluate` does.
    """
    dataset = places.dataset(name)
    dataset.require_scored(split)
    table = _read_asked(dataset, split, (progress or Silence()).say)
    answers = check_predictions(read_predictions(predictions), table.question_ids.tolist(), str(predictions))
    return score(answers, table)


def _read_asked(dataset: Dataset, split: str, say: Callable[[str], None]) -> AnnotationTable:
    """Read the annotations of a split, without the questions that preparation leaves out."""
    from vqabench.data.preparation import generate, prepare_files, read_question_ids  # slow to load

    skips = dataset.entry.images_without_features == "skip" and dataset.has_features()
    if skips:
        prepare_files(dataset, say)
    generate(dataset, say)
    dataset.see_questions()
    _, table = dataset.read_split(split)
    return table.choose(set(read_question_ids(dataset, split))) if skips else table

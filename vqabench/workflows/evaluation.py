"""`vqabench evaluate`."""

from __future__ import annotations

from pathlib import Path

from vqabench.data.annotation_reading import reading_annotations
from vqabench.data.annotations import match, read_predictions, read_questions
from vqabench.errors import InputError, unknown
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
    if split not in dataset.splits:
        raise InputError(unknown(f"split of {name}", split, dataset.splits))
    from vqabench.data.preparation import prepare_files, read_question_ids  # scoring plain files does without

    prepare_files(dataset, (progress or Silence()).say)
    asked = read_question_ids(dataset, split)
    answers = check_predictions(read_predictions(predictions), asked, str(predictions))
    _, table = dataset.read_split(split)
    return score(answers, table.choose(set(asked)))

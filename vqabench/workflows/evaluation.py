"""`vqabench evaluate`."""

from __future__ import annotations

from pathlib import Path

from vqabench.data.annotations import check_answers, pair, read_annotations, read_predictions, read_questions
from vqabench.errors import InputError, unknown
from vqabench.evaluation.scores import Scores, check_predictions, score
from vqabench.training.progress import Progress, Silence
from vqabench.workflows.places import Places


def evaluate(predictions: Path, questions: Path, annotations: Path) -> Scores:
    """Score any model's results file against a question and an annotation file.

    Raises InputError where a file is broken, or the question ids of the three do not agree.
    """
    where = f"{questions} and {annotations}"
    paired = pair(read_questions(questions), read_annotations(annotations), where)
    check_answers(paired, where)
    return score(check_predictions(read_predictions(predictions), paired, str(predictions)), paired)


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
    asked = set(read_question_ids(dataset, split))
    annotations = [a for a in dataset.read_split(split)[1] if a.question_id in asked]
    return score(check_predictions(read_predictions(predictions), annotations, str(predictions)), annotations)

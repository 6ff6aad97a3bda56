from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.tables import ask
from vqabench.data.vqa.annotations import Prediction, SurePrediction, write_predictions
from vqabench.errors import InputError
from vqabench.evaluation.run_answers import read_answered
from vqabench.evaluation.scores import score
from vqabench.results import Run

TABLE = ask([("what", "red"), ("what", "blue"), ("is the", "yes")])


def test_answers_and_confidences_stand_in_the_order_of_the_table(tmp_path: Path) -> None:
    run = Run(tmp_path)
    given = [SurePrediction(2, "yes", 0.75), SurePrediction(0, "blue", 0.5), SurePrediction(1, "blue", 0.25)]
    write_predictions(run.predictions_file("val"), given)
    asked, answered = read_answered(run, "val", TABLE)
    assert asked is TABLE
    assert answered.answers == ["blue", "blue", "yes"]
    assert answered.accuracies_N.tolist() == [0, 1, 1]
    assert answered.confidences_N is not None
    assert answered.confidences_N.tolist() == [0.5, 0.25, 0.75]
    expected = score({one.question_id: one.answer for one in given}, TABLE).accuracy["all"]
    assert 100 * answered.accuracies_N.mean() == pytest.approx(expected)


def test_questions_that_a_data_set_skips_are_left_out_of_the_table(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_predictions(run.predictions_file("test"), [Prediction(2, "yes"), Prediction(0, "red")])
    asked, answered = read_answered(run, "test", TABLE)
    assert asked.question_ids.tolist() == [0, 2]
    assert answered.answers == ["red", "yes"]


def test_confidences_are_of_every_question_or_none(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_predictions(run.predictions_file("test"), [SurePrediction(0, "red", 0.0), SurePrediction(1, "red")])
    assert read_answered(run, "test", TABLE)[1].confidences_N is None
    write_predictions(run.predictions_file("test"), [SurePrediction(0, "red", 0.0), SurePrediction(1, "red", 1.0)])
    assert read_answered(run, "test", TABLE)[1].confidences_N is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"question_id": 7, "answer": "red"}], "questions that do not exist: 1 (ids 7)"),
        (
            [{"question_id": 1, "answer": text} for text in ("red", "blue")],
            "questions answered more than once, with different answers: 1 (ids 1)",
        ),
        ([], "there are no answers in it"),
        ([{"question_id": 1, "answer": "red", "confidence": 1.5}], "Expected `float` <= 1.0"),
        ([{"question_id": 1}], "missing required field `answer`"),
    ],
)
def test_answers_that_do_not_fit_the_annotations_are_refused(
    tmp_path: Path, given: list[dict[str, Any]], message: str
) -> None:
    run = Run(tmp_path)
    run.predictions_file("test").write_text(json.dumps(given))
    with pytest.raises(InputError) as caught:
        read_answered(run, "test", TABLE)
    assert str(caught.value).startswith(str(run.predictions_file("test")))
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"predictions\.test\.json: there is no such file"):
        read_answered(Run(tmp_path), "test", TABLE)

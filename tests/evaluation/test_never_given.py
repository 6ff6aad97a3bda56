"""Rows that answer questions with answers of other question types are named, whatever their method is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.runs import write_run
from tests.tiny import write_tiny
from tests.training.runs import places_in
from vqabench.data.catalog.dataset import Dataset
from vqabench.data.prepare.prepared import prepare
from vqabench.data.vqa.annotations import SurePrediction, read_questions, write_predictions
from vqabench.errors import InputError
from vqabench.evaluation.comparison import compare
from vqabench.evaluation.notes import warn_of_never_given
from vqabench.evaluation.scores import CATEGORIES, Scores
from vqabench.paths import Paths
from vqabench.results import Run, find_runs
from vqabench.workflows import comparison as workflow


def nowhere(name: str) -> Dataset:
    raise InputError(f"unknown dataset {name!r}")


def write_scores(run: Run, yes_no: float | None) -> None:
    values: dict[str, float | None] = {name: yes_no if name == "yes/no" else 50.0 for name in CATEGORIES}
    form = Scores(10, values, values, {})
    run.scores_file.write_bytes(msgspec.json.encode({"test": form, "val": form}))


@pytest.mark.parametrize(
    ("yes_no", "noted"), [(0.0, True), (9.99, True), (10.0, False), (35.0, False), (90.0, False), (None, False)]
)
def test_without_the_data_only_what_is_worse_than_guessing_is_named(
    tmp_path: Path, yes_no: float | None, noted: bool
) -> None:
    write_scores(write_run(tmp_path, 40.0), yes_no)
    notes = warn_of_never_given(compare(find_runs([tmp_path])).rows, nowhere)
    assert (len(notes) == 1) == noted
    if noted:
        assert notes[0].endswith("less than guessing yes or no scores: do not rank it by d")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    paths = places_in(tmp_path_factory.mktemp("tiny"))
    prepare(paths.dataset("tiny"), lambda _: None)
    return paths


def write_answers(paths: Paths, folder: Path, colour_to_numbers: bool, **about: Any) -> Run:
    """Write a run that gives every question one answer of its type or, to those on numbers, one of another."""
    dataset = paths.dataset("tiny")
    fingerprint = prepare(dataset, lambda _: None).fingerprint
    run = write_run(folder, 0.0, dataset="tiny", **{"fingerprint": fingerprint} | about)
    questions = read_questions(paths.catalog.parent / "test_questions.json")  # type: ignore[union-attr]
    given = []
    for one in questions:
        colour = colour_to_numbers or one.question.startswith("What color")
        given.append(SurePrediction(one.question_id, "red" if colour else "1"))
    write_predictions(run.predictions_file("test"), given)
    return run


def test_answers_that_training_never_gave_to_a_type_are_counted(prepared: Paths, tmp_path: Path) -> None:
    write_answers(prepared, tmp_path / "runs", colour_to_numbers=True)
    write_answers(prepared, tmp_path / "runs", colour_to_numbers=False, loss="focal")
    paths = Paths(tmp_path / "runs", prepared.data, prepared.catalog)
    comparison = workflow.compare([], None, paths)
    (note,) = [note for note in comparison.notes if "do not rank it by" in note]
    assert note == (
        "updn ce-plain: 50% of its answers to test never occur with their question type in training, such as "
        "“how many” (100%): do not rank it by tiny"
    )


def test_runs_on_another_state_of_the_data_are_judged_by_their_scores_alone(
    prepared: Paths, tmp_path: Path
) -> None:
    write_answers(prepared, tmp_path / "runs", colour_to_numbers=True, fingerprint="old")
    comparison = workflow.compare([], None, Paths(tmp_path / "runs", prepared.data, prepared.catalog))
    assert any("less than guessing yes or no scores" in note for note in comparison.notes)


@pytest.mark.parametrize("content", [b"", b"[", b'[{"question_id": 987654321, "answer": "red"}]'])
def test_answers_that_cannot_be_read_stop_nothing(prepared: Paths, tmp_path: Path, content: bytes) -> None:
    run = write_answers(prepared, tmp_path / "runs", colour_to_numbers=True)
    run.predictions_file("test").write_bytes(content)
    comparison = workflow.compare([], None, Paths(tmp_path / "runs", prepared.data, prepared.catalog))
    assert any("less than guessing yes or no scores" in note for note in comparison.notes)


def test_nothing_is_prepared_to_look_into_answers(tmp_path: Path) -> None:
    catalog = write_tiny(tmp_path / "own")
    write_run(tmp_path / "runs", 0.0, dataset="tiny")
    workflow.compare([], None, Paths(tmp_path / "runs", tmp_path / "data", catalog))
    assert not (tmp_path / "data").exists()

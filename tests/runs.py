"""Runs that were never trained: manifests, scores and answers, written straight to their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from vqabench.data.vqa.annotation_table import AnnotationTable, tabulate
from vqabench.data.vqa.annotations import ANNOTATORS, Annotation, Answer, SurePrediction, write_predictions
from vqabench.evaluation.comparison import compare
from vqabench.evaluation.rows import Row
from vqabench.evaluation.run_answers import RunAnswers, read_answered
from vqabench.evaluation.scores import Scores, TypeScore, score
from vqabench.results import Manifest, Run, find_runs

PUBLISHED = {"vqa-cp-v2": 219_928, "vqa-v2": 214_354}
"""Questions of the test split of a published data set; ten of any other."""
QUESTIONS = 240
"""Questions of `TABLE`, which `write_answers` answers."""


def make_manifest(**changes: Any) -> Manifest:
    """Return the manifest of a finished run of UpDn, with these changes."""
    fields: dict[str, Any] = {
        "dataset": "d",
        "backbone": "updn",
        "objective": "ce",
        "loss": "plain",
        "label": "",
        "seed": 0,
        "options": {"backbone": {"hidden": 8}},
        "distributions": {"plain": "vqabench"},
        "recipe": {"epochs": 3},
        "stages": [],
        "select": "last",
        "fingerprint": "f",
        "versions": {},
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "parameters": 1,
        "started": "2026-01-01T00:00:00+00:00",
        "status": "finished",
    }
    return Manifest(**(fields | changes))


def write_run(folder: Path, all_: float | None, *, seed: int = 0, loss: str = "plain", **changes: Any) -> Run:
    """Write a finished run below `folder` with the same accuracy in every category of both splits."""
    manifest = make_manifest(**({"seed": seed, "loss": loss, "distributions": {loss: "vqabench"}} | changes))
    run = Run(folder / f"{loss}-{manifest.label}-{seed}")
    run.folder.mkdir(parents=True)
    run.write_manifest(manifest)
    values: dict[str, float | None] = dict.fromkeys(("yes/no", "number", "other", "all"), all_)
    questions = PUBLISHED.get(manifest.dataset, 10)
    scores = Scores(questions, values, values, {"how many": TypeScore(4, all_ or 0.0)})
    run.scores_file.write_bytes(msgspec.json.encode({"test": scores, "val": scores}))
    return run


def annotate(number: int) -> Annotation:
    """Ask two questions about each image; one in three is answered by yes or no, the others by a number."""
    answer = ("yes", "2", "3")[number % 3]
    answers = tuple(Answer(answer if k < 8 else "no", "yes", k + 1) for k in range(ANNOTATORS))
    kind = ("is the", "yes/no") if answer == "yes" else ("how many", "number")
    return Annotation(number, number // 2, *kind, answers, answer)


TABLE = tabulate(map(annotate, range(QUESTIONS)))


def read(run: Run, manifest: Manifest, split: str) -> tuple[AnnotationTable, RunAnswers]:
    """Read a run's answers to the questions of `TABLE`."""
    return read_answered(run, split, TABLE)


def write_answers(folder: Path, given: Sequence[str], **about: Any) -> None:
    """Write a finished run with these answers to test, and the scores that they earn."""
    run = write_run(folder, 0.0, **about)
    write_predictions(run.predictions_file("test"), [SurePrediction(n, answer) for n, answer in enumerate(given)])
    run.scores_file.write_bytes(msgspec.json.encode({"test": score(dict(enumerate(given)), TABLE)}))


def side(right: range, seed: int) -> list[str]:
    """Answer the questions of a range correctly, except five that the seed draws, and the others wrongly."""
    wrong = set(np.random.default_rng(seed).choice(QUESTIONS, 5, replace=False).tolist())
    return [
        TABLE.modal_answers.strings()[n] if n in right and n not in wrong else "a giraffe" for n in range(QUESTIONS)
    ]


def write_rows(folder: Path) -> tuple[Row, Row]:
    """Write three seeds of `plain` and of `rescale`, which answer other questions correctly; return their rows."""
    for seed in range(3):
        write_answers(folder, side(range(100), seed), seed=seed)
        write_answers(folder, side(range(60, 200), 10 + seed), seed=seed, loss="rescale")
    plain, rescale = compare(find_runs([folder])).rows
    return plain, rescale

"""Time the breakdowns of the stored answers of one run: `python benchmarks/breakdown_speed.py`.

There are 220,000 questions, about the size of the VQA-CP v2 test split, and 440,000 training questions.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.evaluate_speed import make_data
from vqabench.data.vqa.annotation_table import tabulate
from vqabench.data.vqa.annotations import Prediction, SurePrediction, write_predictions
from vqabench.data.vqa.answers import vocabulary
from vqabench.evaluation.prior import count_train_prior, group_questions, prior_reliance
from vqabench.evaluation.run_answers import break_down, calibrate, read_answered, upper_bound
from vqabench.results import Run

Result = TypeVar("Result")


def timed(name: str, compute: Callable[[], Result]) -> Result:
    wall, cpu = time.perf_counter(), time.process_time()
    result = compute()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name}: {wall:.2f} s ({cpu:.2f} s of CPU)")
    return result


def keep_confidences(predictions: list[Prediction]) -> list[SurePrediction]:
    generator = random.Random(0)
    return [SurePrediction(one.question_id, one.answer, round(generator.random(), 4)) for one in predictions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=220_000)
    questions = parser.parse_args().questions
    _, annotations, predictions = make_data(3 * questions)
    test, train = tabulate(annotations[:questions]), tabulate(annotations[questions:])
    answers = vocabulary(train.modal_answers.counts(), 9)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        write_predictions(run.predictions_file("test"), keep_confidences(predictions[:questions]))
        prior = timed("count_train_prior", lambda: count_train_prior(train))
        for state in ("cold", "warm"):
            asked, answered = timed(f"read_answered, {state}", lambda: read_answered(run, "test", test))
            timed(f"break_down, {state}", partial(break_down, answered, asked, prior, answers))
    sure = answered.confidences_N
    assert sure is not None
    timed("  of it, group_questions", lambda: group_questions(asked, prior))
    timed("  of it, prior_reliance", lambda: prior_reliance(answered.answers, asked, prior))
    timed("  of it, calibrate", lambda: calibrate(answered.accuracies_N, sure))
    timed("  of it, upper_bound", lambda: upper_bound(asked, answers))


if __name__ == "__main__":
    main()

"""Time the evaluation of 220,000 predictions, about the size of the VQA-CP v2 test split.

`python benchmarks/evaluate_speed.py` times the whole command, `--in-process` only the scoring.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vqabench.data.vqa.annotation_table import tabulate
from vqabench.data.vqa.annotations import (
    Annotation,
    Answer,
    Prediction,
    Question,
    write_annotations,
    write_predictions,
    write_questions,
)
from vqabench.evaluation.scores import check_predictions, score

QUESTION_TYPES = {
    "yes/no": ("is the", "are there", "does this"),
    "number": ("how many", "what number is"),
    "other": ("what color is the", "where is the", "what is"),
}
CONFIDENCES = ("yes", "maybe", "no")


def make_answers(generator: random.Random, pool: list[str]) -> tuple[Answer, ...]:
    """Return ten answers in about 2.4 spellings, as in VQA v2: most annotators agree, some spell it differently."""
    common = generator.choice(pool)
    variants = (common, f"{common}.", f"the {common}", f" {common.title()}", generator.choice(pool), "none")
    strays = generator.choices(variants, k=generator.choice((0, 0, 1, 2, 3, 4, 6)))
    texts = generator.sample([*strays, *[common] * (10 - len(strays))], 10)
    return tuple(Answer(text, generator.choice(CONFIDENCES), number) for number, text in enumerate(texts, 1))


def make_data(questions: int) -> tuple[list[Question], list[Annotation], list[Prediction]]:
    generator = random.Random(0)
    pools = {
        "yes/no": ["yes", "no"],
        "number": [str(number) for number in range(60)],
        "other": [f"{size} thing{number}" for size in ("red", "big", "1,000", "don't") for number in range(5000)],
    }
    asked, annotations, predictions = [], [], []
    for number in range(questions):
        answer_type = generator.choices(tuple(pools), weights=(38, 12, 50))[0]
        question_type = generator.choice(QUESTION_TYPES[answer_type])
        answers = make_answers(generator, pools[answer_type])
        asked.append(Question(number, number // 3, f"{question_type} thing?"))
        annotations.append(Annotation(number, number // 3, question_type, answer_type, answers, answers[0].answer))
        right = generator.random() < 0.5
        predictions.append(Prediction(number, answers[1].answer if right else generator.choice(pools[answer_type])))
    return asked, annotations, predictions


def time_scoring(annotations: list[Annotation], predictions: list[Prediction]) -> None:
    for state in ("cold", "warm"):
        wall, cpu = time.perf_counter(), time.process_time()
        table = tabulate(annotations)
        scores = score(check_predictions(predictions, table.question_ids.tolist(), "predictions"), table)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"score, {state}: {wall:.2f} s ({cpu:.2f} s of CPU), accuracy {scores.accuracy['all']:.2f}")


def time_command(asked: list[Question], annotations: list[Annotation], predictions: list[Prediction]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_questions(folder / "questions.json", asked)
        write_annotations(folder / "annotations.json", annotations)
        write_predictions(folder / "predictions.json", predictions)
        command = [sys.executable, "-m", "vqabench", "evaluate", str(folder / "predictions.json")]
        command += ["--questions", str(folder / "questions.json")]
        command += ["--annotations", str(folder / "annotations.json")]
        start = time.perf_counter()
        subprocess.run([*command, "--json"], check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        start = time.perf_counter()
        json.loads((folder / "annotations.json").read_bytes())
        reading = time.perf_counter() - start
        ratio = f"{wall / reading:.1f} times the json module's {reading:.2f} s of reading the annotations alone"
        print(f"vqabench evaluate: {wall:.2f} s, {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-process", action="store_true", help="time the scoring alone")
    parser.add_argument("--questions", type=int, default=220_000)
    arguments = parser.parse_args()
    asked, annotations, predictions = make_data(arguments.questions)
    if arguments.in_process:
        time_scoring(annotations, predictions)
    else:
        time_command(asked, annotations, predictions)


if __name__ == "__main__":
    main()

"""Time preparation and evaluation at the full size of VQA-CP v2: 438,183 training and 219,928 test questions.

`python benchmarks/full_scale.py --folder DIR` writes files of this size into DIR unless they exist (65 question
types, Zipf's law over answers and words, 2.3 spellings per question, 27 distinct texts per 100 test questions),
then runs `vqabench data prepare` and `vqabench evaluate`. It prints seconds, peak memory, and the ratio to the
time in which the standard library's json module reads the same annotations in the same run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path

import numpy as np

from vqabench.data.features.store import write_features
from vqabench.data.vqa.annotations import (
    Annotation,
    Answer,
    Prediction,
    Question,
    write_annotations,
    write_predictions,
    write_questions,
)

SIZES = {"train": 438_183, "test": 219_928}
IMAGES = 123_287
TYPES = [("yes/no", f"is the {n}") for n in range(25)] + [("number", f"how many {n}") for n in range(5)]
TYPES += [("other", f"what {n} is the") for n in range(35)]
CONFIDENCES = ("yes", "yes", "maybe", "no")
CATALOG = """
[full]
title = "files of the size of VQA-CP v2"
features = "features.h5"
splits.train = { questions = "train_questions.json", annotations = "train_annotations.json" }
splits.test = { questions = "test_questions.json", annotations = "test_annotations.json" }
"""

# In a process of its own: a child begins with the peak memory of its parent.
READING = """
import json, pathlib, sys, time
start = time.perf_counter()
json.loads(pathlib.Path(sys.argv[1]).read_bytes())
print(time.perf_counter() - start)
"""


class Zipf:
    """Draw names, the k-th with a share proportional to 1 / k."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.weights = names, list(accumulate(1 / k for k in range(1, len(names) + 1)))

    def draw(self, generator: random.Random, count: int = 1) -> list[str]:
        return generator.choices(self.names, cum_weights=self.weights, k=count)


def write_files(folder: Path) -> None:
    generator = random.Random(0)
    words = Zipf([f"word{n}" for n in range(14_000)])
    pools = {
        "yes/no": Zipf(["yes", "no"]),
        "number": Zipf([str(n) for n in range(200)]),
        "other": Zipf([f"thing{n}" if n % 3 else f"red thing{n}" for n in range(60_000)]),
    }
    first = 0
    for split, count in SIZES.items():
        questions, annotations, predictions = [], [], []
        texts: list[tuple[str, str, str]] = []
        for number in range(first, first + count):
            if not texts or generator.random() < 0.37:
                answer_type, question_type = generator.choice(TYPES)
                phrase = " ".join(words.draw(generator, generator.randint(2, 5)))
                texts.append((answer_type, question_type, f"{question_type.capitalize()} {phrase}?"))
            answer_type, question_type, text = generator.choice(texts)
            (common,) = pools[answer_type].draw(generator)
            strays = pools[answer_type].draw(generator, generator.choice((0, 0, 1, 2, 3, 5)))
            spelled = [*strays, *[common] * (10 - len(strays))]
            generator.shuffle(spelled)
            given = tuple(Answer(said, generator.choice(CONFIDENCES), k) for k, said in enumerate(spelled, 1))
            image = generator.randrange(IMAGES)
            questions.append(Question(number, image, text))
            annotations.append(Annotation(number, image, question_type, answer_type, given, common))
            predictions.append(Prediction(number, given[0].answer))
        first += count
        write_questions(folder / f"{split}_questions.json", questions)
        write_annotations(folder / f"{split}_annotations.json", annotations)
        write_predictions(folder / f"{split}_predictions.json", predictions)
    write_features(
        folder / "features.h5",
        regions=np.ones((IMAGES, 1, 4), np.float16),
        boxes=np.zeros((IMAGES, 1, 4), np.float32),
        counts=np.ones(IMAGES, np.int32),
        image_ids=np.arange(IMAGES),
    )
    (folder / "catalog.toml").write_text(CATALOG)


def measure(name: str, command: list[str], folder: Path, reading: float) -> None:
    """Run a command; its peak memory comes from the kernel."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "vqabench", *command], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    assert status == 0, status
    print(f"{name}: {wall:.2f} s, {usage.ru_maxrss / 1e6:.2f} GB, {wall / reading:.2f} times the json module")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "catalog.toml").is_file():
        writer = multiprocessing.Process(target=write_files, args=(folder,))
        writer.start()
        writer.join()
    seconds = {}
    for split in SIZES:
        seconds[split] = float(
            subprocess.check_output([sys.executable, "-c", READING, folder / f"{split}_annotations.json"])
        )
    (folder / "full" / "prepared.h5").unlink(missing_ok=True)
    prepare = ["data", "prepare", "full", "--catalog", "catalog.toml", "--data-dir", "."]
    measure("data prepare", prepare, folder, sum(seconds.values()))
    evaluate = ["evaluate", "test_predictions.json", "--questions", "test_questions.json"]
    measure("evaluate", [*evaluate, "--annotations", "test_annotations.json"], folder, seconds["test"])


if __name__ == "__main__":
    main()

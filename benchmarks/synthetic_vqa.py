"""Write synthetic files with the shape of VQA-CP v2, of any size, to measure training speed on."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.full_scale import Zipf
from vqabench.data.features.regions import Regions
from vqabench.data.features.writer import FeatureWriter
from vqabench.data.vqa.annotations import Annotation, Answer, Question, write_annotations, write_questions
from vqabench.paths import Paths

DATASET = "synthetic"
WIDTH, ANSWERS, TYPES, WORDS = 2048, 2274, 65, 14_000
VAL, TEST = 512, 1024
DISTINCT_IMAGES = 64
"""The features of so many images are drawn, then written over and over."""
LENGTHS = dict(
    zip(
        range(2, 21),
        (2, 1848, 6835, 15393, 11578, 11805, 6057, 3047, 1638, 846, 454, 213, 134, 56, 38, 26, 18, 11, 1),
        strict=True,
    )
)
"""Words -> how many of 60,000 questions of VQA v2 have so many; 6.3 on average."""
DISTINCT_ANSWERS = (21247, 16675, 6637, 4049, 3103, 2432, 2159, 1864, 1236, 598)
"""How many of them were given 1, 2, ... 10 different answers; 2.8 on average."""
CATALOG = f"""
[{DATASET}]
title = "files of the shape of VQA-CP v2"
features = "features.h5"
minimum_answer_count = 1
splits.train = {{ questions = "train_questions.json", annotations = "train_annotations.json" }}
splits.val = {{ questions = "val_questions.json", annotations = "val_annotations.json" }}
splits.test = {{ questions = "test_questions.json", annotations = "test_annotations.json" }}
"""


@dataclass(frozen=True)
class Sizes:
    """The number of questions and images. Below 2,274 questions, the vocabulary is as small as their number."""

    questions: int
    images: int
    regions: int

    def folder(self, parent: Path) -> Path:
        return parent / f"{self.questions}-questions-{self.images}-images-{self.regions}-regions"


def paths(folder: Path, runs: Path | None = None) -> Paths:
    return Paths(runs or folder / "runs", folder, folder / "catalog.toml")


def make(parent: Path, sizes: Sizes) -> Path:
    """Write and prepare the files of these sizes unless they exist, and return their folder."""
    folder = sizes.folder(parent)
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / "complete"
    if not marker.is_file():
        _write_texts(folder, sizes)
        _write_features(folder / "features.h5", sizes)
        (folder / "catalog.toml").write_text(CATALOG)
        marker.write_text(f"{sizes}\n")
    command = [sys.executable, "-m", "vqabench", "data", "prepare", DATASET, "--data-dir", str(folder)]
    subprocess.run([*command, "--catalog", str(folder / "catalog.toml")], check=True, stdout=subprocess.DEVNULL)
    return folder


def _write_texts(folder: Path, sizes: Sizes) -> None:
    generator = random.Random(0)
    writer = _Writer(generator, min(ANSWERS, sizes.questions))
    first = 0
    for split, count in (("train", sizes.questions), ("val", VAL), ("test", TEST)):
        numbers = range(first, first + count)
        questions, annotations = [], []
        for number in numbers:
            image, kind = generator.randrange(sizes.images), generator.randrange(TYPES)
            questions.append(Question(number, image, writer.ask(kind)))
            annotations.append(writer.annotate(number, image, kind))
        first += count
        write_questions(folder / f"{split}_questions.json", questions)
        write_annotations(folder / f"{split}_annotations.json", annotations)


class _Writer:
    def __init__(self, generator: random.Random, answers: int) -> None:
        self.generator = generator
        names = [f"answer{n}" for n in range(answers)]
        self.names = names
        # Every type has other favourites among the same answers.
        turns = [30 * kind % answers for kind in range(TYPES)]
        self.answers = [Zipf([*names[turn:], *names[:turn]]) for turn in turns]
        words = [f"word{n}" for n in range(WORDS)]
        self.words, self.rare_words = Zipf(words), cycle(words)
        self.lengths, self.shares = list(LENGTHS), list(LENGTHS.values())

    def ask(self, kind: int) -> str:
        """Return two words for the type, then common words, alternating with every word there is."""
        (length,) = self.generator.choices(self.lengths, self.shares)
        common = self.words.draw(self.generator, length - 2)
        words = [next(self.rare_words) if n % 2 else word for n, word in enumerate(common)]
        return f"{' '.join([f'Kind{kind}', 'of', *words])}?"

    def annotate(self, number: int, image: int, kind: int) -> Annotation:
        """Annotate a question. Every answer is the most common one of some question, and enters the vocabulary."""
        (drawn,) = self.answers[kind].draw(self.generator)
        common = self.names[number] if number < len(self.names) else drawn
        (strays,) = self.generator.choices(range(10), DISTINCT_ANSWERS)
        given = [*self.answers[kind].draw(self.generator, strays), *[common] * (10 - strays)]
        answers = tuple(Answer(text, "yes", n) for n, text in enumerate(given, 1))
        return Annotation(number, image, f"kind{kind} of", "other", answers, common)


def _write_features(path: Path, sizes: Sizes) -> None:
    """Write outputs of ReLUs: half of the numbers are 0."""
    generator = np.random.default_rng(0)
    shape = (DISTINCT_IMAGES, sizes.regions, WIDTH)
    block = np.maximum(generator.normal(size=shape), 0).astype(np.float16)
    boxes = np.tile(np.array([0.25, 0.25, 0.75, 0.75], np.float32), (sizes.regions, 1))
    with FeatureWriter(path, source=str(sizes), origin=str(sizes), dtype=np.float16) as writer:
        for image in range(writer.seen, sizes.images):
            writer.append(image, path.name, Regions(block[image % DISTINCT_IMAGES], boxes))
        writer.finish()

"""A data set of 60 training and 12 test questions, or more, as files of the user, written in milliseconds."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vqabench.data.vqa.annotations import Annotation, Answer, Question, write_annotations, write_questions

CATALOG = """
[tiny]
title = "a few questions"
features = "features.tsv"
minimum_answer_count = 2
question_length = 6

[tiny.splits.train]
questions = "train_questions.json"
annotations = "train_annotations.json"

[tiny.splits.val]
questions = "val_questions.json"
annotations = "val_annotations.json"

[tiny.splits.test]
questions = "test_questions.json"
annotations = "test_annotations.json"
"""
SIZES = {"train": 60, "val": 12, "test": 12}
IMAGES = 6
WIDTH = 8


def questions_of(
    split: str, sizes: Mapping[str, int] = SIZES, images: int = IMAGES
) -> tuple[list[Question], list[Annotation]]:
    """Return questions about sheep and colours, whose answers depend on the image alone."""
    first = {"train": 0, "val": 1000, "test": 2000}[split]
    questions, annotations = [], []
    for number in range(sizes[split]):
        image = number % images
        counting = number % 2 == 0
        text = "How many sheep are there?" if counting else "What color is the sheep's wool?"
        answer = str(image % 3) if counting else ("red", "blue", "white")[image % 3]
        answers = tuple(Answer(answer if k < 8 else "yes", "yes", k + 1) for k in range(10))
        kind = ("how many", "number") if counting else ("what color is the", "other")
        questions.append(Question(first + number, image, text))
        annotations.append(Annotation(first + number, image, *kind, answers, answer))
    return questions, annotations


def write_tsv(path: Path, width: int = WIDTH, images: int = IMAGES) -> None:
    """Write features in the bottom-up layout: 2 or 3 regions per image."""
    rng = np.random.default_rng(0)
    lines = []
    for image in range(images):
        count = 2 + image % 2
        boxes = np.sort(rng.uniform(0, 100, (count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
        features = rng.normal(image, 0.1, (count, width)).astype(np.float32)
        columns = [
            str(image),
            "200",
            "100",
            str(count),
            *(base64.b64encode(a.tobytes()).decode() for a in (boxes, features)),
        ]
        lines.append("\t".join(columns) + "\n")
    path.write_text("".join(lines))


def write_tiny(folder: Path, sizes: Mapping[str, int] = SIZES, images: int = IMAGES) -> Path:
    """Write the whole data set, with up to 1000 questions of `train` and `val`; return its catalogue."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SIZES:
        questions, annotations = questions_of(split, sizes, images)
        write_questions(folder / f"{split}_questions.json", questions)
        write_annotations(folder / f"{split}_annotations.json", annotations)
    write_tsv(folder / "features.tsv", images=images)
    catalog = folder / "catalog.toml"
    catalog.write_text(CATALOG)
    return catalog

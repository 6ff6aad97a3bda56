"""Generate `digits-cp`, the embedded benchmark: a small controlled study of changing priors."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.catalog.dataset import Dataset
from vqabench.data.features.store import write_features
from vqabench.data.vqa.annotations import Annotation, Answer, Question, write_annotations, write_questions

VERSION = 1
"""Seed of everything below, and name of the generated data: any change to the data needs another number."""

COLORS = {
    "red": (0.90, 0.10, 0.10),
    "orange": (0.95, 0.55, 0.10),
    "yellow": (0.90, 0.90, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.15, 0.25, 0.95),
    "purple": (0.60, 0.15, 0.80),
    "pink": (0.95, 0.55, 0.75),
    "white": (0.95, 0.95, 0.95),
}
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

QUESTIONS = {"train": 20_000, "val": 4_000, "test": 6_000}
SCENES = {"train": 6_000, "val": 1_800, "test": 2_400}
DIGIT_IMAGES = {"train": 1_100, "val": 300, "test": 397}
"""The 1,797 bundled images of digits are divided, so that no split contains another's."""

PIXEL_NOISE = 0.20
"""Standard deviation of the noise on every pixel of a region, as a share of the range of pixels."""
TINT_NOISE = 0.08
"""Standard deviation of the noise on an object's colour, per channel, as a share of the range of pixels."""
AGREEMENT = 0.85
"""Probability that an annotator gives the true answer; otherwise a random other answer of the type."""
SPELLED_OUT = 0.1
"""Probability that an annotator writes a number as a word."""

SCALE = 16.0
"""Pixels and box coordinates in a feature range from 0 to 16, as pixels do in the bundled images."""
GRID = 4
MOST_OBJECTS = 10
SIDES = ("left", "right", "top", "bottom")


@dataclass(frozen=True)
class Scene:
    """The objects of one image: their digits, colours and boxes (left, top, right, bottom in [0, 1])."""

    digits: tuple[int, ...]
    colors: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]

    def centre(self, index: int) -> tuple[float, float]:
        """Return the centre of an object's box."""
        left, top, right, bottom = self.boxes[index]
        return (left + right) / 2, (top + bottom) / 2

    def only(self, values: tuple[object, ...]) -> Iterator[int]:
        """Return the objects whose value no other object has."""
        counts = Counter(values)
        return (index for index, value in enumerate(values) if counts[value] == 1)

    def outermost(self, side: str) -> int | None:
        """Return the object nearest to a side of the image, or None if two are almost equally near."""
        axis, sign = SIDES.index(side) // 2, 1 if side in ("left", "top") else -1
        order = sorted(range(len(self.digits)), key=lambda index: sign * self.centre(index)[axis])
        gap = abs(self.centre(order[0])[axis] - self.centre(order[1])[axis])
        return order[0] if gap > 0.05 else None

    def left_neighbour(self, index: int) -> int | None:
        """Return the nearest object to the left of an object, or None."""
        x, y = self.centre(index)
        centres = {other: self.centre(other) for other in range(len(self.digits))}
        left = [other for other, (other_x, _) in centres.items() if other_x < x - 0.1]
        return min(left, key=lambda o: (centres[o][0] - x) ** 2 + (centres[o][1] - y) ** 2, default=None)


_COUNTS = ("2", "1", "3", "0", "4")
_DIGITS = tuple(str(digit) for digit in range(10))
_YES_NO = ("yes", "no")

QUESTION_TYPES: dict[str, tuple[str, ...]] = {
    "is there a": _YES_NO,
    "is the": _YES_NO,
    "are there any": _YES_NO,
    "is there more than one": _YES_NO,
    "how many": _COUNTS,
    "how many digits are": _COUNTS,
    "what number is": _DIGITS,
    "what number is on the": _DIGITS,
    "what is left of the": _DIGITS,
    "what color is the": tuple(COLORS),
    "what color is on the": tuple(COLORS),
    "what color is left of the": tuple(COLORS),
    "where is the": ("top left", "top right", "bottom left", "bottom right"),
}
"""Question type -> the possible answers."""


def ask(scene: Scene) -> Iterator[tuple[str, str, str]]:
    """Yield every question about a scene: its type, the words after the type, and the true answer."""
    digits, colors = scene.digits, scene.colors
    objects = set(zip(colors, digits, strict=True))
    for color in dict.fromkeys(colors):
        for digit in dict.fromkeys(digits):
            yield "is there a", f"{color} {digit}", "yes" if (color, digit) in objects else "no"
    for color in COLORS:
        yield "are there any", f"{color} digits", "yes" if color in colors else "no"
        yield "how many digits are", color, str(colors.count(color))
    for digit, count in Counter(digits).items():
        yield "is there more than one", str(digit), "yes" if count > 1 else "no"
    for digit in range(10):
        yield "how many", f"{digit}s are there", str(digits.count(digit))
    for index in scene.only(colors):
        yield "what number is", colors[index], str(digits[index])
    for side in SIDES:
        outermost = scene.outermost(side)
        if outermost is not None:
            yield "what number is on the", side, str(digits[outermost])
            yield "what color is on the", side, colors[outermost]
    for index in scene.only(digits):
        named = str(digits[index])
        for color in dict.fromkeys(colors):
            yield "is the", f"{named} {color}", "yes" if color == colors[index] else "no"
        yield "what color is the", named, colors[index]
        x, y = scene.centre(index)
        yield "where is the", named, f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"
        neighbour = scene.left_neighbour(index)
        if neighbour is not None:
            yield "what is left of the", named, str(digits[neighbour])
            yield "what color is left of the", named, colors[neighbour]


def generate(folder: Path) -> None:
    """Write the benchmark's raw files: `{train,val,test}_{questions,annotations}.json`, `features.h5`."""
    folder.mkdir(parents=True, exist_ok=True)
    images = _share_out_digits()
    regions, boxes, counts = [], [], []
    first_image = 1
    for number, split in enumerate(QUESTIONS):
        rng = np.random.default_rng([VERSION, number])
        scenes = [_compose(rng) for _ in range(SCENES[split])]
        _write_questions(folder, split, scenes, first_image)
        for scene in scenes:
            scene_regions, scene_boxes = _draw(scene, images[split], rng)
            regions.append(scene_regions)
            boxes.append(scene_boxes)
            counts.append(len(scene.digits))
        first_image += len(scenes)
    write_features(
        folder / "features.h5",
        regions=np.stack(regions),
        boxes=np.stack(boxes),
        counts=np.array(counts, np.int32),
        image_ids=np.arange(1, first_image, dtype=np.int64),
    )


def _share_out_digits() -> dict[str, list[NDArray[np.float32]]]:
    """Return each split's own images of each digit: [10] arrays [images, 8, 8] in [0, 1]."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    order = np.random.default_rng(VERSION).permutation(len(bundled.target))
    shares = np.split(order, np.cumsum(list(DIGIT_IMAGES.values()))[:-1])
    pixels = bundled.images.astype(np.float32) / 16
    return {
        split: [pixels[share[bundled.target[share] == digit]] for digit in range(10)]
        for split, share in zip(DIGIT_IMAGES, shares, strict=True)
    }


def _compose(rng: np.random.Generator) -> Scene:
    """Choose the objects of a scene. Repeated digits and colours are common."""
    objects = int(rng.integers(4, MOST_OBJECTS + 1))
    digits, tints = _repeat_one(rng, 10, objects), _repeat_one(rng, len(COLORS), objects)
    cells = rng.permutation(GRID * GRID)[:objects]
    sizes = rng.uniform(0.5, 0.9, objects) / GRID
    corners = np.stack([cells % GRID, cells // GRID], axis=1) / GRID
    corners = corners + rng.random((objects, 2)) * (1 / GRID - sizes[:, None])
    boxes = np.concatenate([corners, corners + sizes[:, None]], axis=1)
    names = list(COLORS)
    return Scene(
        tuple(int(digit) for digit in digits),
        tuple(names[tint] for tint in tints),
        tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes),
    )


def _repeat_one(rng: np.random.Generator, kinds: int, objects: int) -> NDArray[np.int64]:
    """Draw a kind per object; one kind is more frequent, by a factor that differs between scenes."""
    often = rng.random(objects) < rng.uniform(0, 0.6)
    return np.where(often, rng.integers(kinds), rng.integers(kinds, size=objects))


def _draw(
    scene: Scene, images: list[NDArray[np.float32]], rng: np.random.Generator
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Return region features [10, 8 * 8 * 3 + 4] and boxes [10, 4]; zero after the last object."""
    objects = len(scene.digits)
    shapes = np.stack([images[digit][rng.integers(len(images[digit]))] for digit in scene.digits])
    tints = np.array([COLORS[color] for color in scene.colors]) + rng.normal(0, TINT_NOISE, (objects, 3))
    pixels = shapes[..., None] * tints[:, None, None, :]
    pixels = pixels + rng.normal(0, PIXEL_NOISE, pixels.shape)
    boxes = np.zeros((MOST_OBJECTS, 4), np.float32)
    boxes[:objects] = scene.boxes
    regions = np.zeros((MOST_OBJECTS, 8 * 8 * 3 + 4), np.float16)
    features = np.concatenate([pixels.reshape(objects, -1), boxes[:objects]], axis=1)
    regions[:objects] = SCALE * features
    return regions, boxes


def prior(question_type: str, split: str) -> dict[str, float]:
    """Return the share of each answer among a type's questions: Zipf's law, reversed in `test`."""
    answers = list(QUESTION_TYPES[question_type])
    if answers != list(_COUNTS):  # 2 is the most frequent count, as in VQA; the other orders are arbitrary
        random.Random(f"{VERSION} {question_type}").shuffle(answers)
    weights = [1 / rank for rank in range(1, len(answers) + 1)]
    if split == "test":
        weights.reverse()
    return {answer: weight / sum(weights) for answer, weight in zip(answers, weights, strict=True)}


def _write_questions(folder: Path, split: str, scenes: list[Scene], first_image: int) -> None:
    """Choose distinct questions of each type, equally many, whose answers follow the split's prior."""
    draw = random.Random(f"{VERSION} {split}")
    candidates: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for image, scene in enumerate(scenes, first_image):
        for question_type, rest, answer in ask(scene):
            candidates[question_type, answer].append((image, f"{question_type.capitalize()} {rest}?"))
    asked: list[tuple[str, str, int, str]] = []
    each, remaining = divmod(QUESTIONS[split], len(QUESTION_TYPES))
    for position, question_type in enumerate(QUESTION_TYPES):
        total = each + (position < remaining)
        shares = prior(question_type, split)
        wanted = {answer: round(share * total) for answer, share in shares.items()}
        wanted[max(shares, key=lambda answer: shares[answer])] += total - sum(wanted.values())
        for answer, count in wanted.items():
            chosen = draw.sample(candidates[question_type, answer], count)
            asked += [(question_type, answer, image, text) for image, text in chosen]
    draw.shuffle(asked)
    questions, annotations = [], []
    for question_id, (question_type, answer, image, text) in enumerate(asked, first_image * 1000):
        questions.append(Question(question_id, image, text))
        annotations.append(_annotate(question_id, image, question_type, answer, draw))
    write_questions(folder / f"{split}_questions.json", questions)
    write_annotations(folder / f"{split}_annotations.json", annotations)


def _annotate(
    question_id: int, image_id: int, question_type: str, true_answer: str, draw: random.Random
) -> Annotation:
    """Return the answers of ten simulated annotators."""
    others = [answer for answer in QUESTION_TYPES[question_type] if answer != true_answer]
    given = [true_answer if draw.random() < AGREEMENT else draw.choice(others) for _ in range(10)]
    modal = Counter(given).most_common(1)[0][0]
    spelled = [
        NUMBER_WORDS[int(answer)] if answer.isdigit() and draw.random() < SPELLED_OUT else answer
        for answer in given
    ]
    return Annotation(
        question_id,
        image_id,
        question_type,
        "yes/no" if modal in _YES_NO else "number" if modal.isdigit() else "other",
        tuple(Answer(answer, "yes", number) for number, answer in enumerate(spelled, 1)),
        modal,
    )


@dataclass(frozen=True)
class Picture:
    """A small picture in memory."""

    width: int
    height: int
    rgb: bytes
    """Red, green and blue of each pixel, row by row from the top."""


def picture_regions(dataset: Dataset, regions: NDArray[np.floating[Any]]) -> list[Picture] | None:
    """Return pictures of regions from their features [N, V]; None if the features are not pixels."""
    if dataset.entry.generator != "digits":
        return None
    shares = regions[:, : 8 * 8 * 3].astype(np.float32) / SCALE
    pixels = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return [Picture(8, 8, rgb.tobytes()) for rgb in pixels]

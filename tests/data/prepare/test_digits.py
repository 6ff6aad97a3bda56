from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vqabench.data.features.store import open_features
from vqabench.data.prepare import digits
from vqabench.data.vqa.annotations import Annotation, Question, read_annotations, read_questions


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    digits.generate(folder)
    return folder


@pytest.fixture(scope="module")
def splits(raw: Path) -> dict[str, tuple[list[Question], list[Annotation]]]:
    return {
        split: (
            read_questions(raw / f"{split}_questions.json"),
            list(read_annotations(raw / f"{split}_annotations.json")),
        )
        for split in digits.QUESTIONS
    }


Splits = dict[str, tuple[list[Question], list[Annotation]]]


def shares(annotations: list[Annotation], question_type: str) -> dict[str, float]:
    counts = Counter(a.multiple_choice_answer or "" for a in annotations if a.question_type == question_type)
    return {answer: count / counts.total() for answer, count in counts.items()}


def test_it_has_the_size_that_it_says(splits: Splits) -> None:
    assert {split: len(questions) for split, (questions, _) in splits.items()} == digits.QUESTIONS
    for _, annotated in splits.values():
        types = Counter(annotation.question_type for annotation in annotated)
        assert len(types) == 13
        assert max(types.values()) - min(types.values()) <= 1
        assert {annotation.answer_type for annotation in annotated} == {"yes/no", "number", "other"}


def test_the_prior_is_zipfs_law_reversed_in_test(splits: Splits) -> None:
    for question_type in digits.QUESTION_TYPES:
        expected = digits.prior(question_type, "train")
        for split in ("train", "val"):
            seen = shares(splits[split][1], question_type)
            assert all(abs(seen.get(answer, 0) - share) < 0.05 for answer, share in expected.items())
        ranked = sorted(expected, key=lambda answer: expected[answer])
        reversed_shares = shares(splits["test"][1], question_type)
        assert reversed_shares[ranked[0]] == max(reversed_shares.values())


def test_no_question_no_scene_and_no_image_of_a_digit_is_in_two_splits(splits: Splits) -> None:
    for name in ("question_id", "image_id"):
        seen = [{getattr(question, name) for question in questions} for questions, _ in splits.values()]
        assert len(set.union(*seen)) == sum(map(len, seen))
    images = digits._share_out_digits()
    drawn = [{image.tobytes() for digit in images[split] for image in digit} for split in digits.QUESTIONS]
    assert sum(map(len, drawn)) > 1700
    assert not drawn[0] & drawn[1] | drawn[0] & drawn[2] | drawn[1] & drawn[2]


def test_no_question_is_asked_twice_of_a_scene(splits: Splits) -> None:
    for questions, _ in splits.values():
        asked = Counter((question.image_id, question.question) for question in questions)
        assert max(asked.values()) == 1


def test_annotators_sometimes_disagree_and_spell_numbers_out(splits: Splits) -> None:
    _, annotations = splits["train"]
    distinct = [len({answer.answer for answer in annotation.answers}) for annotation in annotations]
    assert 0.1 < sum(count == 1 for count in distinct) / len(distinct) < 0.5
    given = {answer.answer for annotation in annotations for answer in annotation.answers}
    assert {"two", "2"} <= given
    assert all(len(annotation.answers) == 10 for annotation in annotations)


def test_regions_are_pixels_and_boxes_of_four_to_ten_objects(raw: Path) -> None:
    store = open_features(raw / "features.h5")
    assert store.regions.shape[1:] == (10, 8 * 8 * 3 + 4)
    assert (store.counts.min(), store.counts.max()) == (4, 10)
    behind = np.arange(10) >= store.counts[:, None]
    assert not store.regions[behind].any()
    assert np.allclose(store.regions[..., 192:] / digits.SCALE, store.boxes, atol=1e-3)
    left, top, right, bottom = np.moveaxis(store.boxes[~behind], -1, 0)
    assert ((left >= 0) & (left < right) & (right <= 1) & (top >= 0) & (top < bottom) & (bottom <= 1)).all()


@pytest.mark.slow
def test_it_is_a_function_of_its_version_alone(raw: Path, tmp_path: Path) -> None:
    digits.generate(tmp_path)
    for path in sorted(raw.iterdir()):
        again = tmp_path / path.name
        if path.suffix == ".json":
            assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()
        else:
            first, second = open_features(path), open_features(again)
            assert (first.regions == second.regions).all()
            assert (first.boxes == second.boxes).all()

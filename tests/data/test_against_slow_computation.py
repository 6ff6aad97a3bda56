"""What preparation makes of 60,000 real questions, against a computation question by question of its own."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqabench.data.catalog.dataset import find_dataset
from vqabench.data.features.store import write_features
from vqabench.data.prepare.prepared import Prepared, prepare
from vqabench.data.vqa.answers import normalise  # checked against the official code's own values
from vqabench.losses.rescale import Rescale

NAMES = {
    "questions": "v2_OpenEnded_mscoco_train2014_questions.60000.json.gz",
    "annotations": "v2_mscoco_train2014_annotations.60000.json.gz",
}
CATALOG = """
[real]
title = "VQA v2 samples, with features of no meaning"
features = "features.h5"
splits.train = {{ questions = "{questions}", annotations = "{annotations}" }}
"""


@pytest.fixture(scope="module")
def raw(samples: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        kind: json.loads(gzip.decompress((samples / "vqa-v2" / name).read_bytes()))[kind]
        for kind, name in NAMES.items()
    }


@pytest.fixture(scope="module")
def prepared(
    samples: Path, raw: dict[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    folder = tmp_path_factory.mktemp("slow")
    images = sorted({question["image_id"] for question in raw["questions"]})
    write_features(
        folder / "features.h5",
        regions=np.ones((len(images), 1, 2), np.float16),
        boxes=np.zeros((len(images), 1, 4), np.float32),
        counts=np.ones(len(images), np.int32),
        image_ids=np.array(images),
    )
    paths = {kind: samples / "vqa-v2" / name for kind, name in NAMES.items()}
    (folder / "catalog.toml").write_text(CATALOG.format(**paths))
    return prepare(find_dataset("real", folder / "catalog.toml", folder), lambda _: None)


def given_answers(annotation: dict[str, Any]) -> Counter[str]:
    return Counter(normalise(answer["answer"]) for answer in annotation["answers"])


@pytest.mark.slow
def test_the_vocabulary_is_counted_from_the_most_common_answers(prepared: Prepared, raw: dict[str, Any]) -> None:
    counts = Counter(normalise(annotation["multiple_choice_answer"]) for annotation in raw["annotations"])
    assert set(prepared.spec.answers) == {answer for answer, count in counts.items() if count >= 9}
    frequencies = [counts[answer] for answer in prepared.spec.answers]
    assert frequencies == sorted(frequencies, reverse=True)


@pytest.mark.slow
def test_every_soft_score_is_three_tenths_for_each_annotator_up_to_one(
    prepared: Prepared, raw: dict[str, Any]
) -> None:
    split, answers = prepared.splits["train"], prepared.spec.answers
    known = set(answers)
    by_id = {annotation["question_id"]: annotation for annotation in raw["annotations"]}
    assert split.question_ids.tolist() == [question["question_id"] for question in raw["questions"]]
    for row, question_id in enumerate(split.question_ids.tolist()):
        own = slice(split.starts[row], split.starts[row + 1])
        found = {answers[a]: v for a, v in zip(split.target_answers[own], split.target_values[own], strict=True)}
        expected = {
            answer: min(1.0, 0.3 * count)
            for answer, count in given_answers(by_id[question_id]).items()
            if answer in known
        }
        assert found.keys() == expected.keys()
        assert all(abs(found[answer] - expected[answer]) < 1e-6 for answer in found)


@pytest.mark.slow
@pytest.mark.parametrize("minimum", [1, 10])
def test_counts_and_weights_of_each_type_follow_the_papers_equations(
    prepared: Prepared, raw: dict[str, Any], minimum: int
) -> None:
    spec = prepared.spec
    column = {answer: number for number, answer in enumerate(spec.answers)}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for annotation in raw["annotations"]:
        counts[annotation["question_type"]].update(given_answers(annotation))
    assert set(counts) == set(spec.question_types)
    weights = Rescale(spec, "ce", minimum=minimum).weights_TA.numpy()
    for row, question_type in enumerate(spec.question_types):
        known = {answer: n for answer, n in counts[question_type].items() if answer in column}
        assert spec.answer_counts_TA[row].sum() == sum(known.values())
        kept = {answer: n for answer, n in known.items() if n >= minimum}
        total = sum(kept.values())
        expected = np.ones(len(column))
        for answer, n in kept.items():
            assert spec.answer_counts_TA[row, column[answer]] == n
            raw_weight = (total - n) / n  # Eq. 7
            smooth = raw_weight + math.log1p(math.exp(-raw_weight))  # log(1 + e^mu), Eq. 8
            expected[column[answer]] = min(100.0, smooth)
        np.testing.assert_allclose(weights[row], expected, rtol=1e-5)

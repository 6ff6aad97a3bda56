"""Real VQA files, from raw to a trained epoch. The fifteen questions with features train; all count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from vqabench_baselines.priors import answers_to_draw

from tests.conftest import CommandLine
from vqabench.data.catalog.dataset import find_dataset
from vqabench.data.prepare.prepared import Prepared, prepare
from vqabench.data.vqa.annotations import read_annotations, read_questions, write_annotations, write_questions
from vqabench.results import Run

CATALOG = """
[real]
title = "VQA v2 samples"
features = [
  "{samples}/features/trainval_resnet101_faster_rcnn_genome_36.10.tsv.gz",
  "{samples}/features/lxmert_train2014_obj36.10.tsv.gz",
]
images_without_features = "skip"

[real.splits.train]
questions = "{samples}/vqa-v2/v2_OpenEnded_mscoco_train2014_questions.60000.json.gz"
annotations = "{samples}/vqa-v2/v2_mscoco_train2014_annotations.60000.json.gz"

[real.splits.test]
questions = "flat_questions.json"
annotations = "flat_annotations.json"
"""


@pytest.fixture(scope="module")
def catalog(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a catalogue of the samples; the flat files lose what is in the others too."""
    folder = tmp_path_factory.mktemp("real")
    v2 = samples / "vqa-v2"
    known = {q.question_id for q in read_questions(v2 / "v2_OpenEnded_mscoco_train2014_questions.60000.json.gz")}
    flat = [q for q in read_questions(v2 / "flat_layout_questions.32723.json.gz") if q.question_id not in known]
    assert len(flat) == 32_723 - 3_013
    kept = {question.question_id for question in flat}
    annotations = list(read_annotations(v2 / "flat_layout_annotations.32723.json.gz"))
    write_questions(folder / "flat_questions.json", flat)
    write_annotations(folder / "flat_annotations.json", [a for a in annotations if a.question_id in kept])
    path = folder / "catalog.toml"
    path.write_text(CATALOG.format(samples=samples))
    return path


@pytest.fixture(scope="module")
def prepared(catalog: Path) -> Prepared:
    return prepare(find_dataset("real", catalog, catalog.parent / "data"), lambda _: None)


def test_the_real_questions_with_features_and_all_65_types_are_prepared(prepared: Prepared) -> None:
    spec = prepared.spec
    assert prepared.features.regions.shape == (10, 36, 2048)  # the other ten images are nowhere asked about
    assert len(spec.question_types) == 65
    assert spec.questions_T.sum() == 60_000
    assert sum(len(split.types) for split in prepared.splits.values()) == 15
    assert {"yes", "no", "2", "white"} <= set(spec.answers)


def test_an_inverted_prior_over_all_answers_never_says_yes_or_no_and_with_its_bounds_it_does(
    prepared: Prepared,
) -> None:
    """What plugins/baselines/README.md says of these 60,000 questions."""
    spec = prepared.spec
    counts_TA = spec.answer_counts_TA[spec.questions_T > 0]
    yes_no = [spec.answers.index("yes"), spec.answers.index("no")]

    def draws(minimum: int, share: float) -> Tensor:
        drawn_TA = answers_to_draw(counts_TA, minimum, share)
        weights_TA = torch.where(drawn_TA, 1 / counts_TA.clamp(min=1), 0)
        return weights_TA / weights_TA.sum(1, keepdim=True)

    everything_TA, bounded_TA = draws(1, 0), draws(10, 0.01)
    rare_T = torch.where(counts_TA < 10, everything_TA, 0).sum(1)
    mostly_T = counts_TA[:, yes_no].sum(1) > 0.5 * counts_TA.sum(1)
    assert 0.95 < rare_T.median() < 0.97
    assert int(mostly_T.sum()) == 29
    assert everything_TA[mostly_T][:, yes_no].sum(1).max() < 0.001
    targets_T = spec.mean_targets_TA[spec.questions_T > 0][mostly_T][:, yes_no].sum(1)
    assert 1.1 < targets_T.median() < 1.3  # nearer to 1, where annotators agree, than digits-cp's 1.43
    assert int((bounded_TA[mostly_T][:, yes_no].sum(1) > 0.999).sum()) == 25


def test_every_answer_of_the_vocabulary_is_a_most_common_one(prepared: Prepared) -> None:
    counts_A = prepared.spec.answer_counts_TA.sum(0)
    assert (counts_A >= 9).all()
    assert prepared.spec.mean_targets_TA.max() <= 1
    assert prepared.spec.answers[0] == "yes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "sizes"),
    [
        ("updn", ["hidden=32", "embedding=32"]),
        ("lm", ["base.hidden=32", "base.embedding=32"]),
        ("lmh", ["base.hidden=32", "base.embedding=32"]),
        ("css", ["base.hidden=32", "base.embedding=32"]),
        ("css-lmh", ["base.base.hidden=32", "base.base.embedding=32"]),
        ("lxmert", ["hidden=32", "heads=2", "language_layers=1", "object_layers=1", "cross_layers=1"]),
        ("prior", []),
    ],
)
def test_backbones_train_an_epoch_on_the_real_questions_that_have_features(
    cli: CommandLine, prepared: Prepared, catalog: Path, tmp_path: Path, backbone: str, sizes: list[str]
) -> None:
    assert prepared.splits  # once for all of them
    settings = [word for size in sizes for word in ("--set", size)]
    common = ("--dataset", "real", "--catalog", catalog, "--data-dir", catalog.parent / "data", *settings)
    done = cli("train", backbone, *common, "--epochs", "1", "--loss", "rescale")
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob(f"runs/real/{backbone}/*/seed-0")
    assert Run(folder).read_manifest().status == "finished"
    answered = json.loads((folder / "predictions.test.json").read_text())
    assert {answer["question_id"] for answer in answered} <= {
        question.question_id for question in read_questions(catalog.parent / "flat_questions.json")
    }


def test_annotations_without_a_most_common_answer_are_read(samples: Path) -> None:
    annotations = list(read_annotations(samples / "vqa-v2" / "smallval_annotations.json"))
    assert len(annotations) == 589
    assert all(annotation.multiple_choice_answer is None for annotation in annotations)

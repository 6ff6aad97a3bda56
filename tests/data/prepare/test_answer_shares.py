from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.data.catalog.dataset import Dataset, find_dataset
from vqabench.data.prepare.answer_shares import read_answer_shares
from vqabench.data.prepare.preparation import prepare_files


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    catalog = write_tiny(tmp_path / "own")
    path = tmp_path / "own" / "test_annotations.json"
    path.write_text(path.read_text().replace('"red"', '"blue"'))
    found = find_dataset("tiny", catalog, tmp_path / "data")
    prepare_files(found, lambda _: None)
    return found


def test_shares_are_of_soft_targets_and_the_distance_is_between_them(dataset: Dataset) -> None:
    many, colour = read_answer_shares(dataset, "test", 5, 5)
    assert (many.question_type, colour.question_type) == ("how many", "what color is the")
    assert colour.questions == {"train": 30, "test": 6}
    assert colour.shares["blue"] == pytest.approx({"train": 1 / 3, "test": 2 / 3})
    assert colour.shares["red"] == pytest.approx({"train": 1 / 3, "test": 0})
    assert colour.distance == pytest.approx(1 / 3)
    assert many.distance == pytest.approx(0)


def test_as_many_types_and_answers_are_shown_as_asked_for(dataset: Dataset) -> None:
    (one,) = read_answer_shares(dataset, "val", 1, 2)
    assert len(one.shares) == 2


def test_info_draws_them(cli: CommandLine, dataset: Dataset) -> None:
    catalog = ("--catalog", dataset.source / "catalog.toml")
    drawn = cli("data", "info", "tiny", *catalog).stdout
    assert "what color is the: train 30, test 6 questions; total variation distance 0.33" in drawn
    assert "66.7%" in drawn
    assert "how many" not in cli("data", "info", "tiny", *catalog, "--types", "0").stdout
    found = json.loads(cli("data", "info", "tiny", *catalog, "--json").stdout)
    assert found["answers by question type"][1]["shares"]["blue"]["test"] == pytest.approx(2 / 3)

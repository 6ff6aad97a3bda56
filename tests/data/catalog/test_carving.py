from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.data.catalog.dataset import Dataset, find_dataset
from vqabench.data.catalog.entries import Carving
from vqabench.data.prepare.preparation import prepare_files
from vqabench.errors import InputError

OWN_VAL = """
[tiny.splits.val]
questions = "val_questions.json"
annotations = "val_annotations.json"
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = write_tiny(tmp_path / "own")
    text = path.read_text().replace(OWN_VAL, "")
    path.write_text(text.replace("[tiny]", "[tiny]\nvalidation = { share = 0.4, seed = 3 }", 1))
    return path


@pytest.fixture
def dataset(catalog: Path, tmp_path: Path) -> Dataset:
    return find_dataset("tiny", catalog, tmp_path / "data")


def test_train_and_val_share_the_training_questions_and_no_image(dataset: Dataset) -> None:
    splits = dataset.read_splits()
    assert dataset.splits == tuple(splits) == ("train", "val", "test")
    images = {split: {question.image_id for question in questions} for split, (questions, _) in splits.items()}
    assert not images["train"] & images["val"]
    assert len(splits["train"][0]) + len(splits["val"][0]) == 60
    for split, (questions, table) in splits.items():
        assert [q.question_id for q in questions] == table.question_ids.tolist()
        assert dataset.read_split(split)[1].question_ids.tolist() == table.question_ids.tolist()
        assert dataset.read_questions(split) == questions


def test_vocabulary_and_counts_leave_the_carved_questions_out(dataset: Dataset) -> None:
    summary = prepare_files(dataset, lambda _: None)
    assert summary.questions["train"] + summary.questions["val"] == 60
    assert len(summary.val_ids_hash) == 64
    assert prepare_files(dataset, lambda line: pytest.fail(line)) == summary


@given(st.integers(0, 5), st.sets(st.integers(0, 10_000), min_size=1, max_size=50))
def test_an_image_keeps_its_place_whatever_others_there_are(seed: int, images: set[int]) -> None:
    carving = Carving(0.3, seed)
    assert carving.choose(images) == set.union(*(carving.choose({image}) for image in images))


def test_about_the_share_is_carved_and_another_seed_carves_others() -> None:
    images = range(20_000)
    first, second = Carving(0.1, 0).choose(images), Carving(0.1, 1).choose(images)
    assert len(first) == pytest.approx(2000, rel=0.1)
    assert len(first & second) == pytest.approx(200, rel=0.3)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("validation = { share = 1.5 }", "share must be above 0 and below 1"),
        ("validation = { share = 0.5, sed = 1 }", "sed"),
        ("validation = { share = 1e-9 }", "leaves no question in the split val"),
    ],
)
def test_an_impossible_share_is_refused(cli: CommandLine, catalog: Path, key: str, message: str) -> None:
    catalog.write_text(catalog.read_text().replace("validation = { share = 0.4, seed = 3 }", key))
    done = cli("data", "prepare", "tiny", "--catalog", catalog)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_data_set_has_one_validation_split(catalog: Path, tmp_path: Path) -> None:
    catalog.write_text(catalog.read_text() + OWN_VAL)
    with pytest.raises(InputError, match="has a val split, but validation makes another one"):
        find_dataset("tiny", catalog, tmp_path)


def test_a_carved_split_is_trained_against_and_scored(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    command = ("--dataset", "tiny", "--catalog", catalog, "--epochs", "1", "--set", "hidden=4")
    assert cli("train", "updn", *command, "--select", "val").returncode == 0
    (predictions,) = tmp_path.glob("runs/**/predictions.val.json")
    done = cli("evaluate", predictions, "--dataset", "tiny", "--split", "val", "--catalog", catalog, "--json")
    asked = msgspec.json.decode(predictions.read_bytes())
    assert msgspec.json.decode(done.stdout)["questions"] == len(asked) > 0
    assert "40.0% of train's images, seed 3" in cli("data", "info", "tiny", "--catalog", catalog).stdout

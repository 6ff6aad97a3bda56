"""What is read of questions and annotations is what was hashed when the data was prepared."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import questions_of, write_tiny
from vqabench.data.prepare.prepared import prepare
from vqabench.data.vqa.annotations import Prediction
from vqabench.errors import InputError, VqabenchError
from vqabench.evaluation.predict import score_split
from vqabench.paths import Paths


def change_keeping_size_and_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"answer":"0"', b'"answer":"1"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another_in_its_place(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes().replace(b'"answer":"0"', b'"answer":"1"'))
    other.replace(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def put_a_folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES = [change_keeping_size_and_time, put_another_in_its_place, truncate, put_a_folder_in_its_place, Path.unlink]


@pytest.mark.parametrize("change", CHANGES)
def test_annotations_that_changed_since_preparation_are_not_scored(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    dataset = Paths(data=tmp_path, catalog=write_tiny(tmp_path / "own")).dataset("tiny")
    prepared = prepare(dataset, lambda _: None)
    answers = [Prediction(one.question_id, one.multiple_choice_answer or "") for one in questions_of("test")[1]]
    assert score_split(answers, prepared, dataset, "test").accuracy["all"] == 100
    change(tmp_path / "own" / "test_annotations.json")
    with pytest.raises(
        VqabenchError, match=r"test_annotations.json: changed while .* nothing was scored"
    ) as raised:
        score_split(answers, prepared, dataset, "test")
    assert not isinstance(raised.value, InputError)  # of which train deletes a run that has no weights yet


def test_files_that_change_while_they_are_prepared_are_prepared_again(tmp_path: Path) -> None:
    dataset = Paths(data=tmp_path, catalog=write_tiny(tmp_path / "own")).dataset("tiny")

    def change(message: str) -> None:
        if "word vectors" in message:
            change_keeping_size_and_time(tmp_path / "own" / "train_annotations.json")

    with pytest.raises(InputError, match="its files changed while they were prepared"):
        prepare(dataset, change)
    assert not dataset.prepared_file.exists()
    assert prepare(dataset, lambda _: None).fingerprint

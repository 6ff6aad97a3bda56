from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.data.catalog.dataset import Dataset, find_dataset
from vqabench.data.prepare.preparation import prepare_files
from vqabench.data.prepare.prepared import prepare
from vqabench.data.prepare.verification import verify
from vqabench.errors import InputError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    found = find_dataset("tiny", write_tiny(tmp_path / "own"), tmp_path / "data")
    prepare_files(found, lambda _: None)
    return found


def change(name: str, index: int | tuple[int, ...], value: float) -> Callable[[Dataset], None]:
    def do(dataset: Dataset) -> None:
        path = dataset.features_file if name in ("regions", "boxes", "image_ids") else dataset.prepared_file
        with h5py.File(path, "r+") as file:
            file[name][index] = value

    return do


def remove(name: str) -> Callable[[Dataset], None]:
    return lambda dataset: (dataset.source / name).unlink()


def rename_a_question(dataset: Dataset) -> None:
    path = dataset.source / "train_questions.json"
    path.write_text(path.read_text().replace('"question_id":59,', '"question_id":777,'))


def add_a_space(dataset: Dataset) -> None:
    path = dataset.source / "train_questions.json"
    path.write_text(path.read_text() + " ")


def test_a_prepared_data_set_is_fine(dataset: Dataset) -> None:
    checks = list(verify(dataset))
    assert [check.what for check in checks if check.fine] == [
        "files",
        "questions and annotations",
        "region features",
        "prepared arrays",
    ]
    assert len(checks) == 4


@pytest.mark.parametrize(
    ("damage", "what", "message"),
    [
        (remove("test_annotations.json"), "files", "1 of its files are missing: .*test_annotations"),
        (rename_a_question, "questions and annotations", r"1 questions without annotations \(ids 777\)"),
        (change("regions", (1, 0, 0), float("nan")), "region features", "image 1: not finite"),
        (change("regions", (0, 2, 0), 1.0), "region features", "image 0: .*behind its last region"),
        (change("boxes", (3, 0, 0), 1.5), "region features", "image 3: "),
        (change("image_ids", 1, 0), "region features", "an image id occurs more than once"),
        (
            change("train/target_values", 5, 0.3),
            "prepared arrays",
            "differs from the raw files: train/target_values",
        ),
        (change("priors/answer_counts", (0, 0), 7), "prepared arrays", "priors/answer_counts"),
        (add_a_space, "prepared arrays", "other files or settings"),
    ],
)
def test_damage_is_found_and_named(
    dataset: Dataset, damage: Callable[[Dataset], None], what: str, message: str
) -> None:
    damage(dataset)
    bad = [check for check in verify(dataset) if not check.fine]
    assert bad[0].what == what
    assert re.search(message, bad[0].found), bad
    advised = re.search(r"(/\S+): .*; delete it and prepare again", bad[0].found)
    if advised:
        Path(advised[1]).unlink()
        prepare_files(dataset, lambda _: None)
        assert all(check.fine for check in verify(dataset))


def test_the_command_tells_line_by_line_and_by_its_exit_code(
    cli: CommandLine, dataset: Dataset, tmp_path: Path
) -> None:
    catalog = ("--catalog", dataset.source / "catalog.toml")
    fine = cli("data", "verify", "tiny", *catalog)
    assert (fine.returncode, len(fine.stdout.splitlines())) == (0, 4)
    assert all(line.startswith("ok ") for line in fine.stdout.splitlines())
    change("boxes", (3, 0, 0), 1.5)(dataset)
    bad = cli("data", "verify", "tiny", *catalog, "--json")
    assert bad.returncode == 1
    assert [check["fine"] for check in json.loads(bad.stdout)] == [True, True, False, True]


def test_what_was_never_prepared_is_only_looked_at_raw(tmp_path: Path) -> None:
    found = find_dataset("tiny", write_tiny(tmp_path / "own"), tmp_path / "data")
    last = list(verify(found))[-1]
    assert (last.what, last.fine) == ("prepared files", True)


def test_features_that_are_sound_but_others_are_found(dataset: Dataset) -> None:
    with h5py.File(dataset.features_file, "r+") as file:
        file["regions"][0, 0, 0] = file["regions"][0, 0, 1]
    (bad,) = [check for check in verify(dataset) if not check.fine]
    assert bad.what == "region features"
    assert re.search(r"features\.h5: its content has changed since it was made; delete it", bad.found)
    dataset.features_file.unlink()
    prepare_files(dataset, lambda _: None)
    assert all(check.fine for check in verify(dataset))


def test_a_data_set_whose_features_nobody_has_named_yet_is_checked_as_far_as_it_goes(tmp_path: Path) -> None:
    catalog = write_tiny(tmp_path / "own")
    text = re.sub(r"^features = .*$", 'features_from = "somewhere"', catalog.read_text(), flags=re.MULTILINE)
    catalog.write_text(text)
    checks = list(verify(find_dataset("tiny", catalog, tmp_path / "data")))
    assert [(check.what, check.fine) for check in checks] == [
        ("files", True),
        ("questions and annotations", True),
        ("prepared files", True),
    ]
    assert "features are not named yet" in checks[0].found


@pytest.mark.parametrize("where", ["train/types", "train/tokens", "priors/answer_counts", "test/target_values"])
def test_a_flipped_byte_of_the_arrays_is_found_by_whoever_reads_it(dataset: Dataset, where: str) -> None:
    with h5py.File(dataset.prepared_file) as file:
        chunk = file[where].id.get_chunk_info(0)
    content = bytearray(dataset.prepared_file.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 4
    dataset.prepared_file.write_bytes(content)
    with pytest.raises(InputError, match=r"prepared\.h5: missing or damaged: .*; delete it and prepare again"):
        prepare(dataset, lambda _: None)
    assert [check.what for check in verify(dataset) if not check.fine] == ["prepared arrays"]

from __future__ import annotations

import dataclasses
import gzip
import os
import threading
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.conftest import CommandLine
from tests.region_sources import write_npz
from tests.tiny import write_tiny, write_tsv
from vqabench.api import PADDING, UNKNOWN
from vqabench.data.batches.placement import PlacedFeatures
from vqabench.data.batches.split_data import SplitData
from vqabench.data.catalog.dataset import Dataset, FileChoice, find_dataset
from vqabench.data.prepare.fingerprint import stamp_of
from vqabench.data.prepare.prepared import Prepared, prepare
from vqabench.data.vqa.annotation_table import Categorical
from vqabench.data.vqa.annotations import Question
from vqabench.data.vqa.encoding import Encoder
from vqabench.data.vqa.words import collect_words, read_word_vectors
from vqabench.errors import InputError
from vqabench.files.atomic import holding
from vqabench.files.hdf5 import differing


def split_of(prepared: Prepared, split: str) -> SplitData:
    return SplitData(prepared, split, PlacedFeatures(prepared.features, torch.device("cpu")))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return find_dataset("tiny", write_tiny(tmp_path / "own"), tmp_path / "data")


def quietly(dataset: Dataset) -> Prepared:
    return prepare(dataset, lambda _: None)


def said(dataset: Dataset) -> list[str]:
    lines: list[str] = []
    prepare(dataset, lines.append)
    return lines


def test_vocabulary_and_counts_come_from_training_answers(dataset: Dataset) -> None:
    spec = quietly(dataset).spec
    # 10 questions of each of the six answers; "yes" is given often but never the most common answer.
    assert spec.answers == ("0", "1", "2", "blue", "red", "white")
    assert spec.question_types == ("how many", "what color is the")
    assert spec.questions_T.tolist() == [30, 30]
    assert spec.answer_counts_TA.tolist() == [[80.0, 80.0, 80.0, 0, 0, 0], [0, 0, 0, 80.0, 80.0, 80.0]]
    assert spec.mean_targets_TA[0, :3].tolist() == pytest.approx([1 / 3] * 3)


def test_a_preparation_that_fails_leaves_no_old_arrays_beside_new_features(dataset: Dataset) -> None:
    quietly(dataset)
    catalog = dataset.source / "catalog.toml"
    features = dataset.source / "features.tsv"
    lines = features.read_text().splitlines(keepends=True)
    features.write_text("".join(reversed(lines)))
    text = catalog.read_text()
    catalog.write_text(text.replace("minimum_answer_count = 2", "minimum_answer_count = 1000"))
    with pytest.raises(InputError, match="minimum_answer_count"):
        quietly(find_dataset("tiny", catalog, dataset.folder.parent))
    catalog.write_text(text)
    features.write_text("".join(lines))
    prepared = quietly(dataset)
    asked = prepared.features.image_ids[prepared.splits["train"].image_rows]
    assert asked.tolist() == [question.image_id for question in dataset.read_questions("train")]


def test_batches_hold_what_the_files_say(dataset: Dataset) -> None:
    prepared = quietly(dataset)
    batch = split_of(prepared, "train").batch(torch.tensor([0, 1]), with_targets=True)
    words = [[prepared.spec.words[token] for token in row] for row in batch.tokens_BL.tolist()]
    assert words[0] == ["<padding>", "how", "many", "sheep", "are", "there"]
    assert words[1] == ["what", "color", "is", "the", "sheep", "'s"]
    assert batch.word_mask_BL.sum(1).tolist() == [5, 6]
    assert batch.type_words_BL[0].tolist() == [False, True, True, False, False, False]
    assert batch.type_words_BL[1].tolist() == [True] * 4 + [False] * 2
    assert batch.region_mask_BR.sum(1).tolist() == [2, 3]
    assert not batch.regions_BRV[~batch.region_mask_BR].any()
    assert batch.targets_BA is not None
    assert batch.targets_BA.sum().item() == pytest.approx(2)
    assert batch.question_ids_B.tolist() == [0, 1]


def test_a_model_that_is_tested_never_sees_targets(dataset: Dataset) -> None:
    data = split_of(quietly(dataset), "test")
    batches = list(data.batches(torch.split(torch.arange(12), 5), with_targets=False))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert all(batch.targets_BA is None for batch in batches)


def test_shuffling_gives_every_question_once_in_a_seeded_order(dataset: Dataset) -> None:
    data = split_of(quietly(dataset), "train")
    orders = [data.draw_order("shuffled", torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(60))
    assert orders[0] == orders[1] != orders[2]


def test_balanced_batches_hold_each_type_as_often_and_within_it_each_answer(dataset: Dataset) -> None:
    data = split_of(quietly(dataset), "train")
    assert data.balance.sum().item() == pytest.approx(1)
    weights: dict[tuple[int, int], float] = {}
    for row, weight in enumerate(data.balance.tolist()):
        batch = data.batch(torch.tensor([row]), with_targets=True)
        assert batch.targets_BA is not None
        group = int(batch.question_types_B), int(batch.targets_BA.argmax())
        weights[group] = weights.get(group, 0.0) + weight
    # Two types of three answers each.
    assert list(weights.values()) == pytest.approx([1 / 6] * 6)
    drawn, again = (data.draw_order("balanced", torch.Generator().manual_seed(0)).tolist() for _ in range(2))
    assert drawn == again
    assert len(drawn) == 60
    assert len(set(drawn)) < 60


def test_with_other_images_every_question_is_about_another_image_and_those_of_one_about_one(
    dataset: Dataset,
) -> None:
    data = split_of(quietly(dataset), "train")
    shuffled, again, others = (data.with_other_images(seed) for seed in (0, 0, 1))
    assert (shuffled.image_rows != data.image_rows).all()
    assert set(shuffled.image_rows) == set(data.image_rows)
    pairs = set(zip(data.image_rows.tolist(), shuffled.image_rows.tolist(), strict=True))
    assert len(pairs) == 6
    np.testing.assert_array_equal(shuffled.image_rows, again.image_rows)
    assert (shuffled.image_rows != others.image_rows).any()
    first, second = (one.batch(torch.tensor([0, 1]), with_targets=True) for one in (data, shuffled))
    assert torch.equal(first.tokens_BL, second.tokens_BL)
    assert not torch.equal(first.regions_BRV, second.regions_BRV)
    data.image_rows = data.image_rows * 0
    with pytest.raises(InputError, match="no other image"):
        data.with_other_images(0)


def test_words_that_training_never_saw_are_unknown(dataset: Dataset) -> None:
    path = dataset.source / "test_questions.json"
    path.write_text(path.read_text().replace("sheep are", "unicorns are"))
    prepared = quietly(dataset)
    tokens = prepared.splits["test"].tokens
    assert Counter(tokens[0].tolist())[UNKNOWN] == 1
    assert (tokens[0] == PADDING).sum() == 1


def test_a_type_that_training_never_saw_has_no_counts_and_a_uniform_mean(dataset: Dataset) -> None:
    path = dataset.source / "test_annotations.json"
    path.write_text(path.read_text().replace('"how many"', '"how many more"'))
    spec = quietly(dataset).spec
    unseen = spec.question_types.index("how many more")
    assert spec.questions_T[unseen] == 0
    assert not spec.answer_counts_TA[unseen].any()
    assert spec.mean_targets_TA[unseen].tolist() == pytest.approx([1 / 6] * 6)


def test_preparing_again_does_nothing_and_a_changed_input_does_it_anew(dataset: Dataset) -> None:
    assert any(line.startswith("preparing") for line in said(dataset))
    assert said(dataset) == []
    first = quietly(dataset).fingerprint
    write_tsv(dataset.source / "features.tsv", width=12)
    assert any(line.startswith("preparing") for line in said(dataset))
    assert quietly(dataset).fingerprint != first


@pytest.mark.parametrize("name", ["prepared.h5", "features.h5"])
def test_a_damaged_prepared_file_is_made_anew(dataset: Dataset, name: str) -> None:
    quietly(dataset)
    (dataset.folder / name).write_bytes(b"half a file")
    assert quietly(dataset).splits["train"].question_ids.tolist() == list(range(60))


def test_what_a_killed_preparation_had_begun_to_write_is_swept_up(dataset: Dataset) -> None:
    dataset.folder.mkdir(parents=True)
    for left in (".prepared.h5.lock", ".prepared.h5.part-1", ".features.h5.json.part-1", ".features.h5.link-1"):
        (dataset.folder / left).write_bytes(b"half")
    quietly(dataset)
    assert not list(dataset.folder.glob(".*"))


def test_a_new_stamp_is_written_beside_the_old_one_and_the_rest_is_as_before(dataset: Dataset) -> None:
    quietly(dataset)
    with dataset.prepared_file.open("rb") as before, h5py.File(before) as old:
        os.utime(dataset.files()[0], (1, 1))
        assert said(dataset) == []
        assert not dataset.prepared_file.samefile(f"/proc/self/fd/{before.fileno()}")
        with h5py.File(dataset.prepared_file) as new:
            assert differing(old, new) == []
            assert old.attrs["stamp"] != new.attrs["stamp"] == stamp_of(dataset)


def test_of_two_that_would_prepare_the_same_data_one_waits_for_the_other(dataset: Dataset) -> None:
    dataset.folder.mkdir(parents=True)
    told: list[list[str]] = []
    waits = threading.Event()

    def say(message: str) -> None:
        told[-1].append(message)
        if "waiting for another process that is preparing tiny" in message:
            waits.set()

    with holding(dataset.folder / ".prepared.h5.lock", waits.clear):
        told.append([])
        other = threading.Thread(target=prepare, args=(dataset, say))
        other.start()
        assert waits.wait(60)
        assert not dataset.prepared_file.exists()
    other.join(60)
    assert dataset.prepared_file.is_file()


def test_settings_that_do_not_bear_on_it_leave_the_fingerprint(dataset: Dataset, tmp_path: Path) -> None:
    catalog = tmp_path / "own" / "catalog.toml"
    first = quietly(dataset).fingerprint
    catalog.write_text(catalog.read_text().replace("[tiny]", "[tiny]\nrecipe = { epochs = 3 }", 1))
    again = find_dataset("tiny", catalog, tmp_path / "data")
    assert again.entry.recipe == {"epochs": 3}
    assert quietly(again).fingerprint == first


def pack(path: Path, content: bytes) -> None:
    """Write a file as its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("glove.2d.txt", content)
    else:
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("name", ["glove.txt", "glove.txt.gz", "glove.zip"])
def test_word_vectors_are_read_for_the_training_words(dataset: Dataset, tmp_path: Path, name: str) -> None:
    pack(dataset.source / name, "sheep 1.0 2.0\nunicorn 3 4\ncaf\xe9 5 6\nmany 0.5 -1\n".encode("latin-1"))
    catalog = tmp_path / "own" / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("[tiny]", f'[tiny]\nword_vectors = "{name}"', 1))
    spec = quietly(find_dataset("tiny", catalog, tmp_path / "data")).spec
    assert spec.word_vectors is not None
    vectors = {word: spec.word_vectors[row].tolist() for row, word in enumerate(spec.words)}
    assert (vectors["sheep"], vectors["many"], vectors["there"]) == ([1.0, 2.0], [0.5, -1.0], [0.0, 0.0])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sheep 1 2\nmany 1\n", "line 2: 1 numbers, but 2 before"),
        ("dog 1 2\nsheep at x.com 1 2\n", "has no vector for any word of"),
        ("\nsheep 1 nan\n", "line 2: not a word and its finite numbers"),
        ("sheep 1 x\n", "line 1: not a word and its numbers"),
        ("unicorn 1 2\n", "has no vector for any word of"),
        ("sheep 1 1e39\n", "line 1: not a word and its finite numbers"),
    ],
)
def test_broken_word_vectors_are_told_by_their_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"glove\.txt.* {told}"):
        read_word_vectors(path, {"sheep": 0, "many": 1})


@pytest.mark.parametrize(
    "content",
    [b"2 3\nsheep 1 2 3\n", b"\xef\xbb\xbfsheep 1 2 3\n", b"sheep\t1\t2\t3\r\n"],
    ids=["a first line that counts", "UTF-8's mark", "tabs"],
)
def test_forms_that_word_vectors_also_come_in_are_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    assert read_word_vectors(path, {"sheep": 0}).tolist() == [[1.0, 2.0, 3.0]]


def test_archives_of_word_vectors_are_asked_for_a_member(tmp_path: Path) -> None:
    path = tmp_path / "glove.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("50d.txt", "sheep 1\n")
        archive.writestr("100d.txt", "sheep 1 2\n")
    with pytest.raises(InputError, match=r"holds 100d\.txt, 50d\.txt; name one as .*glove\.zip::MEMBER"):
        read_word_vectors(path, {"sheep": 0})
    assert read_word_vectors(Path(f"{path}::100d.txt"), {"sheep": 0}).tolist() == [[1.0, 2.0]]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="cannot be read"):
        read_word_vectors(path, {"sheep": 0})


def test_a_word_of_several_words_is_none_of_the_words(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("sheep 1 2\nmany at x.com 3 4\nmany 5 6\n")
    assert read_word_vectors(path, {"sheep": 0, "many": 1}).tolist() == [[1.0, 2.0], [5.0, 6.0]]


def test_another_member_of_the_same_archive_is_prepared_anew(dataset: Dataset) -> None:
    path = dataset.source / "glove.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "sheep 1 2\n")
        archive.writestr("b.txt", "sheep 1 2 3\n")
    widths = []
    for member in ("a.txt", "b.txt"):
        chosen = FileChoice(word_vectors=f"{path}::{member}")
        vectors = quietly(dataclasses.replace(dataset, named=chosen)).spec.word_vectors
        assert vectors is not None
        widths.append(vectors.shape[1])
    assert widths == [2, 3]


def test_many_texts_of_many_types_keep_their_own_tokens() -> None:
    texts, types = 50_000, [f"type{n}" for n in range(50_000)]
    encoder = Encoder(1, ["yes"], types, collect_words([(f"w{n}",) for n in range(texts)]))
    codes = np.arange(texts, dtype=np.int32)
    tokens, _ = encoder.encode([Question(n, n, f"w{n}") for n in range(texts)], Categorical(types, codes))
    assert tokens[:, 0].tolist() == list(range(2, texts + 2))


def test_spec_and_batch_cannot_be_changed_in_place(dataset: Dataset) -> None:
    prepared = quietly(dataset)
    with pytest.raises(dataclasses.FrozenInstanceError):
        prepared.spec.regions = 3  # type: ignore[misc]
    batch = split_of(prepared, "train").batch(torch.tensor([0]), with_targets=True)
    other = batch.replace(regions_BRV=torch.zeros_like(batch.regions_BRV))
    assert np.asarray(batch.regions_BRV).any()
    assert not np.asarray(other.regions_BRV).any()


def test_the_vocabulary_may_take_the_test_in_and_tables_say_so(cli: CommandLine, tmp_path: Path) -> None:
    catalog = write_tiny(tmp_path / "own")
    for kind in ("questions", "annotations"):
        path = tmp_path / "own" / f"test_{kind}.json"
        path.write_text(path.read_text().replace('"red"', '"green"'))
    assert "green" not in quietly(find_dataset("tiny", catalog, tmp_path / "data")).spec.answers
    catalog.write_text(catalog.read_text().replace("[tiny]", '[tiny]\nvocabulary = "train+test"', 1))
    assert "green" in quietly(find_dataset("tiny", catalog, tmp_path / "data")).spec.answers
    fast = ("--epochs", "1", "--set", "hidden=4", "--set", "embedding=4")
    assert cli("train", "updn", "--dataset", "tiny", "--catalog", catalog, *fast).returncode == 0
    shown = cli("compare").stdout
    assert "ce-plain" in shown
    assert "‡ the answer vocabulary was made of train and test: not comparable with unmarked runs" in shown


def change_catalog(dataset: Dataset, *lines: str) -> Dataset:
    """Add lines to the entry of the data set."""
    catalog = dataset.source / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("[tiny]", "\n".join(["[tiny]", *lines]), 1))
    return find_dataset("tiny", catalog, dataset.folder.parent)


def test_questions_about_images_whose_features_are_broken_are_as_those_without_features(dataset: Dataset) -> None:
    features = dataset.source / "features.tsv"
    lines = features.read_text().splitlines()
    features.write_text("\n".join([*lines[:-1], lines[-1][:-9], ""]))
    with pytest.raises(InputError, match=r"features\.tsv, line 6: image 5"):
        quietly(dataset)
    skipping = change_catalog(dataset, 'broken_features = "skip"')
    told: list[str] = []
    with pytest.raises(InputError, match=r"1 images have no features \(ids 5\)"):
        prepare(skipping, told.append)
    assert any(line.startswith("1 broken row left out (images 5)") for line in told)
    told = said(change_catalog(dataset, 'images_without_features = "skip"'))
    assert "train: 10 of 60 questions are left out: no image features" in told


def test_features_may_be_kept_in_float32(dataset: Dataset) -> None:
    assert quietly(dataset).features.regions.dtype == np.float16
    prepared = quietly(change_catalog(dataset, 'feature_precision = "float32"'))
    assert prepared.features.regions.dtype == np.float32
    batch = split_of(prepared, "train").batch(torch.tensor([0]), with_targets=False)
    assert batch.regions_BRV.dtype == torch.float32


def test_features_may_lie_in_a_folder_of_npz_files_and_a_changed_one_is_prepared_again(dataset: Dataset) -> None:
    folder = dataset.source / "npz"
    folder.mkdir()
    for image in range(6):
        write_npz(folder / f"{image}.npz", image, 2)
    catalog = dataset.source / "catalog.toml"
    catalog.write_text(catalog.read_text().replace('"features.tsv"', '"npz"'))
    dataset = find_dataset("tiny", catalog, dataset.folder.parent)
    first = quietly(dataset)
    assert first.features.counts.tolist() == [2] * 6
    write_npz(folder / "3.npz", 3, 1)
    assert quietly(dataset).fingerprint != first.fingerprint


@pytest.mark.parametrize("rows", [[3, 0, 7], [5], [], [2, 2]])
def test_some_questions_of_a_split_are_what_they_are_in_the_whole(dataset: Dataset, rows: list[int]) -> None:
    prepared = quietly(dataset)
    few = dataclasses.replace(prepared, splits={"test": prepared.splits["test"].take(rows)})
    whole, part = split_of(prepared, "test"), split_of(few, "test")
    assert len(part) == len(rows)
    if rows:
        expected = whole.batch(torch.tensor(rows), with_targets=True)
        batch = part.batch(torch.arange(len(rows)), with_targets=True)
        for name, tensor in vars(expected).items():
            if isinstance(tensor, torch.Tensor):
                assert torch.equal(getattr(batch, name), tensor), name

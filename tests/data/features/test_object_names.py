from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.region_sources import lxmert, write_own
from tests.tiny import IMAGES, write_tiny
from vqabench.data.catalog.dataset import Dataset, find_dataset
from vqabench.data.features.store import open_features, read_object_names
from vqabench.data.prepare.prepared import prepare
from vqabench.errors import InputError


def tiny_with_classes(folder: Path, names: str) -> Dataset:
    """The tiny data set with features that name objects of classes 5 and 6."""
    catalog = write_tiny(folder)
    (folder / "features.tsv").write_text("".join(lxmert(str(image)) for image in range(IMAGES)))
    (folder / "objects_vocab.txt").write_text(names)
    catalog.write_text(catalog.read_text().replace("[tiny]", '[tiny]\nobject_names = "objects_vocab.txt"', 1))
    return find_dataset("tiny", catalog, folder / "data")


def test_names_of_classes_reach_the_backbone_of_synonyms_the_first(tmp_path: Path) -> None:
    dataset = tiny_with_classes(
        tmp_path, "yolk\ngoggles\nbathtub,tub\n \u00e4 , b\nstreet light\nsheep\nfloor,flooring\n"
    )
    names = prepare(dataset, lambda _: None).spec.object_names
    assert names == ("yolk", "goggles", "bathtub", "ä", "street light", "sheep", "floor")


def test_another_list_of_names_is_another_data_set(tmp_path: Path) -> None:
    first = prepare(tiny_with_classes(tmp_path, "a\nb\nc\nd\ne\nf\ng\n"), lambda _: None)
    other = prepare(tiny_with_classes(tmp_path, "a\nb\nc\nd\ne\nf\nh\n"), lambda _: None)
    assert first.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a\nb\nc\nd\ne\nf\n", "6 names, but the region features have a class 6"),
        ("a\n\nb\n", "line 2: empty"),
        ("a\n,b\n", "line 2: empty"),
    ],
)
def test_names_that_do_not_fit_the_classes_are_refused(tmp_path: Path, names: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"objects_vocab\.txt.* {message}"):
        prepare(tiny_with_classes(tmp_path, names), lambda _: None)


def test_names_need_features_that_tell_classes(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\n")
    with pytest.raises(InputError, match="the region features do not hold the class of each region"):
        read_object_names(tmp_path / "names.txt", open_features(write_own(tmp_path / "f.h5")))


def test_a_missing_list_of_names_is_told(tmp_path: Path) -> None:
    features = open_features(write_own(tmp_path / "f.h5", object_ids=np.zeros((2, 2), np.int32)))
    with pytest.raises(InputError, match=r"none\.txt: there is no such list of names"):
        read_object_names(tmp_path / "none.txt", features)

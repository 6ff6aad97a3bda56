from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.region_sources import WIDTH, Array, write_own
from vqabench.data.features.store import open_features
from vqabench.errors import InputError


@given(arrays(np.float16, (2, 2, WIDTH), elements=st.floats(allow_nan=False, allow_infinity=False, width=16)))
def test_features_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, regions: NDArray[np.float16]
) -> None:
    path = write_own(tmp_path_factory.mktemp("own") / "features.h5", regions=regions)
    np.testing.assert_array_equal(open_features(path).regions, regions)


def test_text_ids_and_classes_come_back_too(tmp_path: Path) -> None:
    objects = np.arange(4, dtype=np.int32).reshape(2, 2)
    classes = {"object_ids": objects, "attribute_ids": objects + 4}
    store = open_features(write_own(tmp_path / "f.h5", image_ids=np.array(["ä.jpg", "b"]), **classes))
    assert store.image_ids.tolist() == ["ä.jpg", "b"]
    for name, ids in classes.items():
        np.testing.assert_array_equal(getattr(store, name), ids)


def test_the_large_arrays_are_mapped_and_writing_to_them_leaves_the_file_alone(tmp_path: Path) -> None:
    path = write_own(tmp_path / "features.h5")
    before = path.read_bytes()
    store = open_features(path)
    assert isinstance(store.regions.base, np.memmap)
    store.regions[:] = 0
    assert path.read_bytes() == before
    path.rename(tmp_path / "moved.h5")  # no handle stands in the way of the next writer
    with h5py.File(tmp_path / "moved.h5", "a"):
        pass


def test_rows_tells_how_many_images_are_missing(tmp_path: Path) -> None:
    store = open_features(write_own(tmp_path / "features.h5"))
    assert store.rows([8, 7, 8]).tolist() == [1, 0, 1]
    with pytest.raises(InputError, match=r"2 images have no features \(ids 1, 2\)"):
        store.rows([7, 1, 2, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"regions": np.ones((2, 2, WIDTH), np.float64)},
            r"regions must be float16 or float32 .*not float64 \[2, 2, 3\]",
        ),
        (
            {"boxes": np.ones((2, 1, 4), np.float32)},
            r"boxes must be float32 \[2, 2, 4\], not float32 \[2, 1, 4\]",
        ),
        ({"counts": np.array([3, 1], np.int32)}, "counts must be from 1 to 2"),
        ({"counts": np.array([2, 0], np.int32)}, "counts must be from 1 to 2"),
        ({"image_ids": np.array([7])}, r"image_ids must be generic \[2\]"),
        ({"object_ids": np.ones((2, 2), np.float32)}, "object_ids must be integer"),
        ({"attribute_ids": np.ones((2, 1), np.int32)}, "attribute_ids must be integer"),
    ],
)
def test_a_features_file_of_another_form_is_refused(
    tmp_path: Path, changes: dict[str, Array], message: str
) -> None:
    with pytest.raises(InputError, match=rf"features\.h5: {message}"):
        open_features(write_own(tmp_path / "features.h5", **changes))


def test_files_that_hold_no_features_are_refused(tmp_path: Path) -> None:
    whole = write_own(tmp_path / "whole.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("features")
    h5py.File(tmp_path / "other.h5", "w").close()
    for name in ("half.h5", "text.h5", "other.h5", "none.h5"):
        with pytest.raises(InputError, match=rf"{name}: (not a|there is no such) features file"):
            open_features(tmp_path / name)

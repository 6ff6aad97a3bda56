from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqabench.data.features.names import canonical_name, make_finder
from vqabench.files.folders import is_hidden


@pytest.mark.parametrize(
    ("name", "image"),
    [
        *(("42", 42), ("000042", 42), ("42.jpg", 42), (" 42 ", 42), ("b'42'", 42), ("42.WEBP", 42), ("-5", -5)),
        ("COCO_val2014_000000000042", 42),
        ("train2014/COCO_train2014_000000000042.jpg", 42),
        ("b'COCO_test2015_000000000042.png'", 42),
        ("abstract_v002_train2015_000000000042", 42),
        *(("VizWiz_val_00000042.jpg", "VizWiz_val_00000042"), ("val/0042", "val/0042"), ("n161", "n161")),
        *((str(2**63 - 1), 2**63 - 1), (str(2**63), str(2**63)), ("9" * 5000, "9" * 5000), ("4.2", "4.2")),
    ],
)
def test_a_name_means_a_number_only_where_it_says_so(name: str, image: int | str) -> None:
    assert canonical_name(name) == image


SPELLINGS = ["{}", "{:012}", "COCO_val2014_{:012}", "COCO_train2014_{:012}.jpg", "{}.png", "b'{}'"]


@settings(deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(SPELLINGS), st.sampled_from(SPELLINGS))
def test_an_image_is_found_by_any_name_whatever_the_questions_call_it(image: int, asked: str, given: str) -> None:
    for wanted in (image, asked.format(image)):
        find = make_finder([wanted, "other"])
        assert find(given.format(image)) == wanted
        assert find(image) == wanted
        assert find(str(image + 1)) is None


def test_where_two_wanted_images_would_have_one_name_only_the_exact_one_counts() -> None:
    find = make_finder(["7", "07"])
    assert [find(name) for name in ("7", "07", "007")] == ["7", "07", None]


def test_hidden_files_and_those_in_hidden_folders_are_known() -> None:
    hidden = ["._a.jpg", "__MACOSX/a.jpg", "a/.b/c.jpg", ".DS_Store"]
    assert [is_hidden(name) for name in [*hidden, "./a.jpg", "../a.jpg", "a.b/c.jpg"]] == [True] * 4 + [False] * 3

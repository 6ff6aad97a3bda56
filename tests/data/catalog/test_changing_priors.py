from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.data.catalog.changing_priors import (
    AnswerGroup,
    concepts_of,
    groups_of,
    measure_shift,
    resplit,
    split_by_ids,
)
from vqabench.data.vqa.annotation_table import tabulate
from vqabench.data.vqa.annotations import read_annotations
from vqabench.errors import InputError

WORDS = ["red", "dog", "blue cat", "red cat", "one", "yes", "no", "the"]
TRAIN_IDS = "train2014_question_ids.248349.txt.gz"
TYPES = ["how many", "what color", "is there a red", "what dog"]


GROUPS = st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(WORDS)), min_size=2, max_size=40)


def slow_resplit(asked: list[AnswerGroup], share: float, order: list[AnswerGroup]) -> list[bool]:
    """Follow the same procedure, each choice made by looking at everything."""
    questions = Counter(asked)
    types = Counter(name for name, _ in asked)
    left = list(order)
    train: list[AnswerGroup] = []
    test: list[AnswerGroup] = []

    def may_go(group: AnswerGroup, reserved: int) -> bool:
        in_train = frozenset[str]().union(*map(concepts_of, train))
        elsewhere = in_train.union(*(concepts_of(one) for one in left if one != group))
        size = sum(questions[one] for one in test) + questions[group]
        of_type = sum(questions[one] for one in test if one[0] == group[0]) + questions[group]
        fits = size + reserved <= round(share * len(asked)) and of_type <= int(0.9 * types[group[0]])
        return group in left and concepts_of(group) <= elsewhere and fits

    names = list(dict.fromkeys(name for name, _ in order))
    for number, name in enumerate(names):
        reserved = sum(min(questions[one] for one in order if one[0] == later) for later in names[number + 1 :])
        own = [one for one in order if one[0] == name]
        large = [one for one in own if questions[one] >= 0.1 * types[name]]
        small = [one for one in own if one not in large]
        chosen = next((one for one in large + small if may_go(one, reserved)), None)
        if chosen:
            left.remove(chosen)
            test.append(chosen)
    for group in order:
        if not may_go(group, 0):
            continue
        left.remove(group)
        test.append(group)
        in_train = frozenset[str]().union(*map(concepts_of, train))
        wanted = frozenset().union(*map(concepts_of, test)) - in_train
        best = max(left, key=lambda one: len(concepts_of(one) & wanted), default=None)
        if best is not None and concepts_of(best) & wanted:
            left.remove(best)
            train.append(best)
    return [group in test for group in asked]


@settings(deadline=None)  # stop words take a second to load
@given(GROUPS, st.floats(0.05, 0.95), st.integers(0, 3))
def test_the_split_is_what_a_slow_search_finds(asked: list[AnswerGroup], share: float, seed: int) -> None:
    order = sorted(set(asked))
    random.Random(seed).shuffle(order)
    expected = slow_resplit(asked, share, order)
    assume(any(expected))
    assert resplit(asked, share, seed) == expected


def test_groups_that_cannot_be_parted_are_told() -> None:
    with pytest.raises(InputError, match="no group of questions can go to the test"):
        resplit([("what color", "red"), ("what color", "green")], 0.5, 0)


@settings(deadline=None)  # stop words take a second to load
@given(GROUPS, st.floats(0.05, 0.95))
def test_no_group_is_in_both_and_train_has_every_word_of_the_test(asked: list[AnswerGroup], share: float) -> None:
    try:
        in_test = resplit(asked, share, 0)
    except InputError:  # too few, or each with a word of its own
        return
    groups: dict[bool, set[AnswerGroup]] = {False: set(), True: set()}
    for group, test in zip(asked, in_test, strict=True):
        groups[test].add(group)
    assert not groups[False] & groups[True]
    train_words = frozenset().union(*map(concepts_of, groups[False]))
    assert all(concepts_of(group) <= train_words for group in groups[True])
    assert sum(in_test) <= round(share * len(asked))
    types = Counter(name for name, _ in asked)
    in_train = Counter(name for (name, _), test in zip(asked, in_test, strict=True) if not test)
    assert all(in_train[name] >= 0.1 * count for name, count in types.items())


@pytest.mark.parametrize("seed", range(12))
def test_every_question_type_is_on_both_sides(samples: Path, seed: int) -> None:
    groups = real_groups(samples, "flat_layout_annotations.32723.json.gz")
    shift = measure_shift(groups, resplit(groups, 1 / 3, seed))
    assert (shift.types, shift.train_only, shift.test_only) == (65, (), ())


def test_a_type_that_has_one_answer_stays_in_train_and_is_named() -> None:
    groups = [("what is red", "yes"), ("what is red", "no")] * 5 + [("red", "yes"), ("no", "no")] * 5
    shift = measure_shift(groups, resplit(groups, 0.4, 0))
    assert (shift.types, shift.train_only, shift.test_only) == (3, ("no", "red"), ())


def test_types_without_a_training_question_are_named() -> None:
    groups = [("how many", "1"), ("how many", "2"), ("where is", "left")]
    shift = measure_shift(groups, [False, True, True])
    assert (shift.types, shift.train_only, shift.test_only) == (2, (), ("where is",))


@cache
def real_groups(samples: Path, *names: str) -> list[AnswerGroup]:
    found = {a.question_id: a for name in names for a in read_annotations(samples / "vqa-v2" / name)}
    return groups_of(tabulate(found.values()))


def test_the_shift_is_the_distance_between_a_types_answers() -> None:
    train = [("how many", answer) for answer in ["1", "1", "1", "2"]]
    test = [("how many", answer) for answer in ["1", "2", "2", "2"]]
    shift = measure_shift([*train, *test], [False] * 4 + [True] * 4)
    assert shift.distance == pytest.approx(0.5)
    assert shift.concepts_covered == 1
    unseen = measure_shift([*train, ("where is", "left")], [False] * 4 + [True])
    assert (unseen.distance, unseen.concepts_covered) == (1, 0)


def test_a_test_question_that_the_data_lacks_is_named() -> None:
    assert split_by_ids([1, 2, 3], {3, 1}) == [True, False, True]
    with pytest.raises(InputError, match=r"2 of the 3 test questions .*ids 8, 9"):
        split_by_ids([1, 2, 3], {3, 8, 9})


def test_vqa_cp_v1_takes_the_known_share_of_the_vqa_v1_training_questions(samples: Path) -> None:
    folder = samples / "vqa-v1"
    listed = gzip.decompress((folder / "vqa_cp_v1_test_answer_types.125314.json.gz").read_bytes())
    test_ids = {int(key) for key in json.loads(listed)}
    train_ids = [int(line) for line in gzip.decompress((folder / TRAIN_IDS).read_bytes()).split()]
    in_test = split_by_ids(train_ids, test_ids.intersection(train_ids))
    assert (len(test_ids), len(train_ids), sum(in_test)) == (125_314, 248_349, 84_421)


def test_the_real_questions_are_split_again(samples: Path) -> None:
    names = ("v2_mscoco_train2014_annotations.60000.json.gz", "flat_layout_annotations.32723.json.gz")
    groups = real_groups(samples, *names)
    assert len(groups) == 89_710
    in_test = resplit(groups, 1 / 3, 0)
    assert in_test == resplit(groups, 1 / 3, 0)
    assert sum(in_test) / len(in_test) == pytest.approx(1 / 3, abs=0.001)
    shift = measure_shift(groups, in_test)
    assert shift.concepts_covered == 1
    assert shift.distance == pytest.approx(1)
    by_chance = measure_shift(groups, [number % 3 == 0 for number in range(len(groups))])
    assert by_chance.distance < 0.3


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "own")


def test_a_rebuilt_data_set_is_trained_on(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps({str(number): "other" for number in (0, 1, 2, 3, 2003)}))
    done = cli("data", "rebuild-cp", "tiny", "--test-ids", ids, "--out", tmp_path / "cp", "--catalog", catalog)
    assert done.returncode == 0, done.stderr
    assert "tiny-cp: train 79, test 5 questions" in done.stdout
    record = json.loads((tmp_path / "cp" / "split.json").read_text())
    assert record["source"] == "tiny"
    assert record["splits"]["test"]["questions"] == 5
    new = tmp_path / "cp" / "catalog.toml"
    new.write_text(new.read_text().replace("share = 0.05", "share = 0.5"))  # there are six images
    command = ("--dataset", "tiny-cp", "--catalog", new, "--epochs", "1", "--set", "hidden=4")
    done = cli("train", "updn", *command)
    assert done.returncode == 0, done.stderr


def test_a_new_split_is_labelled_and_overwrites_nothing(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    path = catalog.parent / "train_annotations.json"
    annotated = json.loads(path.read_text())
    for annotation in annotated["annotations"][30:]:
        annotation["question_type"] += " sheep"
    path.write_text(json.dumps(annotated))
    command = ("data", "resplit", "tiny", "--out", tmp_path / "new", "--catalog", catalog)
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert "not VQA-CP" in (tmp_path / "new" / "catalog.toml").read_text()
    again = cli(*command)
    assert (again.returncode, "not empty" in again.stderr) == (2, True)
    wrong = cli("data", "resplit", "tiny", "--out", tmp_path / "x", "--catalog", catalog, "--share", "2")
    assert (wrong.returncode, "--share must be" in wrong.stderr) == (2, True)


def test_a_name_with_a_dot_keeps_it(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    catalog.write_text(catalog.read_text().replace("[tiny", '["my.set"'))
    (tmp_path / "ids").write_text("0 1 2003")
    out = tmp_path / "cp"
    done = cli("data", "rebuild-cp", "my.set", "--test-ids", tmp_path / "ids", "--out", out, "--catalog", catalog)
    assert done.returncode == 0, done.stderr
    assert cli("data", "info", "my.set-cp", "--catalog", out / "catalog.toml").returncode == 0

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.data.annotations import Annotation, Answer, read_annotations
from vqabench.data.changing_priors import (
    Group,
    concepts_of,
    group_of,
    measure_shift,
    read_test_ids,
    resplit,
    split_by_ids,
)
from vqabench.errors import InputError

WORDS = ["red", "dog", "blue cat", "red cat", "one", "yes", "no", "the"]
TRAIN_IDS = "train2014_question_ids.248349.txt.gz"
TYPES = ["how many", "what color", "is there a red", "what dog"]


def annotate(number: int, question_type: str, answer: str) -> Annotation:
    return Annotation(number, number, question_type, "other", (Answer(answer),) * 10, answer)


@st.composite
def annotation_lists(draw: st.DrawFn) -> list[Annotation]:
    pairs = draw(st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(WORDS)), min_size=2, max_size=40))
    return [annotate(number, *pair) for number, pair in enumerate(pairs)]


def slow_resplit(annotations: list[Annotation], share: float, order: list[Group]) -> list[bool]:
    """The same procedure, each choice made by looking at everything."""
    questions = defaultdict(list)
    for number, annotation in enumerate(annotations):
        questions[group_of(annotation)].append(number)
    left = list(order)
    train: list[Group] = []
    test: list[Group] = []
    for group in order:
        others = [one for one in left if one != group]
        in_train = frozenset[str]().union(*map(concepts_of, train))
        elsewhere = in_train.union(*map(concepts_of, others))
        size = sum(len(questions[one]) for one in test) + len(questions[group])
        if group not in left or not concepts_of(group) <= elsewhere or size > round(share * len(annotations)):
            continue
        left.remove(group)
        test.append(group)
        wanted = frozenset().union(*map(concepts_of, test)) - in_train
        best = max(left, key=lambda one: len(concepts_of(one) & wanted), default=None)
        if best is not None and concepts_of(best) & wanted:
            left.remove(best)
            train.append(best)
    return [group_of(annotation) in test for annotation in annotations]


@settings(deadline=None)  # stop words take a second to load
@given(annotation_lists(), st.floats(0.05, 0.95), st.integers(0, 3))
def test_the_split_is_what_a_slow_search_finds(annotations: list[Annotation], share: float, seed: int) -> None:
    order = sorted({group_of(annotation) for annotation in annotations})
    random.Random(seed).shuffle(order)
    expected = slow_resplit(annotations, share, order)
    assume(any(expected))
    assert resplit(annotations, share, seed) == expected


def test_groups_that_cannot_be_parted_are_told() -> None:
    with pytest.raises(InputError, match="no group of questions can go to the test"):
        resplit([annotate(0, "what color", "red"), annotate(1, "what color", "green")], 0.5, 0)


@settings(deadline=None)  # stop words take a second to load
@given(annotation_lists(), st.floats(0.05, 0.95))
def test_no_group_is_in_both_and_train_has_every_word_of_the_test(
    annotations: list[Annotation], share: float
) -> None:
    try:
        in_test = resplit(annotations, share, 0)
    except InputError:  # too few, or each with a word of its own
        return
    groups: dict[bool, set[Group]] = {False: set(), True: set()}
    for annotation, test in zip(annotations, in_test, strict=True):
        groups[test].add(group_of(annotation))
    assert not groups[False] & groups[True]
    train_words = frozenset().union(*map(concepts_of, groups[False]))
    assert all(concepts_of(group) <= train_words for group in groups[True])
    assert sum(in_test) <= round(share * len(annotations))


def test_the_shift_is_the_distance_between_a_types_answers() -> None:
    train = [annotate(n, "how many", answer) for n, answer in enumerate(["1", "1", "1", "2"])]
    test = [annotate(n, "how many", answer) for n, answer in enumerate(["1", "2", "2", "2"], 10)]
    shift = measure_shift([*train, *test], [False] * 4 + [True] * 4)
    assert shift.distance == pytest.approx(0.5)
    assert shift.concepts_covered == 1
    unseen = measure_shift([*train, annotate(20, "where is", "left")], [False] * 4 + [True])
    assert (unseen.distance, unseen.concepts_covered) == (1, 0)


@pytest.mark.parametrize("content", ['{"7": "other", "9": "yes/no"}', "[7, 9]", "7\n9\n", " 7 9"])
def test_ids_come_in_three_forms(tmp_path: Path, content: str) -> None:
    (tmp_path / "ids").write_text(content)
    assert read_test_ids(tmp_path / "ids") == {7, 9}


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "seven"])
def test_what_holds_no_ids_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "ids").write_text(content)
    with pytest.raises(InputError, match="ids"):
        read_test_ids(tmp_path / "ids")


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
    found = {a.question_id: a for name in names for a in read_annotations(samples / "vqa-v2" / name)}
    annotations = list(found.values())
    assert len(annotations) == 89_710
    in_test = resplit(annotations, 1 / 3, 0)
    assert in_test == resplit(annotations, 1 / 3, 0)
    assert sum(in_test) / len(in_test) == pytest.approx(1 / 3, abs=0.001)
    shift = measure_shift(annotations, in_test)
    assert shift.concepts_covered == 1
    assert shift.distance == pytest.approx(1)
    by_chance = measure_shift(annotations, [number % 3 == 0 for number in range(len(annotations))])
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

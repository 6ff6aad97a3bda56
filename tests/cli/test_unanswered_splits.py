"""A split without annotations, such as test2015, and questions that are in two splits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.outcomes import fails
from tests.tiny import write_tiny
from vqabench.data.vqa.words import guess_type, split_words

FAST = ("--epochs", "1", "--set", "hidden=8", "--set", "embedding=8")


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Return a catalogue whose test split has no annotations, and for whose questions no type was written down."""
    catalog = write_tiny(tmp_path / "own")
    catalog.write_text(catalog.read_text().replace('annotations = "test_annotations.json"\n', ""))
    (catalog.parent / "test_annotations.json").unlink()
    path = catalog.parent / "test_questions.json"
    path.write_text(path.read_text().replace("How many sheep are there?", "Why are they there?", 1))
    return catalog


def test_a_split_without_annotations_is_answered_and_not_scored(
    cli: CommandLine, catalog: Path, tmp_path: Path
) -> None:
    own = ("--catalog", catalog)
    done = cli("data", "prepare", "tiny", *own)
    assert done.returncode == 0, done.stderr
    assert "test: no annotations, so it can be answered" in done.stderr
    assert "(1 of 12 begin with no known type)" in done.stderr
    assert "train 60, val 12, test 12 questions" in done.stdout
    assert "test (no annotations)" in cli("data", "info", "tiny", *own).stdout
    done = cli("data", "verify", "tiny", *own)
    assert (done.returncode, "BAD" in done.stdout) == (0, False), done.stdout
    for loss in ("plain", "rescale"):
        done = cli("train", "updn", "--loss", loss, "--dataset", "tiny", *own, *FAST)
        assert done.returncode == 0, done.stderr
        assert (
            "test has no annotations, so it is not scored; to answer it: vqabench predict RUN --split test"
            in done.stderr
        )
    run = next(tmp_path.glob("runs/tiny/updn/*plain*/seed-0"))
    assert json.loads((run / "scores.json").read_bytes()).keys() == {"val"}
    for out in ((), ("--out", "results.json")):
        done = cli("predict", run, *own, *out)
        assert done.returncode == 0, done.stderr
        assert "answers to test are not scored, because it has no annotations" in done.stdout
    given = json.loads((tmp_path / "results.json").read_bytes())
    assert [one.keys() for one in given] == [{"question_id", "answer"}] * 12
    assert sorted(one["question_id"] for one in given) == list(range(2000, 2012))
    assert "in-domain val" in cli("compare").stdout
    assert cli("compare", "--by", "prior", *own).returncode == 0
    done = cli("report", "-o", "report.html", *own)
    assert done.returncode == 0, done.stderr
    fails(cli("evaluate", "results.json", "--dataset", "tiny", *own), "no annotations for the split test")
    wrong = ("train", "updn", "--dataset", "tiny", *own, *FAST)
    fails(cli(*wrong, "--select", "test"), "--select test: tiny has no such split with annotations")
    fails(cli(*wrong, "--track-test"), "--track-test: tiny has no such split with annotations")


def test_questions_without_annotations_stay_out_of_a_resplit(
    cli: CommandLine, catalog: Path, tmp_path: Path
) -> None:
    (tmp_path / "ids").write_text("0\n1\n2\n")
    done = cli("data", "rebuild-cp", "tiny", "--test-ids", "ids", "--out", "cp", "--catalog", catalog)
    assert "train 69, test 3 questions" in done.stdout, done.stderr
    written = json.loads((tmp_path / "cp" / "train_questions.json").read_bytes())["questions"]
    assert all(one["question_id"] < 2000 for one in written)


@pytest.mark.parametrize("split", ["train", "val"])
def test_train_needs_annotations_and_val_does_not(cli: CommandLine, tmp_path: Path, split: str) -> None:
    catalog = write_tiny(tmp_path / "own")
    catalog.write_text(catalog.read_text().replace(f'annotations = "{split}_annotations.json"\n', ""))
    done = cli("train", "updn", "--dataset", "tiny", "--catalog", catalog, *FAST)
    if split == "train":
        fails(done, "needs [tiny.splits.train] with questions and annotations")
    else:
        assert done.returncode == 0, done.stderr
        scores = next(tmp_path.glob("runs/tiny/updn/*/seed-0/scores.json"))
        assert json.loads(scores.read_bytes()).keys() == {"test"}


def test_a_question_has_the_longest_type_that_it_begins_with() -> None:
    types = {tuple(name.split()): name for name in ("what", "what color", "what color is the", "is")}
    for question, expected in [
        ("What color is the bus?", "what color is the"),
        ("What color is it?", "what color"),
        ("What, color?", "what color"),
        ("What?", "what"),
        ("Whatever is", None),
        ("", None),
    ]:
        assert guess_type(split_words(question), types) == expected


def test_questions_in_two_splits_are_refused_or_left_out_of_train(cli: CommandLine, tmp_path: Path) -> None:
    catalog = write_tiny(tmp_path / "own")
    text = catalog.read_text().replace('"train_questions.json"', '["train_questions.json", "test_questions.json"]')
    text = text.replace('"train_annotations.json"', '["train_annotations.json", "test_annotations.json"]')
    catalog.write_text(text)
    own = ("--catalog", catalog)
    fails(cli("data", "prepare", "tiny", *own), "12 questions are in two splits", 'repeated_questions = "drop"')
    catalog.write_text(text.replace("[tiny]", '[tiny]\nrepeated_questions = "drop"', 1))
    done = cli("data", "prepare", "tiny", *own)
    assert "train: 12 questions are dropped because they are also in val or test" in done.stderr, done.stderr
    assert "train 60, val 12, test 12 questions" in done.stdout
    assert cli("data", "verify", "tiny", *own).returncode == 0
    assert cli("train", "updn", "--dataset", "tiny", *own, *FAST).returncode == 0
    (tmp_path / "ids").write_text("0\n1\n2\n")
    done = cli("data", "rebuild-cp", "tiny", "--test-ids", "ids", "--out", "cp", *own)
    assert "train 81, test 3 questions" in done.stdout, done.stderr
    assert len(json.loads((tmp_path / "cp" / "train_questions.json").read_bytes())["questions"]) == 81


def test_repeated_questions_are_left_out_before_val_is_carved(cli: CommandLine, tmp_path: Path) -> None:
    catalog = write_tiny(tmp_path / "own")
    text = re.sub(r"\[tiny.splits.val\][^[]*", "", catalog.read_text())
    text = text.replace('"train_questions.json"', '["train_questions.json", "test_questions.json"]')
    text = text.replace('"train_annotations.json"', '["train_annotations.json", "test_annotations.json"]')
    keys = '[tiny]\nrepeated_questions = "drop"\nvalidation = { share = 0.5 }\n'
    catalog.write_text(text.replace("[tiny]", keys, 1))
    done = cli("data", "prepare", "tiny", "--catalog", catalog)
    sizes = [int(count) for count in re.findall(r"(?:train|val|test) (\d+)", done.stdout)]
    assert (sum(sizes), sizes[2]) == (72, 12), done.stderr

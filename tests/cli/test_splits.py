"""`vqabench data rebuild-cp` and `resplit`, on a data set of the user."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CommandLine, resize
from tests.outcomes import fails
from tests.tiny import questions_of, write_tiny
from vqabench.data.catalog import changing_priors
from vqabench.data.vqa.annotations import Prediction, write_predictions


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Return the catalogue of a data set that can be split anew."""
    catalog = write_tiny(tmp_path / "own data")
    path = catalog.parent / "train_annotations.json"
    annotated = json.loads(path.read_text())
    for annotation in annotated["annotations"][30:]:
        annotation["question_type"] += " sheep"
    path.write_text(json.dumps(annotated))
    return catalog


def without_features(catalog: Path) -> None:
    text = re.sub(r"^features = .*$", 'features_from = "somewhere"', catalog.read_text(), flags=re.MULTILINE)
    catalog.write_text(text)


def test_the_next_command_can_be_pasted(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    done = cli("data", "resplit", "tiny", "--out", "a new/split", "--catalog", catalog)
    (spelled,) = re.findall("next: vqabench (.*)", done.stdout)
    assert spelled == "data prepare tiny-resplit --catalog 'a new/split/catalog.toml'"
    new = tmp_path / "a new" / "split" / "catalog.toml"
    new.write_text(new.read_text().replace("share = 0.05", "share = 0.5"))  # there are six images
    assert cli(*shlex.split(spelled)).returncode == 0
    without_features(catalog)
    done = cli("data", "resplit", "tiny", "--out", "another", "--catalog", catalog)
    assert done.stdout.endswith("--catalog another/catalog.toml --features FILE\n")


def test_splits_of_other_seeds_and_shares_have_other_names(cli: CommandLine, catalog: Path) -> None:
    options = [(), ("--seed", "3"), ("--share", "0.25"), ("--seed", "3", "--share", "0.25")]
    message = [
        cli("data", "resplit", "tiny", "--out", f"out{n}", "--catalog", catalog, *given).stdout
        for n, given in enumerate(options)
    ]
    assert [line.partition(":")[0] for line in message] == [
        "tiny-resplit",
        "tiny-resplit-seed3",
        "tiny-resplit-share0.25",
        "tiny-resplit-share0.25-seed3",
    ]


@pytest.mark.parametrize("pack", [gzip.compress, lambda content: b"\xef\xbb\xbf" + content])
def test_the_list_may_be_packed_or_marked(cli: CommandLine, catalog: Path, tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    (tmp_path / "ids").write_bytes(pack(b'{"0": "other", "1": "other"}'))
    done = cli("data", "rebuild-cp", "tiny", "--test-ids", "ids", "--out", "cp", "--catalog", catalog)
    assert "train 82, test 2 questions" in done.stdout, done.stderr


def test_a_split_that_does_not_fit_on_the_disk_leaves_nothing_and_can_be_made_again(
    cli: CommandLine, catalog: Path, small_disk: Path
) -> None:
    resize(small_disk, 64)
    command = ("data", "resplit", "tiny", "--out", small_disk / "split", "--catalog", catalog)
    done = cli(*command)
    assert (done.returncode, "No space left on device" in done.stderr) == (1, True), done.stderr
    assert not list(small_disk.iterdir())
    resize(small_disk, 1000)
    assert cli(*command).returncode == 0


KILLED = """
import os, signal, sys

def kill(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("catalog.toml"):  # the last of the files
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
from vqabench.cli import main
main()
"""


@pytest.mark.slow
def test_what_a_killed_split_leaves_is_swept_up_by_the_next(
    cli: CommandLine, catalog: Path, tmp_path: Path
) -> None:
    command = ("data", "resplit", "tiny", "--out", str(tmp_path / "out"), "--catalog", str(catalog))
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".out.part-*"))) == 1
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob(".out*")) == []


def test_files_that_change_while_they_are_split_are_not_mixed(
    cli: CommandLine, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = catalog.parent / "train_annotations.json"
    measure = changing_priors.measure_shift

    def change(*given: object) -> object:
        file.write_bytes(file.read_bytes().replace(b'"answer": "0"', b'"answer": "1"'))
        return measure(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(changing_priors, "measure_shift", change)
    done = cli("data", "resplit", "tiny", "--out", "out", "--catalog", catalog)
    assert done.returncode == 1
    assert "train_annotations.json: changed while this command was running, so nothing was written" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_may_be_the_place_even_this_one(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = cli("data", "resplit", "tiny", "--out", "empty", "--catalog", catalog)
    assert done.returncode == 0, done.stderr
    fails(cli("data", "resplit", "tiny", "--out", ".", "--catalog", catalog), "exists and is not empty")
    fails(cli("data", "resplit", "tiny", "--out", "/", "--catalog", catalog), "exists and is not empty")


def test_what_cannot_be_split_is_one_line(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    everything = [question.question_id for split in ("train", "val", "test") for question in questions_of(split)[0]]
    (tmp_path / "all").write_text(" ".join(map(str, everything)))
    own = ("--out", "x", "--catalog", catalog)
    done = cli("data", "rebuild-cp", "tiny", "--test-ids", "all", *own)
    fails(done, "all 84 questions would be in the test")
    fails(cli("data", "rebuild-cp", "vqa-v2", "--test-ids", "all", "--out", "x"), "run: vqabench data fetch vqa-v2")
    (tmp_path / "file").write_text("")
    fails(cli("data", "resplit", "tiny", "--out", "file/x", "--catalog", catalog), "File exists")
    (catalog.parent / "test_questions.json").unlink()
    fails(cli("data", "resplit", "tiny", *own), "1 of its files are missing", "test_questions.json")


def test_a_results_file_is_scored_against_a_split_without_features(
    cli: CommandLine, catalog: Path, tmp_path: Path
) -> None:
    without_features(catalog)
    _, annotations = questions_of("test")
    results = [Prediction(one.question_id, one.multiple_choice_answer or "") for one in annotations]
    write_predictions(tmp_path / "results.json", results)
    done = cli("evaluate", "results.json", "--dataset", "tiny", "--catalog", catalog, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"]["all"] == 100

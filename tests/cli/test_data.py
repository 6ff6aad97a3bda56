"""`vqabench data`: from an empty folder to a trained epoch, with a server on loopback."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.conftest import CommandLine
from tests.file_server import FileServer, serving
from tests.outcomes import fails
from tests.processes import in_terminal
from tests.tiny import questions_of, write_tsv
from vqabench.data.catalog.dataset import find_dataset
from vqabench.data.catalog.entries import read_catalog
from vqabench.results import Run

CATALOG = """
[small]
title = "a few questions"
features_from = "tests/tiny.py"
minimum_answer_count = 2
question_length = 6
validation = {{ share = 0.4, seed = 3 }}

[small.splits]
train = {{ questions = "train_q.zip", annotations = "train_a.zip" }}
test = {{ questions = "test_q.zip", annotations = "test_a.zip" }}

[small.counts]
train = {{ questions = 60, images = 6, answers = 600 }}
test = {{ questions = 12 }}

[small.files]
"train_q.zip" = {{ urls = ["{url}/gone/train_q.zip.old", "{url}/train_q.zip"] }}
"train_a.zip" = {{ urls = ["{url}/train_a.zip"] }}
"test_q.zip" = {{ urls = ["{url}/test_q.zip"] }}
"test_a.zip" = {{ urls = ["{url}/test_a.zip"] }}

[small-cp]
title = "the same, split anew"
features_from = "tests/tiny.py"
minimum_answer_count = 2
derived = {{ from = "small", test_ids = "ids.json" }}
files."ids.json" = {{ urls = ["{url}/ids.json"] }}

[small-cp.counts]
train = {{ questions = 52 }}
test = {{ questions = 20, answers = 200 }}
"""
TEST_IDS = [*range(0, 60, 6), *range(2002, 2012)]


def zipped(path: Path, **members: object) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.json", msgspec.json.encode(content))
        archive.writestr("filler.bin", random.Random(0).randbytes(100_000))  # so that it comes in several pieces
    return path.read_bytes()


def write_files(folder: Path) -> dict[str, bytes]:
    """Write the archives of VQA v1: its questions come in two forms."""
    folder.mkdir()
    files = {"ids.json": json.dumps({str(number): "other" for number in TEST_IDS}).encode()}
    for split in ("train", "test"):
        questions, annotations = questions_of(split)
        asked = {"OpenEnded": {"questions": questions}, "MultipleChoice": {"questions": questions[:3]}}
        files[f"{split}_q.zip"] = zipped(folder / f"{split}_q.zip", **asked)
        files[f"{split}_a.zip"] = zipped(folder / f"{split}_a.zip", all={"annotations": annotations})
    (folder / "ids.json").write_bytes(files["ids.json"])
    return files


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serve the files; the catalogue that names them is the user's own."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as state:
        state.files = write_files(tmp_path / "own")
        catalog = tmp_path / "catalog.toml"
        catalog.write_text(CATALOG.format(url=state.url))
        monkeypatch.setenv("VQABENCH_CATALOG", str(catalog))
        yield state


def test_vqa_and_its_list_are_fetched_prepared_and_trained_on(
    cli: CommandLine, server: FileServer, tmp_path: Path
) -> None:
    server.faults = ["", "drop"]
    done = cli("data", "fetch", "small-cp")
    assert done.returncode == 0, done.stderr
    raw = tmp_path / "data" / "small-cp" / "raw"
    assert f"{raw}: train 52, test 20 questions" in done.stdout
    assert "total variation distance" in done.stdout
    (spelled,) = re.findall(r"next: vqabench (.*) --features FILE", done.stdout)
    refused = cli(*shlex.split(spelled), "--features", tmp_path / "none.tsv")
    assert "none.tsv: there is no such file" in refused.stderr
    assert "answers 404 Not Found; trying the next mirror" in done.stderr
    test_ids = [
        question.question_id
        for question in find_dataset("small-cp", None, tmp_path / "data").read_questions("test")
    ]
    assert sorted(test_ids) == sorted(TEST_IDS)

    write_tsv(tmp_path / "features.tsv")
    assert cli("data", "prepare", "small-cp", "--features", "features.tsv").returncode == 0
    done = cli("train", "updn", "--dataset", "small-cp", "--epochs", "1", "--set", "hidden=4")
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("runs/small-cp/updn/*/seed-0")
    assert Run(folder).read_manifest().status == "finished"


def test_a_second_fetch_does_nothing_and_the_list_of_data_sets_says_so(
    cli: CommandLine, server: FileServer
) -> None:
    assert re.search(r"^small-cp +no +no ", cli("data", "list").stdout, re.MULTILINE)
    assert cli("data", "fetch", "small-cp").returncode == 0
    asked = len(server.requests)
    again = cli("data", "fetch", "small-cp", "--offline")
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing new: train 52, test 20 questions" in again.stdout
    assert len(server.requests) == asked
    listed = {line["name"]: line["fetched"] for line in json.loads(cli("data", "list", "--json").stdout)}
    assert (listed["small"], listed["small-cp"], listed["digits-cp"], listed["vqa-v2"]) == (True, True, None, False)
    assert cli("data", "fetch", "small-cp", "--force").returncode == 0
    assert len(server.requests) == 2 * asked


def test_own_files_make_it_without_a_network(cli: CommandLine, server: FileServer, tmp_path: Path) -> None:
    fails(cli("data", "fetch", "small-cp", "--offline"), "--offline forbids downloading: train_q.zip", "--from")
    done = cli("data", "fetch", "small-cp", "--offline", "--from", tmp_path / "own")
    assert done.returncode == 0, done.stderr
    assert "train 52, test 20 questions" in done.stdout
    assert server.requests == []


def test_what_was_made_of_the_files_is_watched_too(cli: CommandLine, server: FileServer, tmp_path: Path) -> None:
    assert cli("data", "fetch", "small-cp").returncode == 0
    made = tmp_path / "data" / "small-cp" / "raw" / "test_questions.json"
    made.write_text("{}")
    fails(cli("data", "fetch", "small-cp"), "test_questions.json: changed since", "delete it")
    assert cli("data", "fetch", "small-cp", "--force").returncode == 0
    assert len(json.loads(made.read_bytes())["questions"]) == 20


def test_what_was_made_of_the_files_is_made_again_where_it_was_deleted(
    cli: CommandLine, server: FileServer, tmp_path: Path
) -> None:
    assert cli("data", "fetch", "small-cp").returncode == 0
    made = tmp_path / "data" / "small-cp" / "raw" / "test_questions.json"
    before = made.read_bytes()
    made.unlink()
    asked = len(server.requests)
    assert cli("data", "fetch", "small-cp", "--offline").returncode == 0
    assert (made.read_bytes(), len(server.requests)) == (before, asked)


def test_a_list_that_changed_makes_the_splits_anew(cli: CommandLine, server: FileServer, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(re.sub(r"\[small-cp.counts\][^[]*", "", catalog.read_text()))
    assert cli("data", "fetch", "small-cp").returncode == 0
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "ids.json").write_text(json.dumps(TEST_IDS[:5]))
    (tmp_path / "data" / "small-cp" / "raw" / "ids.json").unlink()
    assert "train 67, test 5 questions" in cli("data", "fetch", "small-cp", "--from", "more").stdout


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("questions = 60", "questions = 61", "small, train: holds 60 questions, but the catalogue expects 61"),
        ("answers = 600", "answers = 599", "small, train: holds 600 answers, but the catalogue expects 599"),
        ("questions = 52", "questions = 53", "small-cp, train: holds 52 questions, but the catalogue expects 53"),
    ],
)
def test_other_counts_than_expected_are_refused(
    cli: CommandLine, server: FileServer, tmp_path: Path, old: str, new: str, message: str
) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(catalog.read_text().replace(old, new))
    for _ in range(2):
        done = cli("data", "fetch", "small-cp")
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert not list(tmp_path.glob("data/small-cp/raw/*questions.json"))


def test_features_are_asked_for_once(cli: CommandLine, server: FileServer, tmp_path: Path) -> None:
    fails(cli("data", "prepare", "small"), "test_a.zip); run: vqabench data fetch small")
    listed = cli("data", "verify", "small").stdout
    assert [line.count("train_q.zip") for line in listed.splitlines() if "BAD" in line] == [1], listed
    assert cli("data", "fetch", "small").returncode == 0
    for command in (("data", "prepare", "small"), ("train", "updn", "--dataset", "small")):
        fails(cli(*command), "small: no region features yet", "--features FILE", "may come from tests/tiny.py")
    fails(cli("data", "prepare", "small", "--features", "none.tsv"), "none.tsv: there is no such file")
    write_tsv(tmp_path / "features.tsv")
    assert cli("data", "prepare", "small", "--features", "features.tsv").returncode == 0
    assert cli("data", "prepare", "small").stderr == ""
    assert str(tmp_path / "features.tsv") in cli("data", "info", "small").stdout
    (tmp_path / "data" / "small" / "chosen.json").write_text("{")
    fails(cli("data", "prepare", "small"), "chosen.json", "delete it")
    assert cli("data", "list").returncode == 0
    assert cli("data", "prepare", "small", "--features", "features.tsv").returncode == 0


def test_verification_looks_at_what_was_fetched(cli: CommandLine, server: FileServer, tmp_path: Path) -> None:
    assert cli("data", "fetch", "small-cp").returncode == 0
    write_tsv(tmp_path / "features.tsv")
    assert cli("data", "prepare", "small-cp", "--features", "features.tsv").returncode == 0
    done = cli("data", "verify", "small-cp")
    assert done.returncode == 0, done.stdout
    assert "ok  fetched files: " in done.stdout
    assert "ok  expected counts: train" in done.stdout
    made = tmp_path / "data" / "small-cp" / "raw" / "test_questions.json"
    made.write_bytes(made.read_bytes() + b" ")
    done = cli("data", "verify", "small-cp")
    assert (done.returncode, "BAD fetched files: " in done.stdout) == (1, True), done.stdout
    assert "test_questions.json: changed since" in done.stdout
    assert "BAD prepared arrays" in done.stdout
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("questions = 52", "questions = 53"))
    assert "BAD expected counts: train holds 52 questions, but" in cli("data", "verify", "small-cp").stdout


def test_word_vectors_are_named_once(cli: CommandLine, server: FileServer, tmp_path: Path) -> None:
    assert cli("data", "fetch", "small").returncode == 0
    write_tsv(tmp_path / "features.tsv")
    done = cli("data", "prepare", "small", "--features", "features.tsv")
    assert "no word vectors: words start at random" in done.stderr
    (tmp_path / "glove.txt").write_text("sheep 1 2 3\n")
    assert "random" not in cli("data", "prepare", "small", "--word-vectors", "glove.txt").stderr
    assert cli("data", "prepare", "small").stderr == ""
    info = cli("data", "info", "small").stdout
    assert str(tmp_path / "glove.txt") in info
    assert str(tmp_path / "features.tsv") in info


def test_features_of_the_catalogue_are_changed_there(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "f.tsv").touch()
    fails(cli("data", "prepare", "digits-cp", "--features", "f.tsv"), "the catalogue names digits-cp's features")


def test_what_needs_no_fetching_says_so(cli: CommandLine) -> None:
    done = cli("data", "fetch", "digits-cp")
    assert (done.returncode, "nothing to fetch" in done.stdout) == (0, True)
    fails(cli("data", "fetch", "vqa-v3"), "unknown dataset 'vqa-v3'", "did you mean 'vqa-v")
    fails(cli("data", "fetch", "vqa-v2", "--force", "--offline"), "choose one")
    fails(cli("data", "fetch", "vqa-v2", "--from", "none"), "--from none: there is no such folder")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{{ urls".format(), "{ url", ["small", "unknown key 'url': did you mean 'urls'"]),
        ('"test_a.zip" =', '"../test_a.zip" =', ["'../test_a.zip' is not a valid file name"]),
        ('["http', '["file', ["is not an http or https URL"]),
        ('test_ids = "ids.json"', 'test_ids = "id.json"', ["derived.test_ids", "did you mean 'ids.json'?"]),
        ('from = "small"', 'form = "small"', ["small-cp", "form"]),
        ("questions = 12", "question = 12", ["small", "question"]),
        ('features_from = "tests/tiny.py"', "", ["needs features", "features_from"]),
        ('"test_a.zip" = {', '"test_a.zip" = { sha256 = "12",', ["sha256 must be 64 hexadecimal digits"]),
    ],
)
def test_a_catalogue_that_cannot_be_meant_is_one_line(
    cli: CommandLine, server: FileServer, tmp_path: Path, old: str, new: str, message: list[str]
) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(catalog.read_text().replace(old, new))
    fails(cli("data", "fetch", "small-cp"), "catalog.toml", *message)


def test_a_chain_of_derived_data_sets_is_refused(cli: CommandLine, server: FileServer, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(catalog.read_text().replace('from = "small"', 'from = "small-cp"'))
    fails(cli("data", "fetch", "small-cp"), "derived from small-cp, which is derived itself")
    catalog.write_text(catalog.read_text().replace('from = "small-cp"', 'from = "smal"'))
    fails(cli("data", "fetch", "small-cp"), "unknown dataset 'smal'", "did you mean 'small'?")


def test_the_bundled_catalogue_is_well_formed() -> None:
    own = tomllib.loads((Path(__file__).parents[2] / "datasets.toml").read_text())
    for name, (entry, _) in read_catalog(None).items():
        assert entry.files.keys() == own[name].get("files", {}).keys()
        for file, source in entry.files.items():
            assert source.has_checksum
            assert all(url.startswith("https://") and url.endswith(f"/{file}") for url in source.urls)
            assert len(set(source.urls)) == len(source.urls)
        for split, counts in entry.counts.items():
            assert counts.questions is not None, split
            assert counts.answers == 10 * counts.questions
        if entry.derived:
            parts = entry.counts.values(), read_catalog(None)[entry.derived.parent][0].counts.values()
            theirs, parents = (sum(counts.questions or 0 for counts in part) for part in parts)
            assert theirs == parents


def test_a_list_of_test_questions_is_as_long_as_expected(samples: Path) -> None:
    import gzip

    published = json.loads(
        gzip.decompress((samples / "vqa-v1" / "vqa_cp_v1_test_answer_types.125314.json.gz").read_bytes())
    )
    assert len(published) == read_catalog(None)["vqa-cp-v1"][0].counts["test"].questions


@pytest.mark.slow
def test_ctrl_c_keeps_what_has_come(server: FileServer, tmp_path: Path) -> None:
    server.faults, server.stall = ["404", "stall"], 60.0
    command = [sys.executable, "-m", "vqabench", "data", "fetch", "small"]
    environment = os.environ | {"VQABENCH_DATA": str(tmp_path / "data")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("data/small/raw/coming/*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "rerun the same command to continue" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


def test_a_terminal_shows_a_bar_of_what_comes(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["404", "stall"]
    shown = in_terminal(["data", "fetch", "small"], tmp_path)
    assert "train_q.zip" in shown
    assert "bytes" in shown
    assert "train 60, test 12 questions" in shown

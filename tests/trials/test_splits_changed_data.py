"""Trials of data that changes while a command uses it: nothing is scored under another data set's fingerprint."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.outcomes import assert_done, assert_refused
from tests.trials.conftest import Trial

pytestmark = pytest.mark.slow
SMALL = ("--set", "hidden=16", "--set", "embedding=8")


def keep_size_and_time(path: Path) -> None:
    """Change one answer of a file in place, its size and time left as they were."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"answer":"0"', b'"answer":"1"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_annotations_that_change_while_a_run_trains_are_not_scored(trial: Trial) -> None:
    process = trial.start("train", "updn", *trial.data, "--epochs", "30", *SMALL)
    deadline = time.monotonic() + 300
    while not list(trial.folder.glob("runs/tiny/updn/*/seed-0/epochs.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    file = trial.folder / "own" / "test_annotations.json"
    before = file.read_bytes()
    keep_size_and_time(file)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    for word in ("test_annotations.json", "changed while", "--resume"):
        assert word in err.splitlines()[-1], err
    (run,) = trial.runs("updn")
    assert not (run / "scores.json").exists()
    assert json.loads((run / "run.json").read_bytes())["status"] == "failed"
    file.write_bytes(before)
    assert_done(trial.cli("train", "updn", *trial.data, "--epochs", "30", *SMALL, "--resume"), "scoring it again")
    assert (run / "scores.json").exists()


def test_stored_answers_are_not_taken_apart_with_other_annotations(trial: Trial) -> None:
    assert_done(trial.train("updn", *SMALL))
    keep_size_and_time(trial.folder / "own" / "test_annotations.json")
    done = trial.cli("compare", "--by", "prior", *trial.catalog)
    assert "its files have changed since" in done.stdout + done.stderr
    assert_refused(
        trial.cli("predict", trial.runs("updn")[0], *trial.catalog), "trained on different data than tiny holds now"
    )

"""A matrix of runs from one command."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.plugin_installation import install_fixture
from tests.processes import Forked, in_terminal
from tests.tiny import write_tiny
from tests.training.runs import same_bits, start
from vqabench.results import Run

FAST = ("--datasets", "tiny", "--set", "hidden=8", "--set", "embedding=8", "--set", "recipe.batch_size=16")
SMALL = 'datasets = ["tiny"]\nset = { recipe.batch_size = 16 }\n'
UPDN = ("bench", "--backbones", "updn", *FAST)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the tiny data set; every command of the test knows it."""
    catalog = write_tiny(tmp_path / "own")
    monkeypatch.setenv("VQABENCH_CATALOG", str(catalog))
    return catalog


def runs_in(folder: Path) -> dict[str, Run]:
    """Return the runs of a folder by strategy and seed: `ce-plain/seed-0`."""
    found = sorted(path.parent for path in folder.glob("**/run.json"))
    return {f"{path.parent.name.partition('@')[0]}/{path.name}": Run(path) for path in found}


def scored(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the configurations that were compared; check that stdout holds nothing else."""
    return [f"{row['backbone']} {row['objective']}-{row['loss']}" for row in json.loads(done.stdout)["rows"]]


@pytest.mark.slow
def test_a_matrix_is_planned_trained_compared_and_then_left_alone(
    cli: CommandLine, own: Path, tmp_path: Path
) -> None:
    command = (*UPDN, "--losses", "plain,focal", "--epochs", "1", "--json")
    planned = cli(*command[:-1], "--objectives", "bce,ce", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "data").exists()
    first, *cells, last = planned.stdout.splitlines()
    assert first == "4 runs: 4 to train"
    assert [line.split()[2] for line in cells] == ["bce-plain", "ce-plain", "bce-focal", "ce-focal"]
    assert "the time is unknown until" in last

    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert scored(done) == ["updn ce-plain", "updn ce-focal"]
    assert "[2/2] tiny updn " in done.stderr
    assert not set("\x1b\r") & set(done.stderr + done.stdout)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/*")}

    again = cli(*command[:-1])
    assert again.returncode == 0, again.stderr
    assert again.stderr == "2 runs: 2 finished already\n2 of 2 runs finished\n"
    assert "out-of-domain test: accuracy" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/*")} == before

    more = cli(*command, "--seeds", "0-1", "--dry-run")
    assert more.stderr.startswith("4 runs: 2 finished already, 2 to train\n  tiny updn ")
    document = json.loads(more.stdout)
    assert (len(document["done"]), len(document["new"])) == (2, 2)
    assert document["seconds"] > 0


@pytest.mark.slow
def test_however_a_run_fails_the_others_are_trained_and_it_is_named(
    cli: CommandLine, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    for name in ("sick", "greedy"):
        install_fixture(name, installed)
    monkeypatch.syspath_prepend(installed)
    (tmp_path / "matrix.toml").write_text(
        SMALL + 'epochs = 2\njobs = 2\n[[matrix]]\nbackbones = ["dying"]\nset = { rank = 0 }\n'
        'grid = { of = ["signal", "exit", "error"] }\n'
        '[[matrix]]\nbackbones = ["updn"]\nlosses = ["sick"]\nset = { hidden = 8 }\n'
        '[[matrix]]\nbackbones = ["prior"]\nlosses = ["plain", "mask"]\n'
    )
    done = cli("bench", "--config", "matrix.toml", "--json")
    assert done.returncode == 1, done.stderr
    assert scored(done) == ["prior ce-plain"]
    assert len(json.loads(done.stdout)["failed"]) == 5
    message = done.stderr.splitlines()
    assert message.pop() == "1 of 6 runs finished, 5 failed"
    expected = {
        "dying ce-plain @epochs=2,of=exit": "its process ended with exit code 3 before the run was finished",
        "dying ce-plain @epochs=2,of=signal": "its process was killed by SIGKILL",
        "dying ce-plain @epochs=2,rank=0": "this rank has had enough",
        "prior ce-mask ": "mask (from vqabench): it builds on question features",
        "updn ce-sick ": "no longer finite",
    }
    for line, (name, reason) in zip(sorted(message[-5:]), expected.items(), strict=True):
        assert line.startswith(f"warning: tiny {name}")
        assert line.count(name) == 1
        assert reason in line
    assert sum("failed: " in line for line in message) == 5


@pytest.mark.slow
def test_a_run_that_cannot_be_resumed_does_not_stop_the_others(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    fixed = SMALL + 'backbones = ["updn"]\nlabel = "small"\nlosses = ["plain", "focal"]\nepochs = 1\n'
    (tmp_path / "a.toml").write_text(fixed)
    for size, losses, code in ((4, "plain", 0), (8, "plain,focal", 1)):
        done = cli("bench", "--config", "a.toml", "--losses", losses, "--set", f"hidden={size}", "--json")
        assert done.returncode == code, done.stderr
    assert scored(done) == ["updn ce-focal"]
    assert "2 runs: 1 to train" in done.stderr
    assert (
        "began with options.backbone.hidden 4, now 8; train it again with --force" in done.stderr.splitlines()[-2]
    )

    own.write_text(own.read_text().replace("minimum_answer_count = 2", "minimum_answer_count = 1"))
    outdated = cli("bench", "--config", "a.toml", "--losses", "focal", "--set", "hidden=8", "--json")
    document = json.loads(outdated.stdout)
    assert (outdated.returncode, document["rows"], len(document["failed"])) == (1, [], 1)
    assert "began with fingerprint" in outdated.stderr.splitlines()[-2]


def wait_for_epochs(process: Forked, runs: Path, epochs: int) -> None:
    """Wait until two runs have finished so many epochs."""
    while sum(len(run.read_epochs()) >= epochs for run in runs_in(runs).values()) < 2:
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_saves_all_and_the_same_command_continues_to_the_same_bits(
    cli: CommandLine, own: Path, tmp_path: Path
) -> None:
    command = (*UPDN, "--losses", "plain,focal", "--epochs", "40")
    process = start(tmp_path, *command[1:], "--jobs", "2", command="bench")
    wait_for_epochs(process, tmp_path / "runs", 2)
    process.send_signal(signal.SIGINT)
    out, message = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert message.splitlines()[-1] == (
        "warning: stopped by Ctrl-C; 0 of 2 runs finished; everything is saved; rerun the same command to continue"
    )
    assert message.count("stopped by") == 1
    stopped = runs_in(tmp_path / "runs")
    assert [run.read_manifest().status for run in stopped.values()] == ["stopped"] * 2
    assert all(run.resume_file.is_file() for run in stopped.values())

    done = cli(*command, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "2 runs: 2 to resume" in done.stderr
    for loss in ("plain", "focal"):
        alone = ("updn", "--dataset", "tiny", *FAST[2:], "--loss", loss, "--epochs", "40", "--runs", "whole")
        assert cli("train", *alone).returncode == 0
    whole = runs_in(tmp_path / "whole")
    assert stopped.keys() == whole.keys() == {"ce-plain/seed-0", "ce-focal/seed-0"}
    for name, run in stopped.items():
        assert same_bits(run, whole[name])


@pytest.mark.slow
def test_a_terminal_shows_bars_that_are_gone_at_the_end(own: Path, tmp_path: Path) -> None:
    command = [*UPDN, "--losses", "plain,focal", "--epochs", "3", "--seeds", "0"]
    shown = in_terminal(command, tmp_path, COLUMNS="80", VQABENCH_CATALOG=str(own), OMP_NUM_THREADS="1")
    bars, _, rest = shown.rpartition("\x1b[?25h")  # the cursor is shown again
    assert "all runs" in bars
    assert "2/2" in bars
    assert "━" not in rest.partition("accuracy in percent")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no backbones given; name some, as in: vqabench bench --backbones NAME,NAME"),
        (["--backbones", "updn,"], "--backbones 'updn,': write one or more"),
        (["--backbones", "updm"], "unknown backbone 'updm': did you mean 'updn'?"),
        (["--backbones", "updn", "--grid", "hidden"], "--grid 'hidden': write KEY=VALUE"),
        (["--backbones", "updn", "--grid", "hidden=4", "--set", "hidden=4"], "hidden is set, and has a grid too"),
        (
            ["--backbones", "updn", "--grid", "mask.dropout=0.5"],
            "--grid mask.dropout: mask is not part of this run",
        ),
        (["--backbones", "updn", "--jobs", "0"], "--jobs must be at least 1"),
        (["--backbones", "updn", "--config", "none.toml"], "none.toml: there is no such configuration file"),
        (["--backbones", "updn", "--runs", "/dev/null"], "--runs /dev/null: that is a file, not a folder"),
        (["--backbones", "updn", "--device", "gpu", "--dry-run"], "--device 'gpu': valid: auto, cpu, cuda"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(cli: CommandLine, own: Path, arguments: list[str], message: str) -> None:
    done = cli("bench", *arguments, "--datasets", "tiny")
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last

"""What signals do to the real command line."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.processes import Forked
from tests.tiny import write_tiny
from tests.training.runs import run_in, same_bits, start

SMALL = ("--set", "hidden=8", "--set", "embedding=8", "--set", "recipe.batch_size=8")
COMMAND = ("updn", "--dataset", "tiny", "--epochs", "30", *SMALL)


def stop(process: Forked, one: signal.Signals) -> tuple[int | None, str]:
    """Send a signal in the third epoch; return the exit code and what was printed since."""
    while "epoch 2/30" not in (line := process.stderr.readline()):
        assert line, process.poll()
    process.send_signal(one)
    _, message = process.communicate(timeout=300)
    return process.returncode, message


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the tiny data set, which every command of the test knows."""
    monkeypatch.setenv("VQABENCH_CATALOG", str(write_tiny(tmp_path / "own")))
    return tmp_path


@pytest.mark.slow
def test_whatever_stops_a_run_it_goes_on_at_that_step_to_the_same_bits(cli: CommandLine, folder: Path) -> None:
    for one, code, name in ((signal.SIGUSR1, 75, "SIGUSR1"), (signal.SIGINT, 130, "Ctrl-C")):
        found, message = stop(start(folder, *COMMAND, "--force"), one)
        assert (found, message.count("Traceback")) == (code, 0)
        assert f"stopped by {name}; rerun the same command with --resume to continue" in message
        assert run_in(folder / "runs").read_manifest().status == "stopped"
    for options in (("--resume",), ("--runs", "whole")):
        assert "30/30" in cli("train", *COMMAND, *options).stderr
    assert same_bits(run_in(folder / "whole"), run_in(folder / "runs"))

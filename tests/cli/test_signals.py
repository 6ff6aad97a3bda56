"""What signals do to the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import write_tiny

COMMAND = ("train", "updn", "--dataset", "tiny", "--epochs", "60", "--set", "recipe.batch_size=8")
SMALL = ("--set", "hidden=8", "--set", "embedding=8")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VQABENCH_")}
    inherited |= {"VQABENCH_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1"}
    inherited |= {"VQABENCH_CATALOG": str(folder / "own" / "catalog.toml")}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "vqabench", *COMMAND, *SMALL, *arguments],
        cwd=folder,
        env=inherited,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str], *signals: signal.Signals) -> tuple[int, str]:
    """Send signals in the third epoch; gives exit code and all that was said since."""
    assert process.stderr is not None
    while "epoch 2/60" not in (line := process.stderr.readline()):
        assert line, process.poll()
    for one in signals:
        process.send_signal(one)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "own")
    return tmp_path


@pytest.mark.slow
def test_whatever_stops_a_run_it_goes_on_at_that_step_to_the_same_bits(folder: Path) -> None:
    whole = start(folder, "--runs", "whole")
    for one, code, name in (
        (signal.SIGTERM, 75, "SIGTERM"),
        (signal.SIGUSR1, 75, "SIGUSR1"),
        (signal.SIGINT, 130, "Ctrl-C"),
    ):
        found, told = stop(start(folder, "--force"), one)
        assert (found, told.count("Traceback")) == (code, 0)
        assert f"stopped by {name}; the same command with --resume goes on" in told
        (run,) = (folder / "runs").glob("**/seed-0")
        assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    for process in (start(folder, "--resume"), whole):
        assert "60/60" in process.communicate(timeout=60)[1]
    (other,) = (folder / "whole").glob("**/seed-0")
    first, second = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_second_ctrl_c_ends_it_at_once_and_the_last_checkpoint_is_kept(folder: Path) -> None:
    code, told = stop(start(folder), signal.SIGINT, signal.SIGINT)
    assert (code, told.count("Traceback")) == (130, 0)
    (run,) = (folder / "runs").glob("**/seed-0")
    torch.load(run / "resume.pt", weights_only=True)

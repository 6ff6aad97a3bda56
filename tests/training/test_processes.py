"""Several processes train one model: really started by torchrun, speaking over gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.plugin_installation import install_fixture
from tests.tiny import write_tiny

ALIKE = ("--dataset", "tiny", "--epochs", "2", "--precision", "float32", "--set", "recipe.batch_size=15")
UPDN = (
    "--set",
    "hidden=8",
    "--set",
    "embedding=8",
    "--set",
    "attention_dropout=0",
    "--set",
    "classifier_dropout=0",
)
CSS = tuple(part if part == "--set" else f"base.{part}" for part in UPDN)


def start(folder: Path, *arguments: str, processes: int = 2, **environment: str) -> subprocess.Popen[str]:
    """Start the command line, alone or under torchrun."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VQABENCH_")}
    inherited |= {"VQABENCH_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1"}
    inherited |= {"VQABENCH_CATALOG": str(folder / "own" / "catalog.toml")}
    return subprocess.Popen(
        [*command, "vqabench", "train", *arguments],
        cwd=folder,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(folder: Path, *arguments: str, processes: int = 2, **environment: str) -> tuple[int, str, str]:
    process = start(folder, *arguments, processes=processes, **environment)
    out, errors = process.communicate(timeout=150)
    return process.returncode, out, errors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "own")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "options"), [("updn", UPDN), ("css", CSS)])
def test_two_processes_come_to_the_losses_of_one(folder: Path, backbone: str, options: tuple[str, ...]) -> None:
    found = []
    for processes in (1, 2):
        code, out, errors = train(
            folder, backbone, *ALIKE, *options, "--runs", f"runs-{processes}", processes=processes
        )
        assert code == 0, errors
        assert out.count("out-of-domain test: accuracy") == 1  # the first process alone speaks
        assert errors.count("epoch 2/2") == 1
        (run,) = (folder / f"runs-{processes}").glob("**/seed-0")
        assert json.loads((run / "run.json").read_text())["processes"] == processes
        epochs = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
        found.append((epochs, load_file(run / "model.safetensors"), json.loads((run / "scores.json").read_text())))
    (one, weights, scores), (two, others, other_scores) = found
    for name in ("loss", "val_accuracy"):
        assert [epoch[name] for epoch in two] == pytest.approx([epoch[name] for epoch in one], rel=1e-5)
    for name in weights:
        if name.endswith("attention.bias"):  # no gradient but that of rounding, which Adamax makes as large as any
            continue
        torch.testing.assert_close(weights[name], others[name], rtol=1e-3, atol=1e-5)
    assert scores == other_scores  # every question is answered once
    assert scores["test"]["questions"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("of", ["error", "signal"])
def test_a_process_that_dies_ends_the_job_and_says_why(folder: Path, of: str) -> None:
    path = install_fixture("greedy", folder / "installed")
    began = time.monotonic()
    options = ("--set", f"of={of}")
    code, _, errors = train(folder, "dying", *ALIKE, *options, PYTHONPATH=str(path))
    assert code != 0
    assert time.monotonic() - began < 60
    assert "another process of this run has ended" in errors
    if of == "signal":
        assert "SIGKILL" in errors or "Signal 9" in errors
    else:
        assert "this rank has had enough" in errors
        assert "vqabench_greedy/__init__.py" in errors  # where it happened


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["plain", "equalized-focal"])
def test_several_processes_stop_at_one_step_and_go_on_to_the_same_bits(folder: Path, loss: str) -> None:
    options = ("updn", "--dataset", "tiny", "--epochs", "30", "--set", "recipe.batch_size=8", *UPDN, "--loss", loss)
    assert train(folder, *options, "--runs", "whole")[0] == 0
    process = start(folder, *options)
    assert process.stderr is not None
    while "epoch 3/" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    (run,) = (folder / "runs").glob("**/seed-0")
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    code, _, errors = train(folder, *options, "--resume")
    assert code == 0, errors
    assert "going on behind epoch" in errors
    (whole,) = (folder / "whole").glob("**/seed-0")
    one, other = load_file(whole / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)

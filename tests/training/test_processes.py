"""Several processes train one model, communicating over gloo; torchrun starts those that stop or die."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import CommandLine
from tests.plugin_installation import install_fixture
from tests.processes import start_pair
from tests.tiny import write_tiny
from tests.training.runs import environment_in, run_in, same_bits, start_torchrun, weights

ALIKE = ("--dataset", "tiny", "--epochs", "2", "--precision", "float32", "--set", "recipe.batch_size=15")
SMALL = ("hidden=8", "embedding=8", "attention_dropout=0", "classifier_dropout=0")
UPDN = tuple(word for option in SMALL for word in ("--set", option))
CSS = tuple(part if part == "--set" else f"base.{part}" for part in UPDN)


def train(folder: Path, *arguments: str) -> tuple[str, str]:
    """Train with two processes to the end; return what the first one prints, and the second."""
    both = start_pair(("train", *arguments), folder, environment_in(folder))
    printed = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert printed[1] == ("", "")  # the first process alone speaks
    return printed[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the tiny data set, which every command of the test uses."""
    monkeypatch.setenv("VQABENCH_CATALOG", str(write_tiny(tmp_path / "own")))
    return tmp_path


@pytest.mark.slow
def test_two_processes_come_to_the_losses_of_one(cli: CommandLine, folder: Path) -> None:
    found = []
    for processes in (1, 2):
        command = ("css", *ALIKE, *CSS, "--runs", f"runs-{processes}")  # two losses of each batch, over UpDn
        if processes == 1:
            done = cli("train", *command)
            assert done.returncode == 0, done.stderr
            out, errors = done.stdout, done.stderr
        else:
            out, errors = train(folder, *command)
        assert out.count("out-of-domain test: accuracy") == 1
        assert errors.count("epoch 2/2") == 1
        run = run_in(folder / f"runs-{processes}")
        assert run.read_manifest().processes == processes
        epochs = [json.loads(line) for line in run.epochs_file.read_text().splitlines()]
        found.append((epochs, weights(run), json.loads(run.scores_file.read_text())))
    (one, tensors, scores), (two, others, other_scores) = found
    for name in ("loss", "val_accuracy"):
        assert [epoch[name] for epoch in two] == pytest.approx([epoch[name] for epoch in one], rel=1e-5)
    for name in tensors:
        if name.endswith("attention.bias"):  # no gradient but that of rounding, which Adamax makes as large as any
            continue
        torch.testing.assert_close(tensors[name], others[name], rtol=1e-3, atol=1e-5)
    assert scores == other_scores  # every question is answered once
    assert scores["test"]["questions"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("of", ["error", "signal"])
def test_a_process_that_dies_ends_the_job_and_says_why(folder: Path, of: str) -> None:
    path = install_fixture("greedy", folder / "installed")
    began = time.monotonic()
    options = ("--set", f"of={of}")
    process = start_torchrun(folder, "dying", *ALIKE, *options, PYTHONPATH=str(path))
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    assert time.monotonic() - began < 300  # not until gloo gives up, after half an hour
    assert "another process of this run has ended" in errors
    if of == "signal":
        assert "SIGKILL" in errors or "Signal 9" in errors
    else:
        assert "this rank has had enough" in errors
        assert "vqabench_greedy/__init__.py" in errors  # where it happened


@pytest.mark.slow
def test_several_processes_stop_at_one_step_and_go_on_to_the_same_bits(folder: Path) -> None:
    remembering = ("--loss", "equalized-focal")  # what each process has seen, besides the weights that all share
    options = ("updn", "--dataset", "tiny", "--epochs", "15", "--set", "recipe.batch_size=8", *UPDN, *remembering)
    train(folder, *options, "--runs", "whole")
    process = start_torchrun(folder, *options)
    assert process.stderr is not None
    while "epoch 3/" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    assert run_in(folder / "runs").read_manifest().status == "stopped"
    _, errors = train(folder, *options, "--resume")
    assert "continuing after epoch" in errors
    assert same_bits(run_in(folder / "whole"), run_in(folder / "runs"))

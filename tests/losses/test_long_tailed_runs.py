"""The losses that know the priors of question types, in real runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from tests.training.runs import Counting
from vqabench.config import make_config
from vqabench.events import Emit, ignore
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.checkpoint import load_state
from vqabench.workflows.training import IfExists, train

SIZES = {"hidden": 8, "embedding": 8, "recipe.batch_size": 16}
TINY = ("--dataset", "tiny", "--epochs", "1", *(word for key in SIZES for word in ("--set", f"{key}={SIZES[key]}")))


def run(paths: Paths, loss: str, if_exists: IfExists = "refuse", emit: Emit = ignore) -> Run:
    given: dict[str, Any] = {"backbone": "updn", "dataset": "tiny", "epochs": 5, "settings": SIZES, "loss": loss}
    given["objective"] = "bce" if loss == "equalized-focal" else "ce"
    (done,) = train(make_config(given), paths, if_exists, emit)
    return done


@pytest.mark.parametrize("loss", ["equalized-focal", "ldam"])
def test_a_loss_whose_state_or_schedule_moves_on_resumes_to_the_same_bits(tmp_path: Path, loss: str) -> None:
    paths = Paths(tmp_path / "runs", tmp_path / "data", write_tiny(tmp_path / "own"))
    whole = run(dataclasses.replace(paths, runs=tmp_path / "whole"), loss)
    with pytest.raises(KeyboardInterrupt):
        run(paths, loss, emit=Counting(18))
    (folder,) = paths.runs.glob("**/seed-0")
    kept = load_state(Run(folder).resume_file)["losses"]
    assert any(sums.any() for sums in kept.values()) == (loss == "equalized-focal")
    first, second = (load_file(one.weights_file) for one in (whole, run(paths, loss, "resume")))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("loss", ["class-balanced", "mask+balanced-softmax", "logit-adjust", "ldam"])
def test_they_train_from_the_command_line(cli: CommandLine, tmp_path: Path, loss: str) -> None:
    done = cli("train", "updn", "--loss", loss, *TINY, "--catalog", write_tiny(tmp_path / "own"))
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs/tiny/updn").glob(f"ce-{loss}@*/seed-0")
    assert (folder / "scores.json").is_file()


def test_equalized_focal_loss_is_trained_with_bce_unless_told_otherwise(cli: CommandLine, tmp_path: Path) -> None:
    done = cli("train", "updn", "--loss", "equalized-focal", *TINY, "--catalog", write_tiny(tmp_path / "own"))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs/tiny/updn").glob("bce-equalized-focal*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("class-balanced", "--set", "class-balanced.beta=1"), "class-balanced (from vqabench): beta must be at"),
        (("logit-adjust", "--set", "logit-adjust.tau=-1"), "logit-adjust (from vqabench): tau must be at least 0"),
        (("focal", "--set", "focal.alpha=2"), "focal (from vqabench): alpha must be in [0, 1]"),
        (("mask", "--set", "mask.dropout=2"), "mask (from vqabench): dropout must be in [0, 1]"),
        (("rescale", "--set", "rescale.minimum=0"), "rescale (from vqabench): minimum must be at least 1"),
        (("ldam", "--set", "ldam.scale=0"), "ldam (from vqabench): largest must be at least 0 and scale above 0"),
        (("balanced-softmax", "--objective", "bce"), "balanced-softmax is not defined for --objective bce"),
        (("ldam", "--objective", "bce"), "ldam is not defined for --objective bce"),
        (("equalized-focal", "--objective", "ce"), "equalized-focal is not defined for --objective ce"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_what_is_not_possible_is_refused_in_one_line(
    cli: CommandLine, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = cli("train", "updn", "--loss", *words, *TINY, "--catalog", write_tiny(tmp_path / "own"))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr

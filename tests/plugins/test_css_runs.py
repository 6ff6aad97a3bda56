"""CSS through the real command line, on the tiny data set."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import CommandLine
from tests.tiny import IMAGES, WIDTH, write_tiny

SMALL = ("--set", "base.hidden=16", "--set", "base.embedding=8", "--set", "recipe.batch_size=16")


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[str | Path, ...]:
    return ("--dataset", "tiny", "--catalog", write_tiny(tmp_path / "own"), "--epochs", "1", *SMALL)


def epochs(folder: Path) -> list[dict[str, float]]:
    (file,) = folder.glob("**/epochs.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("objective", ["bce", "ce"])
@pytest.mark.parametrize(
    "strategy",
    [("rescale", "--set", "rescale.minimum=1"), ("mask", "--set", "mask.dropout=0.5")],
    ids=lambda s: s[0],
)
def test_it_trains_with_either_objective_and_strategies_around_its_base(
    cli: CommandLine, tiny: tuple[str | Path, ...], tmp_path: Path, strategy: tuple[str, ...], objective: str
) -> None:
    name, *options = strategy
    done = cli("train", "css", *tiny, "--objective", objective, "--loss", name, *options)
    assert done.returncode == 0, done.stderr
    (epoch,) = epochs(tmp_path / "runs" / "tiny" / "css")
    assert epoch["loss"] > 0
    (run,) = (tmp_path / "runs" / "tiny" / "css").glob("*/seed-0")
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["bases"] == {"base": "updn"}
    assert manifest["options"]["backbone"]["share"] == 0.65
    assert cli("predict", run, "--catalog", tiny[3]).returncode == 0


def test_it_differs_from_its_base_alone(cli: CommandLine, tiny: tuple[str | Path, ...], tmp_path: Path) -> None:
    losses = []
    for branch in ("visual", "question"):
        done = cli("train", "css", *tiny, "--runs", branch, "--precision", "bfloat16", "--set", f"branch={branch}")
        assert done.returncode == 0, done.stderr
        losses.append(epochs(tmp_path / branch)[0]["loss"])
    own = [word.replace("base.", "") if isinstance(word, str) else word for word in tiny]
    assert cli("train", "updn", *own, "--runs", "own", "--precision", "bfloat16").returncode == 0
    losses.append(epochs(tmp_path / "own")[0]["loss"])
    assert len(set(losses)) == 3


def test_css_lmh_is_for_bce_over_any_base_that_is(cli: CommandLine, tiny: tuple[str | Path, ...]) -> None:
    done = cli("train", "css-lmh", *tiny, "--set", "base=updn")
    assert done.returncode == 0, done.stderr
    assert "bce-plain" in done.stdout
    done = cli("train", "css-lmh", *tiny, "--set", "base=updn", "--objective", "ce")
    assert done.returncode == 2
    assert "css-lmh is not defined for --objective ce: the prior is added to the log-odds" in done.stderr


def test_an_option_out_of_range_is_one_clear_line(cli: CommandLine, tiny: tuple[str | Path, ...]) -> None:
    done = cli("train", "css", *tiny, "--set", "share=2")
    assert done.returncode == 2
    assert "share must be above 0 and at most 1, not 2.0" in done.stderr.splitlines()[-1]


def test_it_trains_where_objects_have_names_and_words_vectors(
    cli: CommandLine, tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    catalog = tmp_path / "own" / "catalog.toml"
    keys = '[tiny]\nobject_names = "names.txt"\nword_vectors = "vectors.txt"'
    catalog.write_text(catalog.read_text().replace("[tiny]", keys, 1))
    (tmp_path / "own" / "names.txt").write_text("sheep\nwool\nred barn\nzebra\n")
    (tmp_path / "own" / "vectors.txt").write_text("sheep 1 0 0\nwool 0 1 0\ncolor 0 0 1\n")
    write_named_features(tmp_path / "own" / "features.tsv")
    done = cli("train", "css", *tiny[:-4], "--set", "recipe.batch_size=16", "--set", "branch=visual")
    assert done.returncode == 0, done.stderr
    assert epochs(tmp_path / "runs")[0]["loss"] > 0


def write_named_features(path: Path) -> None:
    """Write features that number the classes of objects and attributes, in LXMERT's layout."""
    rng = np.random.default_rng(0)
    lines = []
    for image in range(IMAGES):
        arrays: list[NDArray[Any]] = [
            np.array([image % 4, 1, 3], np.int64),
            np.ones(3, np.float32),
            np.zeros(3, np.int64),
            np.ones(3, np.float32),
            np.array([[0, 0, 50, 50], [10, 10, 90, 90], [20, 0, 100, 40]], np.float32),
            rng.normal(image, 0.1, (3, WIDTH)).astype(np.float32),
        ]
        coded = [base64.b64encode(array.tobytes()).decode() for array in arrays]
        lines.append("\t".join([str(image), "100", "100", *coded[:4], "3", *coded[4:]]) + "\n")
    path.write_text("".join(lines))


def test_parts_that_cannot_go_together_leave_nothing_behind_and_say_so_again(
    cli: CommandLine, tmp_path: Path
) -> None:
    own = ("--dataset", "tiny", "--catalog", write_tiny(tmp_path / "own"), "--epochs", "1")
    for _ in range(2):
        done = cli("train", "css", *own, "--set", "base=question-only")
        assert done.returncode == 2
        assert "do not depend on what counterfactuals change" in done.stderr
        assert not (tmp_path / "runs").exists()

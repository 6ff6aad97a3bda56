"""Runs as commands: several seeds at the same time, each in a process of its own."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.plugin_installation import install_fixture
from tests.tiny import write_tiny
from tests.training.runs import run_in, same_bits, start
from vqabench.bench.child_runs import Task, command_of, read_peers
from vqabench.config import OPTIONS, TrainConfig, make_config, parse_settings
from vqabench.paths import Paths
from vqabench.results import Run

FAST = ("--dataset", "tiny", "--set", "recipe.batch_size=16")
UPDN = ("updn", *FAST, "--set", "hidden=8", "--set", "embedding=8", "--seeds", "0-2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the tiny data set, which every command of the test knows."""
    monkeypatch.setenv("VQABENCH_CATALOG", str(write_tiny(tmp_path / "own")))
    return tmp_path


OTHER_VALUES = {
    "backbone": "lmh",
    "loss": "mask+rescale",
    "objective": "bce",
    "dataset": "tiny",
    "seeds": (3,),
    "epochs": 2,
    "finetune_epochs": 1,
    "settings": {"hidden": 8, "embedding": "8", "recipe.clip": None, "recipe.lr": 1e-05},
    "start_from": Path("runs/some where"),
    "label": "one",
    "select": "val",
    "track_test": True,
    "device": "cpu",
    "precision": "float32",
    "features": "disk",
    "checkpoint_minutes": 3.5,
    "log": ("tensorboard",),
}
"""Field -> a value other than its default."""


def parse(command: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[TrainConfig, Paths, str]:
    """Return what the real command line makes of a command."""
    from vqabench.cli import app
    from vqabench.workflows import training

    found: list[tuple[TrainConfig, Paths, str]] = []

    def record(config: TrainConfig, paths: Paths, if_exists: str, *_: object) -> list[Run]:
        found.append((config, paths, if_exists))
        return []

    monkeypatch.setattr(training, "train", record)
    app(command, standalone_mode=False)
    return found[0]


@pytest.mark.parametrize("field", sorted(OPTIONS.keys() - {"jobs"}))
def test_the_command_line_reads_every_field_back_from_the_command(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(Path("my runs"), Path("data"), [Path("own.toml"), Path("another.toml")])
    expected: Any = OTHER_VALUES[field]
    given = make_config({"backbone": "updn"} | {field: expected})
    config, where, if_exists = parse(
        command_of(Task("a", given, Run(Path("run")), afresh=True), paths), monkeypatch
    )
    assert (where, if_exists) == (paths, "force")
    if field == "settings":
        expected = parse_settings(f"{key}={'none' if value is None else value}" for key, value in expected.items())
    assert getattr(config, field) == expected
    assert dataclasses.replace(config, **{field: expected}) == dataclasses.replace(given, **{field: expected})


@pytest.mark.parametrize(
    ("value", "peers"), [("2,3", (2, 3)), ("", None), ("2", None), ("a,b", None), ("-1,2", None)]
)
def test_what_is_no_such_variable_makes_no_child(value: str, peers: tuple[int, int] | None) -> None:
    assert read_peers({"VQABENCH_CHILD": value}) == peers


@pytest.mark.slow
def test_seeds_trained_at_once_come_to_the_bits_of_those_trained_one_by_one(cli: CommandLine, folder: Path) -> None:
    for jobs in ("1", "2"):
        done = cli("train", *UPDN, "--seeds", "0-1", "--epochs", "2", "--jobs", jobs, "--runs", f"runs-{jobs}")
        assert done.returncode == 0, done.stderr
        assert ("seed 1: epoch 2/2" in done.stderr) == (jobs == "2")
        assert " 2 " in done.stdout  # seeds, in the table
    assert all(same_bits(*(run_in(folder / f"runs-{jobs}", seed) for jobs in (1, 2))) for seed in (0, 1))


@pytest.mark.slow
def test_a_signal_stops_all_seeds_and_they_can_be_resumed(folder: Path) -> None:
    process = start(folder, *UPDN, "--epochs", "400", "--jobs", "2")
    begun: set[str] = set()
    while begun != {"seed 0", "seed 1"}:
        line = process.stderr.readline()
        assert line, process.poll()
        if ": epoch 2/" in line:
            begun.add(line.partition(":")[0])
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert errors.count("stopped by SIGTERM") == 1
    for seed in (0, 1):
        run = run_in(folder / "runs", seed)
        assert run.read_manifest().status == "stopped"
        assert run.resume_file.is_file()
    assert not list((folder / "runs").glob("**/seed-2"))


@pytest.mark.slow
def test_an_error_of_one_seed_stops_the_others_and_names_it(
    cli: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install_fixture("sick", folder / "installed"))
    done = cli("train", *UPDN, "--seeds", "0-1", "--epochs", "3", "--loss", "sick", "--jobs", "2")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "no longer finite" in last
    assert last.startswith("error: seed ")
    begun = [Run(path.parent).read_manifest().status for path in folder.glob("runs/**/run.json")]
    assert "failed" in begun
    assert set(begun) <= {"failed", "stopped"}


@pytest.mark.slow
def test_a_folder_that_a_seed_cannot_write_is_named(cli: CommandLine, folder: Path) -> None:
    done = cli("train", *UPDN, "--seeds", "0-1", "--epochs", "1", "--jobs", "2", "--runs", "/proc/runs")
    assert done.returncode == 2, done.stderr
    assert "/proc/runs" in done.stderr.splitlines()[-1]
    assert not (folder / "runs").exists()

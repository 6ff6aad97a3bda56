from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.plugin_installation import install_fixture
from tests.tiny import write_tiny
from tests.training.runs import run_in, same_bits, start
from vqabench.results import Run

FAST = ("--dataset", "tiny", "--set", "recipe.batch_size=16")
UPDN = ("updn", *FAST, "--set", "hidden=8", "--set", "embedding=8", "--seeds", "0-2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with the tiny data set, which every command of the test knows."""
    monkeypatch.setenv("VQABENCH_CATALOG", str(write_tiny(tmp_path / "own")))
    return tmp_path


@pytest.mark.slow
def test_seeds_trained_at_once_come_to_the_bits_of_those_trained_one_by_one(cli: CommandLine, folder: Path) -> None:
    for jobs in ("1", "2"):
        done = cli("train", *UPDN, "--epochs", "2", "--jobs", jobs, "--runs", f"runs-{jobs}")
        assert done.returncode == 0, done.stderr
        assert ("seed 1: epoch 2/2" in done.stderr) == (jobs == "2")
        assert " 3 " in done.stdout  # seeds, in the table
    assert all(same_bits(*(run_in(folder / f"runs-{jobs}", seed) for jobs in (1, 2))) for seed in range(3))


@pytest.mark.slow
def test_a_signal_stops_all_seeds_and_they_go_on(folder: Path) -> None:
    process = start(folder, *UPDN, "--epochs", "400", "--jobs", "2")
    assert process.stderr is not None
    begun: set[str] = set()
    while begun != {"seed 0", "seed 1"}:
        line = process.stderr.readline()
        assert line, process.poll()
        if ": epoch 2/" in line:
            begun.add(line.partition(":")[0])
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "stopped by SIGTERM" in errors
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
    done = cli("train", *UPDN, "--epochs", "3", "--loss", "sick", "--jobs", "3")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "no longer finite" in last
    assert last.startswith("error: seed ")
    begun = [Run(path.parent).read_manifest().status for path in folder.glob("runs/**/run.json")]
    assert "failed" in begun
    assert set(begun) <= {"failed", "stopped"}


@pytest.mark.slow
def test_the_process_of_a_seed_that_is_killed_is_named(
    cli: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install_fixture("greedy", folder / "installed"))
    options = ("--set", "rank=0", "--set", "of=signal", "--seeds", "0-1", "--jobs", "2")
    done = cli("train", "dying", *FAST, *options)
    assert done.returncode == 1
    told = ": its process was killed by SIGKILL; started again, it goes on from its latest checkpoint"
    assert done.stderr.splitlines()[-1] in {f"error: seed {seed}{told}" for seed in (0, 1)}


@pytest.mark.slow
def test_a_folder_that_a_seed_cannot_write_is_named_as_for_one_seed(cli: CommandLine, folder: Path) -> None:
    done = cli("train", *UPDN, "--epochs", "1", "--jobs", "2", "--runs", "/proc/runs")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: /proc/runs")
    assert not (folder / "runs").exists()

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.plugin_installation import install_fixture
from tests.tiny import write_tiny
from tests.training.runs import run_in, same_bits, start

FAST = ("--dataset", "tiny", "--set", "recipe.batch_size=16")
UPDN = ("updn", *FAST, "--set", "hidden=8", "--set", "embedding=8", "--seeds", "0-2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "own")
    return tmp_path


@pytest.mark.slow
def test_seeds_trained_at_once_come_to_the_bits_of_those_trained_one_by_one(folder: Path) -> None:
    for jobs in ("1", "2"):
        process = start(folder, *UPDN, "--epochs", "2", "--jobs", jobs, "--runs", f"runs-{jobs}")
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert ("seed 1: epoch 2/2" in errors) == (jobs == "2")
        assert " 3 " in out  # seeds, in the table
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
def test_an_error_of_one_seed_stops_the_others_and_names_it(folder: Path) -> None:
    path = install_fixture("sick", folder / "installed")
    process = start(folder, *UPDN, "--epochs", "3", "--loss", "sick", "--jobs", "3", PYTHONPATH=str(path))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no longer finite" in errors
    assert "error: seed " in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of", "told"),
    [
        ("signal", "its process was killed by SIGKILL"),
        ("exit", "its process ended with exit code 3"),
        ("error", r"RuntimeError: seed \d: RuntimeError: this rank has had enough"),
    ],
)
def test_however_the_process_of_a_seed_ends_the_error_names_it(folder: Path, of: str, told: str) -> None:
    path = install_fixture("greedy", folder / "installed")
    options = ("--set", "rank=0", "--set", f"of={of}", "--seeds", "0-1", "--jobs", "2")
    process = start(folder, "dying", *FAST, *options, PYTHONPATH=str(path))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(told, errors)


@pytest.mark.slow
def test_a_folder_that_a_seed_cannot_write_is_named_as_for_one_seed(folder: Path) -> None:
    runs = folder / "runs"
    process = start(folder, *UPDN, "--epochs", "1", "--jobs", "2", "--runs", "/proc/runs")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert errors.splitlines()[-1].startswith("error: /proc/runs")
    assert not runs.exists()

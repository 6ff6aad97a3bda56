"""How long a matrix takes, by what has been trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runs import make_manifest
from vqabench.bench.matrix import make_matrix, read_blocks
from vqabench.bench.matrix_plan import Estimate, Timings
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.workflows.bench import plan_matrix


def matrix_of(paths: Paths, **line: Any) -> tuple[Any, ...]:
    return make_matrix(read_blocks(None, {"settings": {}} | line), paths).cells


def write_run(folder: Path, backbone: str, seconds: float, epochs: int, **changes: Any) -> Run:
    """Write the manifest of a run of so many epochs."""
    stages = [{"name": "train", "loss": "plain", "epochs": epochs}]
    about = {"dataset": "digits-cp", "backbone": backbone, "stages": stages, "seconds": seconds}
    run = Run(folder)
    run.folder.mkdir(parents=True)
    run.write_manifest(make_manifest(**(about | changes)))
    return run


def record(run: Run, epochs: int) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    run.epochs_file.write_text("".join(json.dumps({"epoch": epoch + 1}) + "\n" for epoch in range(epochs)))


def assert_takes(found: Estimate | None, seconds: float, longest: float, guessed: tuple[str, ...] = ()) -> None:
    assert found is not None
    assert (found.seconds, found.longest) == pytest.approx((seconds, longest))
    assert found.guessed == guessed


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "runs", tmp_path / "data")


def test_a_run_takes_as_many_seconds_an_epoch_as_those_of_its_backbone_did(paths: Paths) -> None:
    timings = Timings()
    assert timings.estimate(matrix_of(paths, backbones=["updn"])) is None
    timings.add(write_run(paths.runs / "a", "updn", 20.0, 10))
    timings.add(write_run(paths.runs / "b", "updn", 40.0, 10))
    timings.add(write_run(paths.runs / "c", "lmh", 90.0, 10))
    one = timings.estimate(matrix_of(paths, backbones=["updn"], epochs=4))
    assert_takes(one, 4 * 3.0, 4 * 3.0)
    stages = matrix_of(paths, backbones=["updn", "lmh"], losses=["mask+rescale"], epochs=5, finetune_epochs=2)
    assert_takes(timings.estimate(stages), 7 * 3.0 + 7 * 9.0, 7 * 9.0)


def test_a_backbone_never_trained_is_assumed_to_take_the_mean_of_the_others(paths: Paths) -> None:
    timings = Timings()
    timings.add(write_run(paths.runs / "a", "updn", 20.0, 10))
    timings.add(write_run(paths.runs / "b", "updn", 20.0, 10))
    timings.add(write_run(paths.runs / "c", "css", 80.0, 10))
    timings.add(write_run(paths.runs / "d", "updn", 5000.0, 1, dataset="vqa-v2"))
    found = timings.estimate(matrix_of(paths, backbones=["lmh", "updn", "lm"], epochs=1))
    assert_takes(found, 2 + 5 + 5, 5, ("lm", "lmh"))
    elsewhere = timings.estimate(matrix_of(paths, backbones=["lmh"], datasets=["vqa-v1"], epochs=1))
    assert elsewhere is None  # other questions, other features


def test_epochs_that_are_done_are_not_counted_again(paths: Paths) -> None:
    cells = matrix_of(paths, backbones=["updn"], seeds=(0, 1), epochs=10)
    timings = Timings()
    timings.add(write_run(paths.runs / "a", "updn", 20.0, 10))
    record(cells[0].run, 9)
    assert_takes(timings.estimate(cells), 2.0 + 20.0, 20.0)


def test_a_stopped_run_counts_and_a_damaged_one_does_not(paths: Paths) -> None:
    timings = Timings()
    stopped = write_run(paths.runs / "a", "updn", 12.0, 1000, status="stopped")
    timings.add(stopped)
    assert not timings.epoch_seconds
    record(stopped, 4)
    timings.add(stopped)
    broken = Run(paths.runs / "b")
    broken.folder.mkdir()
    broken.manifest_file.write_text("{")
    timings.add(broken)
    assert timings.epoch_seconds == {("digits-cp", "updn"): [3.0]}


def test_in_parallel_they_take_their_share_and_never_less_than_the_longest() -> None:
    assert Estimate(100.0, 30.0, ()).in_parallel(1) == 100.0
    assert Estimate(100.0, 30.0, ()).in_parallel(2) == 50.0
    assert Estimate(100.0, 30.0, ()).in_parallel(8) == 30.0


def test_a_plan_uses_the_timings_of_all_runs_in_the_folder(paths: Paths) -> None:
    write_run(paths.runs / "digits-cp/updn/ce-focal/seed-9", "updn", 20.0, 10)
    plan = plan_matrix(read_blocks(None, {"settings": {}, "backbones": ["updn"], "epochs": 3}), paths)
    assert_takes(plan.estimate, 6.0, 6.0)
    assert [cell.name for cell in plan.new] == ["digits-cp updn ce-plain @epochs=3 seed 0"]

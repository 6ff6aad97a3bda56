from __future__ import annotations

from pathlib import Path

from vqabench.evaluation.findings import Curve, Point, read_curve
from vqabench.results import Run


def run_with(folder: Path, accuracies: dict[int, float], split: str = "val") -> Run:
    folder.mkdir(parents=True)
    run = Run(folder)
    for epoch, accuracy in accuracies.items():
        run.append_epoch({"epoch": epoch, "loss": 1.0, f"{split}_accuracy": accuracy})
    return run


def test_a_curve_is_the_mean_of_its_seeds_and_their_range(tmp_path: Path) -> None:
    runs = [run_with(tmp_path / str(n), {1: 10.0 * n, 2: 30.0}) for n in (1, 2, 6)]
    assert read_curve(runs, "val") == Curve(3, (Point(1, 30.0, 10.0, 60.0), Point(2, 30.0, 30.0, 30.0)))


def test_a_split_that_was_not_watched_has_no_curve(tmp_path: Path) -> None:
    assert read_curve([run_with(tmp_path / "a", {1: 10.0}), Run(tmp_path / "none")], "test") is None


def test_seeds_that_recorded_nothing_are_not_counted(tmp_path: Path) -> None:
    runs = [run_with(tmp_path / "a", {1: 10.0}, "test"), run_with(tmp_path / "b", {1: 20.0})]
    assert read_curve(runs, "test") == Curve(1, (Point(1, 10.0, 10.0, 10.0),))


def test_an_epoch_whose_line_is_broken_in_one_seed_is_left_out_of_all(tmp_path: Path) -> None:
    runs = [run_with(tmp_path / str(n), {1: 10.0, 2: 20.0, 3: 30.0}) for n in range(2)]
    lines = runs[1].epochs_file.read_text().splitlines()
    runs[1].epochs_file.write_text(
        "\n".join([lines[0], lines[1][:-9], '{"epoch": "two"}', "[]", lines[2]]) + '\n{"ep'
    )
    curve = read_curve(runs, "val")
    assert curve is not None
    assert [point.epoch for point in curve.points] == [1, 3]

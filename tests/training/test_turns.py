"""Which run is started when, given those that wait, those that run, and what they take."""

from __future__ import annotations

import pytest

from vqabench.config import TrainConfig
from vqabench.training import turns
from vqabench.training.at_once import Choose, Running, Task
from vqabench.training.device import GpuMemory

GB = 10**9


def task(name: str, device: str = "auto") -> Task:
    return Task(name, TrainConfig(backbone="updn", device=device))


def running(name: str, device: str, memory: GpuMemory | None = None) -> Running:
    return Running(task(name, device), memory)


def start_all(choose: Choose, waiting: list[Task], there: list[Running]) -> list[Task]:
    """Start what may start now; gives those tasks as they are started."""
    left, started = list(waiting), list(there)
    while left and (chosen := choose(left, started)) is not None:
        number, begun = chosen
        assert left.pop(number).name == begun.name
        started.append(Running(begun))
    return [run.task for run in started[len(there) :]]


TASKS = [task(name) for name in "abcd"]


def test_no_more_than_so_many_jobs_and_each_knows_of_the_others() -> None:
    begun = start_all(turns.at_most(3), TASKS, [])
    assert [(one.name, one.sharers) for one in begun] == [("a", 3), ("b", 3), ("c", 3)]
    assert not start_all(turns.at_most(3), TASKS, [running(name, "cpu") for name in "xyz"])


def test_small_models_take_a_core_each_and_a_large_one_all() -> None:
    choose = turns.on_processors(2, {"a": 1, "b": 1, "c": 2, "d": 1})
    assert [one.name for one in start_all(choose, TASKS, [])] == ["a", "b"]
    beside = [running("b", "cpu")]
    assert not start_all(choose, TASKS[2:], beside)  # c waits for both cores, and d behind it for its turn
    assert [one.name for one in start_all(choose, TASKS[2:], [])] == ["c"]
    assert [one.name for one in start_all(choose, TASKS[3:], beside)] == ["d"]


def test_what_needs_more_cores_than_there_are_is_trained_alone() -> None:
    choose = turns.on_processors(2, dict.fromkeys("abcd", 8))
    assert [one.name for one in start_all(choose, TASKS, [])] == ["a"]


def test_each_gpu_gets_a_run_and_more_once_the_first_have_told_what_they_take() -> None:
    choose = turns.on_gpus(["cuda:0", "cuda:1"], None)
    begun = start_all(choose, TASKS, [])
    assert [(one.name, one.config.device, one.sharers, one.gpus) for one in begun] == [
        ("a", "cuda:0", 1, 2),
        ("b", "cuda:1", 1, 2),
    ]


@pytest.fixture
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "count_processors", lambda: 16)


@pytest.mark.parametrize(
    ("free", "fits"), [(13 * GB, True), (12.5 * GB, True), (12 * GB, False)], ids=["more", "just", "less"]
)
def test_another_run_fits_where_the_largest_would_once_more_and_a_quarter_of_it(
    many_processors: None, free: float, fits: bool
) -> None:
    choose = turns.on_gpus(["cuda:0"], None)
    there = [running("x", "cuda:0", GpuMemory(10 * GB, int(free)))]
    assert bool(start_all(choose, TASKS, there)) == fits


def test_the_least_of_what_runs_have_seen_free_counts_against_the_largest(many_processors: None) -> None:
    choose = turns.on_gpus(["cuda:0"], None)
    large, small = GpuMemory(20 * GB, 60 * GB), GpuMemory(2 * GB, 24 * GB)
    assert not start_all(choose, TASKS, [running("x", "cuda:0", large), running("y", "cuda:0", small)])


def test_a_gpu_that_is_full_does_not_keep_one_with_room_waiting(many_processors: None) -> None:
    choose = turns.on_gpus(["cuda:0", "cuda:1"], None)
    full = [running("x", "cuda:0", GpuMemory(70 * GB, 5 * GB))]
    roomy = [running(name, "cuda:1", GpuMemory(5 * GB, 60 * GB)) for name in "yz"]
    (begun,) = start_all(choose, TASKS, full + roomy)  # one, which has not told yet what it takes
    assert begun.config.device == "cuda:1"


def test_jobs_are_spread_over_the_gpus_whether_or_not_they_have_told_anything() -> None:
    begun = start_all(turns.on_gpus(["cuda:0", "cuda:1"], 3), TASKS, [])
    assert [one.config.device for one in begun] == ["cuda:0", "cuda:1", "cuda:0"]
    assert {(one.sharers, one.gpus) for one in begun} == {(2, 2)}


def test_runs_on_gpus_are_no_more_than_the_cores_that_feed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "count_processors", lambda: 2)
    there = [running(name, "cuda:0", GpuMemory(GB, 70 * GB)) for name in "xy"]
    assert not start_all(turns.on_gpus(["cuda:0"], None), TASKS, there)
    monkeypatch.setattr(turns, "count_processors", lambda: 3)
    assert len(start_all(turns.on_gpus(["cuda:0"], None), TASKS, there)) == 1

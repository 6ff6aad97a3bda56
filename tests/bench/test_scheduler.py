"""Which run is started when and where, given those that are being trained and what they take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vqabench.bench import scheduler
from vqabench.bench.child_runs import Child, Choose, Slot, Task
from vqabench.bench.scheduler import GpuMemory
from vqabench.bench.scheduler import gpu_memory as measured
from vqabench.config import TrainConfig
from vqabench.results import Run

GB = 10**9
SMALL, LARGE = 1000, 10**8


def task(parameters: int | None = None) -> Task:
    return Task("a", TrainConfig(backbone="updn"), Run(Path("nowhere")), parameters=parameters)


@dataclass
class Running(Child):
    """A run that is being trained, without a process."""

    task: Task = field(default_factory=task)
    slot: Slot = field(default_factory=Slot)
    process: None = None  # type: ignore[assignment]
    on_line: None = None  # type: ignore[assignment]
    size: int | None = None
    memory: GpuMemory | None = None
    age: float = 0.0

    def __post_init__(self) -> None:
        pass

    @property
    def parameters(self) -> int | None:
        return self.size

    @property
    def seconds(self) -> float:
        return self.age


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "gpu_memory", lambda child: child.memory)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def on(device: str, memory: GpuMemory | None = None) -> Running:
    return Running(slot=Slot(device), memory=memory)


def start_all(choose: Choose, there: list[Running], waiting: int = 4) -> list[Slot]:
    """Start as many as may start now."""
    started: list[Running] = []
    while len(started) < waiting and (slot := choose(task(), [*there, *started])) is not None:
        started.append(Running(slot=slot))
    return [one.slot for one in started]


def test_no_more_than_so_many_jobs_and_each_knows_of_the_others() -> None:
    assert start_all(scheduler.at_most(3), []) == [Slot(sharers=3)] * 3
    assert not start_all(scheduler.at_most(3), [Running()] * 3)


@pytest.mark.parametrize(
    ("sizes", "own", "starts"),
    [
        ([], LARGE, True),
        ([SMALL], SMALL, True),
        ([SMALL], None, True),
        ([None], SMALL, False),
        ([SMALL, None], SMALL, False),
        ([SMALL, SMALL, SMALL], SMALL, True),
        ([SMALL, SMALL, SMALL, SMALL], SMALL, False),
        ([SMALL], LARGE, False),
        ([LARGE], SMALL, False),
    ],
)
def test_small_models_take_a_core_each_large_ones_all_and_no_other_starts_before_that_is_known(
    sizes: list[int | None], own: int | None, starts: bool
) -> None:
    running = [Running(size=size) for size in sizes]
    assert bool(scheduler.on_processors(4)(task(own), running)) == starts


def test_a_run_that_hangs_before_its_size_is_known_keeps_the_others_waiting_for_a_minute_only() -> None:
    choose = scheduler.on_processors(4)
    assert choose(task(), [Running(age=59.0)]) is None
    assert choose(task(), [Running(age=61.0)]) == Slot()


def test_each_gpu_gets_a_run_and_more_once_the_first_have_recorded_their_memory() -> None:
    choose = scheduler.on_gpus(["cuda:0", "cuda:1"], None)
    assert start_all(choose, []) == [Slot("cuda:0", 1, 2), Slot("cuda:1", 1, 2)]


@pytest.fixture
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "count_processors", lambda: 16)


@pytest.mark.parametrize(
    ("free", "fits"), [(13 * GB, True), (12.5 * GB, True), (12 * GB, False)], ids=["more", "just", "less"]
)
def test_another_run_fits_if_the_largest_would_once_more_and_a_quarter_of_it(
    many_processors: None, free: float, fits: bool
) -> None:
    choose = scheduler.on_gpus(["cuda:0"], None)
    assert bool(start_all(choose, [on("cuda:0", GpuMemory(10 * GB, int(free)))])) == fits


def test_the_least_that_runs_have_seen_free_counts_against_the_largest(many_processors: None) -> None:
    choose = scheduler.on_gpus(["cuda:0"], None)
    large, small = GpuMemory(20 * GB, 60 * GB), GpuMemory(2 * GB, 24 * GB)
    assert not start_all(choose, [on("cuda:0", large), on("cuda:0", small)])


def test_a_full_gpu_does_not_keep_one_with_room_waiting(many_processors: None) -> None:
    choose = scheduler.on_gpus(["cuda:0", "cuda:1"], None)
    full = [on("cuda:0", GpuMemory(70 * GB, 5 * GB))]
    roomy = [on("cuda:1", GpuMemory(5 * GB, 60 * GB))] * 2
    assert [slot.device for slot in start_all(choose, full + roomy)] == ["cuda:1"]


def test_jobs_are_spread_over_the_gpus_whether_or_not_their_memory_is_known() -> None:
    begun = start_all(scheduler.on_gpus(["cuda:0", "cuda:1"], 3), [])
    assert begun == [Slot("cuda:0", 2, 2), Slot("cuda:1", 2, 2), Slot("cuda:0", 2, 2)]


def test_runs_on_gpus_are_no_more_than_the_cores_that_feed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "count_processors", lambda: 2)
    there = [on("cuda:0", GpuMemory(GB, 70 * GB))] * 2
    assert not start_all(scheduler.on_gpus(["cuda:0"], None), there)
    monkeypatch.setattr(scheduler, "count_processors", lambda: 3)
    assert len(start_all(scheduler.on_gpus(["cuda:0"], None), there)) == 1


def test_memory_that_an_earlier_process_recorded_says_nothing_of_this_one(tmp_path: Path) -> None:
    run = Run(tmp_path)

    class Resumed(Running):
        epochs_before = 3
        manifest = object()  # type: ignore[assignment]

    child = Resumed(task=Task("a", TrainConfig(backbone="updn"), run))
    run.append_epoch({"epoch": 3, "gpu_bytes": 10 * GB, "gpu_free_bytes": 60 * GB})
    assert measured(child) is None
    run.append_epoch({"epoch": 4, "gpu_bytes": 11 * GB, "gpu_free_bytes": 50 * GB})
    assert measured(child) == GpuMemory(11 * GB, 50 * GB)

"""`vqabench bench`: a matrix of runs, as many at a time as the machine has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from vqabench.data.prepared import Prepared, prepare
from vqabench.data.processors import count_processors
from vqabench.errors import InputError
from vqabench.evaluation.scores import read_scores
from vqabench.results import Run, find_runs
from vqabench.training.assembly import build_model, count_parameters
from vqabench.training.at_once import Choose, Crew, Task
from vqabench.training.device import choose_device, count_gpus, is_small, threads_of_small
from vqabench.training.interruption import Interruption
from vqabench.training.progress import Progress
from vqabench.training.turns import at_most, on_gpus, on_processors
from vqabench.workflows.matrix import Cell, Matrix
from vqabench.workflows.places import Places
from vqabench.workflows.training import is_done, spell_scores, train_alone


@dataclass(frozen=True)
class Outlook:
    """What is to be done, and how long it may take."""

    done: tuple[Cell, ...]
    begun: tuple[Cell, ...]
    """Runs that go on where they were."""
    new: tuple[Cell, ...]
    wrong: dict[str, str]
    """Runs that are there but cannot be gone on with, by name: why."""
    undefined: tuple[str, ...]
    seconds: float | None
    """Of all that is left, one run after another, by the runs that are finished; None where there is none."""

    @property
    def left(self) -> tuple[Cell, ...]:
        """Give the runs that are to be trained, those that have begun first."""
        return (*self.begun, *self.new)


class BenchProgress(Protocol):
    """Hears of a matrix as it goes."""

    def say(self, message: str) -> None:
        """Hear a line of information."""

    def plan(self, outlook: Outlook) -> None:
        """Hear what is to be done."""

    def begin(self, at_a_time: int) -> None:
        """Hear that training begins, and of how many runs at a time."""

    def end(self, name: str, told: str, *, failed: bool, seconds_left: float | None) -> None:
        """Hear that a run has ended, and how; and of the seconds that the others may take."""

    def stop(self) -> None:
        """Hear that no run goes on any more."""

    def beside(self, name: str) -> Progress:
        """Give what hears of one of the runs."""


@dataclass
class Pace:
    """How long runs take, learned from those that are finished."""

    known: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Data set and backbone -> seconds an epoch."""

    def learn(self, run: Run) -> None:
        """Take note of a finished run."""
        manifest = run.read_manifest()
        epochs = sum(int(stage["epochs"]) for stage in manifest.stages)
        if manifest.status == "finished" and epochs:
            self.known.setdefault((manifest.dataset, manifest.backbone), []).append(manifest.seconds / epochs)

    def estimate(self, cells: Sequence[Cell]) -> float | None:
        """Give the seconds that runs take one after another; of a backbone not seen yet, the mean of the others."""
        if not self.known:
            return None
        means = {key: sum(values) / len(values) for key, values in self.known.items()}
        usual = sum(means.values()) / len(means)
        each = (means.get((cell.config.dataset, cell.plan.backbone), usual) * _epochs(cell) for cell in cells)
        return sum(each)


def _epochs(cell: Cell) -> int:
    return sum(stage.epochs for stage in cell.plan.stages)


def look_out(matrix: Matrix, places: Places, pace: Pace) -> Outlook:
    """See which runs of a matrix are done, which have begun, and which stand in the way."""
    found: dict[str, list[Cell]] = {"done": [], "begun": [], "new": []}
    wrong: dict[str, str] = {}
    if places.runs.is_dir() and any(places.runs.glob("**/run.json")):
        for run in find_runs([places.runs]):
            _learn(pace, run)
    for cell in matrix.cells:
        try:
            done = is_done(cell.run, "resume", cell.plan, cell.config.seeds[0])
        except InputError as error:
            wrong[cell.name] = str(error)
            continue
        found["done" if done else "begun" if cell.run.has_begun() else "new"].append(cell)
    left = [*found["begun"], *found["new"]]
    kinds = {kind: tuple(cells) for kind, cells in found.items()}
    return Outlook(**kinds, wrong=wrong, undefined=matrix.undefined, seconds=pace.estimate(left))


def _learn(pace: Pace, run: Run) -> None:
    try:
        pace.learn(run)
    except InputError:  # it is damaged, and perhaps no run of this matrix
        return


def bench(
    matrix: Matrix, places: Places, progress: BenchProgress, interruption: Interruption, *, only_plan: bool = False
) -> dict[str, str]:
    """Train all runs of a matrix that are not finished, and give those that could not be: name -> why.

    What is done is left alone, what has begun goes on; a run that fails does not stop the others. Raises Stopped
    where a signal has come, with everything saved.
    """
    pace = Pace()
    outlook = look_out(matrix, places, pace)
    progress.plan(outlook)
    failures = dict(outlook.wrong)
    if only_plan or not outlook.left:
        return failures
    names = dict.fromkeys(cell.config.dataset for cell in outlook.left)
    ready = {name: prepare(places.dataset(name), progress.say) for name in names}
    waiting = {cell.name: cell for cell in outlook.left}
    first = outlook.left[0].config  # where and how many at a time is the same for all
    choose, at_a_time = _choose_placement(outlook.left, ready, first.jobs, choose_device(first.device).type)

    def hear(task: Task, failure: Exception | None) -> None:
        cell = waiting.pop(task.name)
        if failure is None:
            _learn(pace, cell.run)
        else:
            failures[task.name] = str(failure)
        left = pace.estimate(list(waiting.values()))
        told = str(failure) if failure else spell_scores(read_scores(cell.run))
        progress.end(task.name, told, failed=failure is not None, seconds_left=left and left / at_a_time)

    progress.begin(at_a_time)
    tasks = [Task(cell.name, cell.config) for cell in outlook.left]
    try:
        Crew(partial(train_alone, places, False), choose, progress, interruption, hear).train(tasks)
    finally:
        progress.stop()
    return failures


def _choose_placement(
    cells: Sequence[Cell], ready: Mapping[str, Prepared], jobs: int | None, device: str
) -> tuple[Choose, int]:
    """Give what decides how many runs are trained at a time, and a number to reckon with."""
    if device == "cuda":
        return on_gpus(count_gpus(), jobs), jobs or count_gpus()
    if jobs is not None:
        return at_most(jobs), jobs
    cores = count_processors()
    needs = {cell.name: threads_of_small() if _is_small(cell, ready) else cores for cell in cells}
    return on_processors(cores, needs), max(1, cores // min(needs.values()))


def _is_small(cell: Cell, ready: Mapping[str, Prepared]) -> bool:
    model = build_model(cell.plan, ready[cell.config.dataset].spec)
    return is_small(count_parameters(model))

"""`vqabench bench`: a matrix of runs, as many at a time as the machine has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from vqabench.data.prepared import Prepared, prepare
from vqabench.data.processors import count_processors
from vqabench.errors import InputError
from vqabench.evaluation.scores import read_scores
from vqabench.results import find_runs
from vqabench.training.assembly import build_model, count_parameters
from vqabench.training.at_once import Choose, Crew, Task
from vqabench.training.device import choose_device, count_gpus, is_small, threads_of_small
from vqabench.training.interruption import Interruption
from vqabench.training.logs import see_ready
from vqabench.training.progress import Progress
from vqabench.training.record import see_same
from vqabench.training.turns import at_most, on_gpus, on_processors
from vqabench.workflows.matrix import Cell, Matrix
from vqabench.workflows.pace import Estimate, Pace
from vqabench.workflows.places import Places
from vqabench.workflows.training import is_done, see_origin, spell_scores, train_alone, warnings_of


@dataclass(frozen=True)
class Outlook:
    """What is to be done, and how long it may take."""

    done: tuple[Cell, ...]
    begun: tuple[Cell, ...]
    """Runs that go on where they were."""
    new: tuple[Cell, ...]
    wrong: dict[str, str]
    """Runs that are there but cannot be gone on with, and such that lack what they start from, by name: why."""
    undefined: tuple[str, ...]
    """Why combinations are left out."""
    warnings: tuple[str, ...]
    """What a user should think twice about."""
    pace: Pace
    """How long an epoch has taken so far."""

    @property
    def estimate(self) -> Estimate | None:
        """Give how long the runs take that are left; None where no run has been trained yet."""
        return self.pace.estimate(self.left)

    @property
    def left(self) -> tuple[Cell, ...]:
        """Give the runs that are to be trained, those that have begun first."""
        return (*self.begun, *self.new)


class BenchProgress(Protocol):
    """Hears of a matrix as it goes."""

    def say(self, message: str) -> None:
        """Hear a line of information."""

    def warn(self, message: str) -> None:
        """Hear a line that the user should not miss."""

    def begin(self, runs: int, at_a_time: int, seconds: float | None, *, or_more: bool) -> None:
        """Hear that so many runs are about to be trained, how many at a time, and how long that may take."""

    def end(self, name: str, told: str, *, failed: bool, seconds_left: float | None) -> None:
        """Hear that a run has ended, and how; and of the seconds that the others may take."""

    def stop(self) -> None:
        """Hear that no run goes on any more."""

    def beside(self, name: str) -> Progress:
        """Give what hears of one of the runs."""


@dataclass(frozen=True)
class Placement:
    """How many runs are trained at a time."""

    choose: Choose
    at_a_time: int
    or_more: bool = False
    """Whether there may be more, by what the first ones leave free."""


def look_out(matrix: Matrix, places: Places) -> Outlook:
    """See which runs of a matrix are done, which have begun, and which stand in the way.

    Raises InputError where the device is not there.
    """
    places.see_runs()
    for device in dict.fromkeys(cell.config.device for cell in matrix.cells):
        choose_device(device)
    pace = Pace()
    with suppress(InputError):  # there may be no run yet
        for run in find_runs([places.runs]):
            pace.learn(run)
    found: dict[str, list[Cell]] = {"done": [], "begun": [], "new": []}
    wrong: dict[str, str] = {}
    for cell in matrix.cells:
        try:
            found[_see(cell)].append(cell)
        except InputError as error:
            wrong[cell.name] = str(error)
    left = [*found["begun"], *found["new"]]
    warnings = dict.fromkeys(told for cell in left for told in warnings_of(cell.plan))
    kinds = {kind: tuple(cells) for kind, cells in found.items()}
    return Outlook(**kinds, wrong=wrong, undefined=matrix.undefined, warnings=tuple(warnings), pace=pace)


def _see(cell: Cell) -> str:
    """Tell how far a run is. Raises InputError where it cannot be gone on with, or begun."""
    if is_done(cell.run, "resume", cell.plan, cell.seed):
        return "done"
    see_origin(cell.config, cell.run, cell.seed, afresh=False)
    return "begun" if cell.run.has_begun() else "new"


def bench(outlook: Outlook, places: Places, progress: BenchProgress, interruption: Interruption) -> dict[str, str]:
    """Train the runs of a matrix that are left, and give those that could not be: name -> why.

    What has begun goes on; a run that fails does not stop the others. Raises Stopped where a signal has come, with
    everything saved.
    """
    for cell in outlook.left:  # what the machine lacks is told before anything is prepared
        see_ready(cell.config.log)
    names = dict.fromkeys(cell.config.dataset for cell in (*outlook.done, *outlook.left))
    ready = {name: prepare(places.dataset(name), progress.say) for name in names}
    sizes, misfits = _measure(outlook.left, ready)
    found = _find_outdated(outlook.done, ready) | misfits
    for name, reason in found.items():
        progress.warn(f"{name}: {reason}")
    cells = [cell for cell in outlook.left if cell.name in sizes]
    if not cells:
        return outlook.wrong | found
    placement = _place(cells, sizes)
    course = Course({cell.name: cell for cell in cells}, placement.at_a_time, outlook.pace, progress)
    progress.begin(len(cells), placement.at_a_time, course.seconds_left(), or_more=placement.or_more)
    crew = Crew(partial(train_alone, places, False), placement.choose, progress, interruption, course.end)
    try:
        crew.train([Task(cell.name, cell.config) for cell in cells])
    finally:
        progress.stop()
    return outlook.wrong | found | course.failures


@dataclass
class Course:
    """A matrix as it is trained."""

    waiting: dict[str, Cell]
    """Runs that have not ended, by name."""
    at_a_time: int
    pace: Pace
    progress: BenchProgress
    failures: dict[str, str] = field(default_factory=dict)

    def seconds_left(self) -> float | None:
        """Give the seconds that the others may take; None where nothing is known."""
        estimate = self.pace.estimate(list(self.waiting.values()))
        return estimate.at_once(self.at_a_time) if estimate else None

    def end(self, task: Task, failure: Exception | None) -> None:
        """Take note of a run that has ended."""
        cell = self.waiting.pop(task.name)
        if failure is None:
            self.pace.learn(cell.run)
            told = spell_scores(read_scores(cell.run))
        else:
            told = self.failures[task.name] = str(failure)
        self.progress.end(task.name, told, failed=failure is not None, seconds_left=self.seconds_left())


def _find_outdated(cells: Sequence[Cell], ready: Mapping[str, Prepared]) -> dict[str, str]:
    """Find finished runs that have seen other data than there is now: name -> that."""
    outdated: dict[str, str] = {}
    for cell in cells:
        try:
            see_same(cell.run, cell.run.read_manifest(), {"fingerprint": ready[cell.config.dataset].fingerprint})
        except InputError as error:
            outdated[cell.name] = str(error)
    return outdated


def _measure(cells: Sequence[Cell], ready: Mapping[str, Prepared]) -> tuple[dict[str, int], dict[str, str]]:
    """Count the parameters of each run's model, by its name; and tell of each that cannot be built why."""
    by_configuration: dict[Path, int | InputError] = {}
    for cell in cells:
        if cell.run.folder.parent not in by_configuration:
            by_configuration[cell.run.folder.parent] = _try(cell, ready[cell.config.dataset])
    found = {cell.name: by_configuration[cell.run.folder.parent] for cell in cells}
    sizes = {name: one for name, one in found.items() if isinstance(one, int)}
    return sizes, {name: str(one) for name, one in found.items() if isinstance(one, InputError)}


def _try(cell: Cell, prepared: Prepared) -> int | InputError:
    try:
        return count_parameters(build_model(cell.plan, prepared.spec))
    except InputError as error:
        return error


def _place(cells: Sequence[Cell], sizes: Mapping[str, int]) -> Placement:
    """Choose how many runs are trained at a time: where, and how many the user wants, is the same for all."""
    first = cells[0].config
    device, jobs = choose_device(first.device), first.jobs
    if device.type == "cuda":
        one = first.device.startswith("cuda:")
        names = [str(device)] if one else [f"cuda:{number}" for number in range(count_gpus())]
        return Placement(on_gpus(names, jobs), jobs or len(names), or_more=jobs is None)
    if jobs is not None:
        return Placement(at_most(jobs), jobs)
    if first.features in ("host", "device"):  # each would have a copy in memory
        return Placement(at_most(1), 1)
    cores = count_processors()
    needs = {cell.name: threads_of_small() if is_small(sizes[cell.name]) else cores for cell in cells}
    return Placement(on_processors(cores, needs), max(1, cores // min(needs.values())))

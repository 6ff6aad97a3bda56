"""`vqabench bench`: a matrix of runs, as many at a time as the machine has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from vqabench.bench.commands import Child, Choose, Pool, Task
from vqabench.bench.matrix import Block, Cell, Matrix, find_plugins, make_matrix
from vqabench.bench.pace import Estimate, Pace
from vqabench.bench.probe import find_broken
from vqabench.bench.scheduler import at_most, on_gpus, on_processors
from vqabench.data.prepare.prepared import Prepared, prepare
from vqabench.errors import InputError, counted
from vqabench.evaluation.scores import read_scores
from vqabench.events import CellAdvanced, CellEnded, Emit, MatrixEnded, MatrixStarted, Warn
from vqabench.files.resources import count_processors
from vqabench.paths import Paths
from vqabench.results import find_runs
from vqabench.training.device import choose_device, count_gpus, is_small, threads_of_small
from vqabench.training.interruption import Interruption
from vqabench.training.logs import check_ready
from vqabench.training.record import check_same
from vqabench.workflows.training import check_origin, format_scores, is_done, warnings_of


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


@dataclass(frozen=True)
class Placement:
    """How many runs are trained at a time."""

    choose: Choose
    at_a_time: int
    or_more: bool = False
    """Whether there may be more, by what the first ones leave free."""


def plan(blocks: Sequence[Block], paths: Paths) -> Matrix:
    """Make all runs of a matrix. A plugin that exits or hangs as it is imported costs its own runs only."""
    return make_matrix(blocks, paths, find_broken(find_plugins(blocks)))


def look_out(matrix: Matrix, paths: Paths) -> Outlook:
    """See which runs of a matrix are done, which have begun, and which stand in the way.

    Raises InputError where the device is not there.
    """
    paths.check_runs()
    for device in dict.fromkeys(cell.config.device for cell in matrix.cells):
        choose_device(device)
    pace = Pace()
    with suppress(InputError):  # there may be no run yet
        for run in find_runs([paths.runs]):
            pace.learn(run)
    found: dict[str, list[Cell]] = {"done": [], "begun": [], "new": []}
    wrong: dict[str, str] = dict(matrix.broken)
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
    check_origin(cell.config, cell.run, cell.seed, afresh=False)
    return "begun" if cell.run.has_begun() else "new"


@dataclass
class Course:
    """A matrix while it is trained."""

    outlook: Outlook
    emit: Emit
    at_a_time: int = 1
    waiting: dict[str, Cell] = field(default_factory=dict)
    """Runs that have not ended, by name."""
    finished: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    """Runs that a signal has ended without saving, and why."""
    _shown: dict[str, tuple[int, int]] = field(default_factory=dict)
    _warnings: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.waiting = {cell.name: cell for cell in self.outlook.left}
        self.finished = len(self.outlook.done)
        self.failures = dict(self.outlook.wrong)
        self.total = len(self.waiting) + self.finished + len(self.failures)
        self._warnings = set(self.outlook.warnings)

    def summary(self) -> str:
        """Return how many runs are finished."""
        runs = f"{self.finished} of {counted(self.total, 'run')} finished"
        return f"{runs}, {len(self.failures)} failed" if self.failures else runs

    def saved(self) -> str:
        """Return what is saved once a signal has stopped the runs."""
        lost = "; ".join(f"{name}: {why}" for name, why in self.lost.items())
        saved = f"not everything is saved: {lost}" if lost else "everything is saved"
        return f"{self.summary()}; {saved}; rerun the same command to continue"

    def seconds_left(self) -> float | None:
        """Return the seconds that the others may take; None if nothing is known."""
        estimate = self.outlook.pace.estimate(list(self.waiting.values()))
        return estimate.at_once(self.at_a_time) if estimate else None

    def fail(self, name: str, why: str) -> None:
        """Record a run that cannot be trained, or does not count."""
        self.finished -= self.waiting.pop(name, None) is None
        self.failures[name] = why
        self.emit(Warn(f"{name}: {why}"))

    def end(self, task: Task, failure: Exception | None) -> None:
        """Record a run that has ended."""
        cell = self.waiting.pop(task.name)
        if failure is None:
            self.finished += 1
            self.outlook.pace.learn(cell.run)
            told = format_scores(read_scores(cell.run))
        else:
            told = self.failures[task.name] = str(failure)
        self.emit(CellEnded(task.name, told, failure is not None, self.seconds_left()))

    def follow(self, children: Sequence[Child]) -> None:
        """Show how far the runs are, as far as their records have changed."""
        for child in children:
            try:
                found = child.task.run.epochs_file.stat()
                state = found.st_size, found.st_mtime_ns
            except OSError:
                state = 0, 0
            if self._shown.get(child.task.name) != state:
                self._shown[child.task.name] = state
                epochs = sum(stage.epochs for stage in self.waiting[child.task.name].plan.stages)
                self.emit(CellAdvanced(child.task.name, epochs, child.task.run.read_epochs()))

    def show(self, task: Task, line: str) -> None:
        """Show a warning that a run's process has printed, each text once."""
        text = line.removeprefix("warning: ")
        if text != line and text not in self._warnings:
            self._warnings.add(text)
            self.emit(Warn(f"{task.name}: {text}"))


def bench(course: Course, paths: Paths, interruption: Interruption) -> None:
    """Train the runs of a matrix that are left. The course then has those that failed.

    Runs that have begun continue; one that fails does not stop the others. Raises Stopped if a signal has come.
    """
    outlook, emit = course.outlook, course.emit
    for cell in outlook.left:  # before anything is prepared
        check_ready(cell.config.log)
    names = dict.fromkeys(cell.config.dataset for cell in (*outlook.done, *outlook.left))
    ready = {name: prepare(paths.dataset(name), emit) for name in names}
    for name, reason in _find_outdated(outlook.done, ready).items():
        course.fail(name, reason)
    if not outlook.left:
        return
    placement = _place(outlook.left, outlook.pace)
    course.at_a_time = placement.at_a_time
    emit(MatrixStarted(len(outlook.left), placement.at_a_time, course.seconds_left(), placement.or_more))
    pool = Pool(paths, placement.choose, interruption, course.end, course.show, course.follow, emit)
    try:
        pool.train([_task(cell, outlook.pace) for cell in outlook.left])
    finally:
        course.lost = pool.lost
        emit(MatrixEnded())


def _task(cell: Cell, pace: Pace) -> Task:
    return Task(cell.name, cell.config, cell.run, parameters=pace.parameters_of(cell))


def _find_outdated(cells: Sequence[Cell], ready: Mapping[str, Prepared]) -> dict[str, str]:
    """Find finished runs that have seen other data than there is now: name -> that."""
    outdated: dict[str, str] = {}
    for cell in cells:
        try:
            check_same(cell.run, cell.run.read_manifest(), {"fingerprint": ready[cell.config.dataset].fingerprint})
        except InputError as error:
            outdated[cell.name] = str(error)
    return outdated


def _place(cells: Sequence[Cell], pace: Pace) -> Placement:
    """Choose how many runs are trained at a time: where, and how many the user wants, is the same for all."""
    first = cells[0].config
    device, jobs = choose_device(first.device), first.jobs
    if device.type == "cuda":
        one = first.device.startswith("cuda:")
        names = [str(device)] if one else [f"cuda:{number}" for number in range(count_gpus())]
        return Placement(on_gpus(names, jobs), jobs or len(names), or_more=jobs is None)
    if jobs is not None:
        jobs = min(jobs, len(cells))
        return Placement(at_most(jobs), jobs)
    if first.features in ("host", "device"):  # each would have a copy in memory
        return Placement(at_most(1), 1)
    cores = count_processors()
    sizes = [pace.parameters_of(cell) for cell in cells]
    large = any(size is not None and not is_small(size) for size in sizes)
    return Placement(on_processors(cores), 1 if large else max(1, cores // threads_of_small()), or_more=large)

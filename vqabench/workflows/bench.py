"""`vqabench bench`: a matrix of runs, as many at a time as fit on the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from vqabench.bench.child_runs import Child, Pool, Task
from vqabench.bench.matrix import Block, MatrixCell, find_plugins, make_matrix
from vqabench.bench.matrix_plan import MatrixPlan, Timings
from vqabench.bench.probe import find_broken
from vqabench.bench.scheduler import make_schedule
from vqabench.data.prepare.prepared import Prepared, prepare
from vqabench.errors import InputError, counted
from vqabench.evaluation.scores import read_scores
from vqabench.events import CellAdvanced, CellEnded, Emit, MatrixEnded, MatrixStarted, Warn
from vqabench.paths import Paths
from vqabench.results import find_runs
from vqabench.training.device import choose_device
from vqabench.training.interruption import Interruption
from vqabench.training.logs import check_ready
from vqabench.training.provenance import check_same
from vqabench.training.resume import begin
from vqabench.workflows.training import format_scores


def plan_matrix(blocks: Sequence[Block], paths: Paths) -> MatrixPlan:
    """Make all runs of a matrix, and find those that are done, have begun, or cannot be trained.

    A plugin that exits or hangs when it is imported affects only its own runs. Raises InputError if a name or a
    setting is wrong, or the device does not exist.
    """
    matrix = make_matrix(blocks, paths, find_broken(find_plugins(blocks)))
    paths.check_runs()
    for device in dict.fromkeys(cell.config.device for cell in matrix.cells):
        choose_device(device)
    timings = Timings()
    with suppress(InputError):  # there may be no run yet
        for run in find_runs([paths.runs]):
            timings.add(run)
    found: dict[str, list[MatrixCell]] = {"done": [], "begun": [], "new": []}
    wrong = dict(matrix.broken)
    for cell in matrix.cells:
        try:
            start = begin(cell.plan, cell.seed, cell.run, "resume")
            state = "done" if start.kind == "finished" else "new" if start.before is None else "begun"
            found[state].append(cell)
        except InputError as error:
            wrong[cell.name] = str(error)
    left = [*found["begun"], *found["new"]]
    warnings = tuple(dict.fromkeys(message for cell in left for message in cell.plan.warnings()))
    cells = {state: tuple(cells) for state, cells in found.items()}
    return MatrixPlan(
        matrix.cells, **cells, wrong=wrong, undefined=matrix.undefined, warnings=warnings, timings=timings
    )


class MatrixRun:
    """A matrix that is being trained, and the outcome of its runs."""

    def __init__(self, plan: MatrixPlan, emit: Emit) -> None:
        self.plan, self.emit = plan, emit
        self.waiting = {cell.name: cell for cell in plan.left}
        """Runs that have not ended, by name."""
        self.finished, self.failures = len(plan.done), dict(plan.wrong)
        self.lost: dict[str, str] = {}
        """Runs that a signal ended without saving, by name: the reason."""
        self._total = len(self.waiting) + self.finished + len(self.failures)
        self._at_a_time = 1
        self._shown: dict[str, tuple[int, int]] = {}

    def train(self, paths: Paths, interruption: Interruption) -> None:
        """Train the runs that are left.

        Runs that have begun are resumed; one that fails does not stop the others. Raises Stopped after a signal.
        """
        left = self.plan.left
        for cell in left:  # before anything is prepared
            check_ready(cell.config.log)
        names = dict.fromkeys(cell.config.dataset for cell in (*self.plan.done, *left))
        self._check_data({name: prepare(paths.dataset(name), self.emit) for name in names})
        if not left:
            return
        schedule = make_schedule(left, self.plan.timings)
        self._at_a_time = schedule.at_a_time
        self.emit(MatrixStarted(len(left), schedule.at_a_time, self._seconds_left(), schedule.or_more))
        warned = set(self.plan.warnings)
        pool = Pool(paths, schedule.choose, interruption, self.emit, self._end, self._follow, warned)
        parameters_of = self.plan.timings.parameters_of
        try:
            pool.train([Task(cell.name, cell.config, cell.run, parameters=parameters_of(cell)) for cell in left])
        finally:
            self.lost = pool.lost
            self.emit(MatrixEnded())

    def summary(self) -> str:
        """Return how many runs are finished."""
        runs = f"{self.finished} of {counted(self._total, 'run')} finished"
        return f"{runs}, {len(self.failures)} failed" if self.failures else runs

    def describe_saved(self) -> str:
        """Return what is saved after a signal has stopped the runs."""
        lost = "; ".join(f"{name}: {why}" for name, why in self.lost.items())
        saved = f"not everything is saved: {lost}" if lost else "everything is saved"
        return f"{self.summary()}; {saved}; rerun the same command to continue"

    def _check_data(self, ready: Mapping[str, Prepared]) -> None:
        """Count finished runs as failed if they were trained on other data than there is now."""
        for cell in self.plan.done:
            fingerprint = {"fingerprint": ready[cell.config.dataset].fingerprint}
            try:
                check_same(cell.run, cell.run.read_manifest(), fingerprint)
            except InputError as error:
                self.finished -= 1
                self.failures[cell.name] = str(error)
                self.emit(Warn(f"{cell.name}: {error}"))

    def _seconds_left(self) -> float | None:
        estimate = self.plan.timings.estimate(list(self.waiting.values()))
        return estimate.in_parallel(self._at_a_time) if estimate else None

    def _end(self, task: Task, failure: Exception | None) -> None:
        """Record a run that has ended by itself."""
        cell = self.waiting.pop(task.name)
        if failure is None:
            self.finished += 1
            self.plan.timings.add(cell.run)
            message = format_scores(read_scores(cell.run))
        else:
            message = self.failures[task.name] = str(failure)
        self.emit(CellEnded(task.name, message, failure is not None, self._seconds_left()))

    def _follow(self, children: Sequence[Child]) -> None:
        """Report the progress of the runs whose records have changed."""
        for child in children:
            name, run = child.task.name, child.task.run
            try:
                found = run.epochs_file.stat()
                state = found.st_size, found.st_mtime_ns
            except OSError:
                state = 0, 0
            if self._shown.get(name) != state:
                self._shown[name] = state
                epochs = sum(stage.epochs for stage in self.waiting[name].plan.stages)
                self.emit(CellAdvanced(name, epochs, run.read_epochs()))

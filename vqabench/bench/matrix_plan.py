"""Find the runs of a matrix that are left, and estimate their duration from earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from vqabench.bench.matrix import MatrixCell
from vqabench.errors import InputError
from vqabench.results import Run


@dataclass(frozen=True)
class Estimate:
    """The estimated duration of runs."""

    seconds: float
    """Seconds if they are trained one after another."""
    longest: float
    """Seconds of the longest run."""
    guessed: tuple[str, ...]
    """Backbones without earlier runs on the data set; the mean of the others is assumed."""

    def in_parallel(self, jobs: int) -> float:
        """Return the seconds if `jobs` runs are trained at a time."""
        return max(self.longest, self.seconds / jobs)


@dataclass
class Timings:
    """Durations of epochs and sizes of models in earlier runs, by data set and backbone."""

    epoch_seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Mean seconds per epoch of each run."""
    parameters: dict[tuple[str, str], int] = field(default_factory=dict)
    """Number of parameters of the largest model so far."""

    def add(self, run: Run) -> None:
        """Record a run, finished or not. Damaged runs are skipped."""
        try:
            manifest = run.read_manifest()
        except InputError:
            return
        key = manifest.dataset, manifest.backbone
        self.parameters[key] = max(manifest.parameters, self.parameters.get(key, 0))
        finished = manifest.status == "finished"
        epochs = sum(stage["epochs"] for stage in manifest.stages) if finished else len(run.read_epochs())
        if epochs and manifest.seconds:
            self.epoch_seconds.setdefault(key, []).append(manifest.seconds / epochs)

    def parameters_of(self, cell: MatrixCell) -> int | None:
        """Return the parameters of the largest model of a run's backbone; None if it was never trained."""
        return self.parameters.get((cell.config.dataset, cell.plan.backbone))

    def estimate(self, cells: Sequence[MatrixCell]) -> Estimate | None:
        """Estimate the remaining duration; None if no run was trained yet on one of the data sets."""
        known = {dataset for dataset, _ in self.epoch_seconds}
        if not cells or not known.issuperset(cell.config.dataset for cell in cells):
            return None
        each, guessed = [], set()
        for cell in cells:
            dataset, backbone = cell.config.dataset, cell.plan.backbone
            own = self.epoch_seconds.get((dataset, backbone))
            if own is None:
                guessed.add(backbone)
                own = [fmean(seconds) for (other, _), seconds in self.epoch_seconds.items() if other == dataset]
            epochs = sum(stage.epochs for stage in cell.plan.stages) - len(cell.run.read_epochs())
            each.append(fmean(own) * max(0, epochs))
        return Estimate(sum(each), max(each), tuple(sorted(guessed)))


@dataclass(frozen=True)
class MatrixPlan:
    """The runs of a matrix, grouped by their progress."""

    cells: tuple[MatrixCell, ...]
    """All runs that are finished or can be trained, in the order of the matrix."""
    done: tuple[MatrixCell, ...]
    begun: tuple[MatrixCell, ...]
    """Runs to resume."""
    new: tuple[MatrixCell, ...]
    wrong: Mapping[str, str]
    """Runs that cannot be trained or resumed, by name: the reason."""
    undefined: tuple[str, ...]
    """Reasons why combinations are left out."""
    warnings: tuple[str, ...]
    timings: Timings

    @property
    def left(self) -> tuple[MatrixCell, ...]:
        """Return the runs that are to be trained; those to resume come first."""
        return (*self.begun, *self.new)

    @property
    def estimate(self) -> Estimate | None:
        """Return how long the remaining runs may take; None if nothing is known."""
        return self.timings.estimate(self.left)

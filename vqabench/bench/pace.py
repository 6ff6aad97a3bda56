"""How long runs take, learned from those that have been trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from vqabench.bench.matrix import Cell
from vqabench.errors import InputError
from vqabench.results import Run


@dataclass(frozen=True)
class Estimate:
    """How long runs take."""

    seconds: float
    """Of all, one after another."""
    longest: float
    """Seconds of the longest of them."""
    guessed: tuple[str, ...]
    """Backbones of which no run has been trained on the data set: the mean of the others stands for them."""

    def at_once(self, runs: int) -> float:
        """Give the seconds with so many runs at a time."""
        return max(self.longest, self.seconds / runs)


@dataclass
class Pace:
    """How long an epoch takes."""

    known: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Data set and backbone -> seconds an epoch, of each run."""
    parameters: dict[tuple[str, str], int] = field(default_factory=dict)
    """Data set and backbone -> those of the largest model so far."""

    def learn(self, run: Run) -> None:
        """Record how long a run has taken so far, and how large it is. Damaged runs are skipped."""
        try:
            manifest = run.read_manifest()
        except InputError:
            return
        key = manifest.dataset, manifest.backbone
        self.parameters[key] = max(manifest.parameters, self.parameters.get(key, 0))
        finished = manifest.status == "finished"
        epochs = sum(stage["epochs"] for stage in manifest.stages) if finished else len(run.read_epochs())
        if epochs and manifest.seconds:
            self.known.setdefault(key, []).append(manifest.seconds / epochs)

    def parameters_of(self, cell: Cell) -> int | None:
        """Return the parameters of the largest model of a run's backbone so far; None if it was never trained."""
        return self.parameters.get((cell.config.dataset, cell.plan.backbone))

    def estimate(self, cells: Sequence[Cell]) -> Estimate | None:
        """Give how long the rest of runs takes; None where nothing is known of one of their data sets."""
        known = {dataset for dataset, _ in self.known}
        if not cells or not known.issuperset(cell.config.dataset for cell in cells):
            return None
        each = [self._seconds_an_epoch(cell) * epochs_left(cell) for cell in cells]
        new = {cell.plan.backbone for cell in cells if (cell.config.dataset, cell.plan.backbone) not in self.known}
        return Estimate(sum(each), max(each), tuple(sorted(new)))

    def _seconds_an_epoch(self, cell: Cell) -> float:
        own = self.known.get((cell.config.dataset, cell.plan.backbone))
        if own:
            return fmean(own)
        return fmean(fmean(known) for (dataset, _), known in self.known.items() if dataset == cell.config.dataset)


def epochs_left(cell: Cell) -> int:
    """Count the epochs that a run has before it."""
    return max(0, sum(stage.epochs for stage in cell.plan.stages) - len(cell.run.read_epochs()))

"""Where and how runs are trained. Nothing here changes a run's result, apart from rounding."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import IntEnum

import torch

from vqabench.data.batches.placement import PlacedFeatures, choose_place, format_place
from vqabench.data.catalog.dataset import Dataset
from vqabench.data.features.store import FeatureStore
from vqabench.data.prepare.prepared import Prepared
from vqabench.events import Emit
from vqabench.results import Run
from vqabench.training.device import number_type
from vqabench.training.interruption import Interruption
from vqabench.training.plan import Plan
from vqabench.training.processes import Processes


class Action(IntEnum):
    """What to do after a batch; if processes differ, all take the largest."""

    CONTINUE = 0
    SAVE = 1
    STOP = 2
    """Save, and stop."""


@dataclass
class Session:
    """The device, the processes and the limits that one or several runs are trained with."""

    device: torch.device
    emit: Emit
    features: str = "auto"
    """Where region features are kept: `auto`, or a `Place`."""
    processes: Processes = field(default_factory=Processes)
    interruption: Interruption = field(default_factory=Interruption)
    checkpoint_minutes: float = 10.0
    sharers: int = 1
    """Number of processes that train runs of their own at the same time, on the same processors or GPU."""
    gpus: int = 1
    """Number of GPUs of the machine with that many processes each."""
    threads: int = field(default_factory=torch.get_num_threads)
    """Threads for a model that needs several."""
    _saved: float = field(default_factory=time.monotonic)
    _placed: PlacedFeatures | None = None

    def place(self, features: FeatureStore, precision: str) -> PlacedFeatures:
        """Return the features where they are to be kept; the runs of one session share them."""
        dtype = number_type(precision)
        if self._placed is None or self._placed.dtype != dtype:
            self._placed = None  # free the old ones first: memory may not hold both
            devices = self.processes.local_count * self.gpus
            place = choose_place(self.features, features, self.device, dtype, self.sharers, devices)
            self._placed = PlacedFeatures(features, self.device, place, dtype)
            self.emit(format_place(self._placed))
        return self._placed

    def record_save(self) -> None:
        """Record that a checkpoint has just been written."""
        self._saved = time.monotonic()

    def choose_action(self) -> Action:
        """Return what to do after a batch. All processes return the same: the largest of their own choices."""
        self.interruption.step()
        # If one process stopped and the others did not, they would wait for its gradients for ever.
        late = time.monotonic() - self._saved > 60 * self.checkpoint_minutes
        own = Action.STOP if self.interruption.received else Action.SAVE if late else Action.CONTINUE
        return Action(self.processes.largest(own))


@dataclass(frozen=True)
class Job:
    """One run: its plan, seed, folder, data and session."""

    plan: Plan
    seed: int
    run: Run
    dataset: Dataset
    prepared: Prepared
    session: Session

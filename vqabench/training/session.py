"""What a run is carried out with: nothing here bears on its result, but for rounding."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from vqabench.data.batches.placement import PlacedFeatures, choose_place, format_place
from vqabench.data.features.store import FeatureStore
from vqabench.events import Emit
from vqabench.training.device import Autocast, autocast, number_type
from vqabench.training.interruption import Interruption
from vqabench.training.processes import Processes

GOES_ON, SAVES, STOPS = range(3)


@dataclass
class Session:
    """One run on one machine, or several runs one after another."""

    device: torch.device
    emit: Emit
    features: str = "auto"
    """Where region features are kept: `auto`, or a `Place`."""
    processes: Processes = field(default_factory=Processes)
    interruption: Interruption = field(default_factory=Interruption)
    checkpoint_minutes: float = 10.0
    sharers: int = 1
    """Processes that train runs of their own at the same time, on the same processors or GPU."""
    gpus: int = 1
    """GPUs of the machine on which as many do so."""
    threads: int = field(default_factory=torch.get_num_threads)
    """Threads that a model which has need of them is trained with."""
    _saved: float = field(default_factory=time.monotonic)
    _placed: PlacedFeatures | None = None

    def place(self, features: FeatureStore, precision: str) -> PlacedFeatures:
        """Give the features where they are to be kept; the runs of one session share them."""
        dtype = number_type(precision)
        if self._placed is None or self._placed.dtype != dtype:
            self._placed = None  # before there are two
            devices = self.processes.local_count * self.gpus
            place = choose_place(self.features, features, self.device, dtype, self.sharers, devices)
            self._placed = PlacedFeatures(features, self.device, place, dtype)
            self.emit(format_place(self._placed))
        return self._placed

    def autocast(self, precision: str) -> Autocast:
        """Give what makes the context of a forward pass."""
        return autocast(self.device, precision)

    def saved(self) -> None:
        """Take note that a checkpoint has just been written."""
        self._saved = time.monotonic()

    def wish(self) -> int:
        """Tell whether to go on, to save first, or to save and stop: what any of the processes wants, all do."""
        self.interruption.step()
        late = time.monotonic() - self._saved > 60 * self.checkpoint_minutes
        own = STOPS if self.interruption.received else SAVES if late else GOES_ON
        return self.processes.largest(own)

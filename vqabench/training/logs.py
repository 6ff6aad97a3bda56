"""Write a run's numbers to TensorBoard and Weights & Biases, in addition to `epochs.jsonl`, which every run has.

Names of the numbers; accuracies and kappas are in percent:
    step/loss, step/train_accuracy, step/lr    means over the latest steps, in the first process
    epoch/loss, epoch/val_accuracy, ...        an epoch's line of `epochs.jsonl`; accuracies are soft ones
    test/accuracy/all, val/kappa/yes-no, ...   `scores.json`, for the weights of the chosen epoch
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from vqabench.errors import InputError
from vqabench.evaluation.scores import Scores
from vqabench.events import Emit, EpochFinished, Event, RunEnded, RunScored, RunStarted, StepsMeasured, Warn
from vqabench.plugins import one_line
from vqabench.results import Manifest, Run

NOT_LOGGED = ("pieces", "started", "seconds", "status", "failure", "epoch", "config")
"""Fields of a manifest that record how a run went, or repeat others as they were given."""


class Log(Protocol):
    """A base class that writes the numbers of one run. An error that it raises ends the log, not the run."""

    name: str
    """As in `--log`."""

    def __init__(self, run: Run) -> None: ...

    @staticmethod
    def check_ready() -> None:
        """Raise InputError if something is missing besides the package."""

    def start(self, manifest: Manifest, steps: int | None) -> str:
        """Start, or continue after `steps` steps; return where the log is.

        Anything logged for later steps is void: they are trained again. None: the run is only scored again.
        """

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers at a step, counted from 1 over all epochs; those of an epoch include `epoch`."""

    def write_scores(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Write the scores of the chosen epoch."""

    def close(self, status: str) -> None:
        """Close the log, given the status of the run's manifest. The log may not have been started."""


def load_log(name: str) -> type[Log]:
    """Load a kind of log. Raises InputError if its package cannot be imported."""
    try:
        if name == "tensorboard":
            from vqabench.training.tensorboard_log import TensorBoardLog

            return TensorBoardLog
        from vqabench.training.wandb_log import WandbLog

        return WandbLog
    except ImportError as error:
        why = one_line(error, kind=False)
        raise InputError(f'--log {name}: needs more ({why}): pip install "vqabench[{name}]"') from error


def check_ready(names: Iterable[str]) -> None:
    """Raise InputError unless all of these logs can be written."""
    for name in names:
        load_log(name).check_ready()


class Logs:
    """Writes a run's events to its logs, and passes them on. A log that fails is dropped with a warning."""

    def __init__(self, names: Iterable[str], run: Run, manifest: Manifest, emit: Emit) -> None:
        self.run, self.manifest, self.emit = run, manifest, emit
        self.open = [load_log(name)(run) for name in names]
        self.started = False

    def __call__(self, event: Event) -> None:
        """Write what the event reports, and pass it on."""
        match event:
            case RunStarted():
                self._start(event.steps_done)
            case StepsMeasured():
                numbers = {f"step/{name}": number for name, number in event.numbers.items()}
                self._each(lambda log: log.write(event.step, numbers))
            case EpochFinished():
                record = event.record
                numbers = {f"epoch/{name}": x for name, x in record.items() if isinstance(x, int | float)}
                numbers["epoch"] = numbers.pop("epoch/epoch")
                self._each(lambda log: log.write(event.step, numbers))
            case RunScored():
                if not self.started:
                    self._start(None)
                self._each(lambda log: log.write_scores(event.epoch, event.numbers))
            case RunEnded():
                self._each(lambda log: log.close(event.status))
        self.emit(event)

    def _start(self, steps: int | None) -> None:
        self.started = True
        self._each(lambda log: self.emit(f"{log.name}: {log.start(self.manifest, steps)}"))

    def _each(self, act: Callable[[Log], None]) -> None:
        for log in list(self.open):
            try:
                act(log)
            except Exception as error:  # other people's code may raise anything
                self.open.remove(log)
                with suppress(Exception):
                    log.close("failed")
                why = f"--log {log.name} has failed and is turned off ({one_line(error)})"
                self.emit(Warn(f"{self.run.folder}: {why}"))


def hyperparameters(manifest: Manifest) -> dict[str, Any]:
    """Return the fields of a manifest that describe what is run, as nested plain values."""
    everything: dict[str, Any] = msgspec.to_builtins(manifest)
    return {name: value for name, value in everything.items() if name not in NOT_LOGGED}


def name_scores(scores: Mapping[str, Scores]) -> dict[str, float]:
    """Return all numbers that are defined, as `split/metric/category`."""
    return {
        f"{split}/{metric}/{category.replace('/', '-')}": number  # a `/` would start another group
        for split, form in scores.items()
        for metric in ("accuracy", "kappa")
        for category, number in getattr(form, metric).items()
        if number is not None
    }

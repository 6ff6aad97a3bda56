"""A run's numbers in logs that people already use, beside `epochs.jsonl`, which every run has.

Their names; accuracies and kappas are in percent:
    step/loss, step/train_accuracy, step/lr    means over the batches since the last such line, of the first process
    epoch/loss, epoch/val_accuracy, ...        what `epochs.jsonl` has of an epoch; these accuracies are soft ones
    test/accuracy/all, val/kappa/yes-no, ...   what `scores.json` has of the chosen weights, in the end
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import msgspec

from vqabench.errors import InputError
from vqabench.evaluation.scores import Scores
from vqabench.results import Manifest, Run, Status
from vqabench.training.progress import Progress

OUTCOME = ("pieces", "started", "seconds", "status", "failure", "epoch")
"""What of a manifest tells how a run went, not what was run."""


class Log(Protocol):
    """Hears the numbers of one run. An error that it raises ends the log, and not the run."""

    def __init__(self, run: Run) -> None: ...

    @staticmethod
    def check_ready() -> None:
        """Raise InputError where more than its package is needed, and lacks."""

    def start(self, manifest: Manifest, steps: int | None) -> str:
        """Hear what is run, and how many steps are done; give the place where the log is to be seen.

        What was heard of later steps holds no more: they are trained again. None: the run is only scored again.
        """

    def measure(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hear numbers at a step, counted from 1 over all epochs."""

    def finish_epoch(self, step: int, epoch: int, numbers: Mapping[str, float]) -> None:
        """Hear numbers of an epoch, counted from 1 over all stages, whose last step this was."""

    def finish(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Hear how the weights of the chosen epoch were scored."""

    def close(self, status: Status) -> None:
        """Hear how the run has ended. It may not have been started."""


def _load_tensorboard() -> type[Log]:
    from vqabench.training.tensorboard_log import TensorBoardLog

    return TensorBoardLog


def _load_wandb() -> type[Log]:
    from vqabench.training.wandb_log import WandbLog

    return WandbLog


KINDS: Mapping[str, Callable[[], type[Log]]] = {"tensorboard": _load_tensorboard, "wandb": _load_wandb}


def load_log(name: str) -> type[Log]:
    """Load a kind of log. Raises InputError where its package is not installed, or is broken."""
    try:
        return KINDS[name]()
    except ImportError as error:
        why = " ".join(str(error).split())
        raise InputError(f'--log {name}: needs more ({why}): pip install "vqabench[{name}]"') from error


def check_ready(names: Iterable[str]) -> None:
    """Raise InputError unless all of these logs can be written."""
    for name in names:
        load_log(name).check_ready()


class Logs:
    """All logs of a run. One that fails is told of, once, and hears nothing more; the run goes on."""

    def __init__(self, names: Iterable[str], run: Run, manifest: Manifest, progress: Progress) -> None:
        self.run, self.manifest, self.progress = run, manifest, progress
        self.kept: dict[str, Log] = {name: load_log(name)(run) for name in names}
        self.started = False

    @contextmanager
    def open(self) -> Iterator[None]:
        """Close all in the end, in whatever way that came: the manifest says."""
        try:
            yield
        finally:
            self._tell(lambda log: log.close(self.manifest.status))

    def start(self, steps: int | None) -> None:
        """Begin, or go on behind so many steps; None: the run is only scored again."""
        self.started = True
        for name, log in list(self.kept.items()):
            with self._forgiving(name):
                self.progress.say(f"{name}: {log.start(self.manifest, steps)}")

    def measure(self, step: int, numbers: Mapping[str, float]) -> None:
        """Pass on numbers at a step."""
        self._tell(lambda log: log.measure(step, {f"step/{name}": number for name, number in numbers.items()}))

    def finish_epoch(self, step: int, record: Mapping[str, Any]) -> None:
        """Pass on what was recorded of an epoch, as far as it is numbers."""
        values = {name: value for name, value in record.items() if isinstance(value, int | float)}
        numbers = {f"epoch/{name}": value for name, value in values.items() if name != "epoch"}
        self._tell(lambda log: log.finish_epoch(step, record["epoch"], numbers))

    def finish(self, scores: Mapping[str, Scores]) -> None:
        """Pass on the final scores, as far as they are defined."""
        if not self.started:
            self.start(None)
        epoch, numbers = self.manifest.epoch or 0, dict(_name_scores(scores))
        self._tell(lambda log: log.finish(epoch, numbers))

    def _tell(self, tell: Callable[[Log], None]) -> None:
        for name, log in list(self.kept.items()):
            with self._forgiving(name):
                tell(log)

    @contextmanager
    def _forgiving(self, name: str) -> Iterator[None]:
        """Let an error end a log alone."""
        try:
            yield
        except Exception as error:  # whatever other people's code may raise
            with suppress(Exception):
                self.kept.pop(name).close("failed")
            why = " ".join(str(error).split())
            self.progress.warn(
                f"{self.run.folder}: --log {name} has failed and is turned off ({type(error).__name__}: {why})"
            )


def hyperparameters(manifest: Manifest) -> dict[str, Any]:
    """Give what of a manifest tells what is run, by the names in `run.json`; plain values, nested."""
    everything: dict[str, Any] = msgspec.to_builtins(manifest)
    return {name: value for name, value in everything.items() if name not in OUTCOME}


def _name_scores(scores: Mapping[str, Scores]) -> Iterator[tuple[str, float]]:
    """Name every number that is defined: a category's `/` would begin a group of its own."""
    for split, form in scores.items():
        for metric in ("accuracy", "kappa"):
            for category, number in getattr(form, metric).items():
                if number is not None:
                    yield f"{split}/{metric}/{category.replace('/', '-')}", number

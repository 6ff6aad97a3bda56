"""Several runs at the same time, each in a process of its own.

Where one run cannot keep the machine busy (a small model on one of several cores or on a GPU), several can. They
share the prepared data, which is mapped from its files.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from vqabench.config import TrainConfig
from vqabench.errors import VqabenchError
from vqabench.training.device import GpuMemory, measure_gpu_memory
from vqabench.training.interruption import Interruption, Stopped
from vqabench.training.progress import Progress

SECONDS_TO_LISTEN = 0.2


@dataclass(frozen=True)
class Task:
    """A run that is to be trained."""

    name: str
    """What it is called where several are told of."""
    config: TrainConfig
    """With its one seed."""
    sharers: int = 1
    """Processes that train at the same time on the same processors."""


@dataclass
class Running:
    """A run that is being trained."""

    task: Task
    process: BaseProcess
    memory: GpuMemory | None = None
    """What it takes of its GPU, once an epoch is done."""


Work = Callable[[Task, Progress, Interruption], None]
"""Trains a run. It must be possible to pickle it."""
Choose = Callable[[Sequence[Task], Sequence[Running]], tuple[int, Task] | None]
"""Given those that wait and those that run: which of the waiting is to be started now, if any, and as what."""
Ended = Callable[[Task, Exception | None], None]


class Company(Protocol):
    """Hears of several runs."""

    def beside(self, name: str) -> Progress:
        """Give what hears of one of them."""


@dataclass
class Crew:
    """The processes that train runs at the same time."""

    work: Work
    choose: Choose
    progress: Company
    interruption: Interruption
    ended: Ended
    """Hears of each run that has ended by itself. What it raises stops the others, which save what they have."""
    running: dict[str, Running] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    def train(self, tasks: Sequence[Task]) -> None:
        """Train all.

        Raises what `ended` raises; Stopped where a signal has come, to this process or to one of them.
        """
        context = multiprocessing.get_context("spawn")
        told = context.Queue()
        watchers = {task.name: self.progress.beside(task.name) for task in tasks}
        waiting = list(tasks)
        with self.interruption.put_off():
            try:
                while waiting or self.running:
                    self._start_some(waiting, context, told)
                    ended = [run for run in self.running.values() if run.process.exitcode is not None]
                    self._listen(told, watchers)
                    self.interruption.check()
                    for run in ended:
                        del self.running[run.task.name]
                        self._end(run)
            finally:
                self._stop()
                while any(run.process.exitcode is None for run in self.running.values()):
                    self._listen(told, watchers)  # or they could not put what they have to tell
                for run in self.running.values():
                    run.process.join()

    def _start_some(self, waiting: list[Task], context: Any, told: Any) -> None:
        while waiting and (chosen := self.choose(waiting, list(self.running.values()))) is not None:
            number, task = chosen
            del waiting[number]
            process = context.Process(target=_train_one, args=(self.work, task, told), name=task.name)
            with _kept_from_children(signal.SIGINT):
                process.start()
            self.running[task.name] = Running(task, process)

    def _listen(self, told: Any, watchers: Mapping[str, Progress]) -> None:
        """Pass on what has been told."""
        patience = SECONDS_TO_LISTEN
        while True:
            try:
                name, what, arguments = told.get(timeout=patience)
            except queue.Empty:
                return
            patience = 0.01
            if what == "fail":
                self.failures[name] = _as_error(*arguments)
            elif what == "take":
                self.running[name].memory = GpuMemory(*arguments)
            else:
                getattr(watchers[name], what)(*arguments)

    def _end(self, run: Running) -> None:
        """Tell of a run that has ended. Raises Stopped where it was sent a signal by itself."""
        code, name = run.process.exitcode, run.task.name
        failure = self.failures.pop(name, None)
        if failure is None and code in (75, 130):
            raise Stopped("SIGTERM")
        if failure is None and code:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            failure = VqabenchError(f"{name}: its process {how}; --resume goes on")
        self.ended(run.task, failure)

    def _stop(self) -> None:
        """Ask processes to save and stop."""
        for run in self.running.values():
            if run.process.exitcode is None:
                run.process.terminate()


def _as_error(kind: type[Exception], arguments: tuple[object, ...], trace: str) -> Exception:
    error = kind(*arguments)
    if trace:
        error.add_note(trace)
    return error


@contextmanager
def _kept_from_children(one: signal.Signals) -> Iterator[None]:
    """Block a signal that a terminal sends to all in the processes that are started here: this one tells them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [one])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Forwarding:
    """Tells another process what a run tells; all but single batches, which nobody could follow."""

    def __init__(self, told: Any, name: str) -> None:
        self.told, self.name = told, name

    def say(self, message: str) -> None:
        """Forward it."""
        self.told.put((self.name, "say", (message,)))

    def warn(self, message: str) -> None:
        """Forward it."""
        self.told.put((self.name, "warn", (message,)))

    def start(self, name: str, epochs: int, done: int, samples: int, seen: int) -> None:
        """Forward it."""
        self.told.put((self.name, "start", (name, epochs, done, samples, seen)))

    def advance(self, samples: int) -> None:
        """Keep it."""

    def measure(self, loss: float, accuracy: float | None) -> None:
        """Keep it."""

    def finish_epoch(self, record: Mapping[str, Any]) -> None:
        """Forward it, with what the run has come to take of its GPU."""
        self.told.put((self.name, "finish_epoch", (dict(record),)))
        memory = measure_gpu_memory()
        if memory is not None:
            self.told.put((self.name, "take", (memory.taken, memory.free)))

    def stop(self) -> None:
        """Forward it."""
        self.told.put((self.name, "stop", ()))

    def beside(self, name: str) -> Progress:
        """Give itself: there is but one run here."""
        return self


def _train_one(work: Work, task: Task, told: Any) -> None:
    """Train a run, in a process of its own."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    interruption = Interruption()
    name = task.name
    try:
        with interruption.watching():
            work(task, Forwarding(told, name), interruption)
    except KeyboardInterrupt as stop:
        sys.exit(getattr(stop, "exit_code", 130))
    except VqabenchError as error:
        told.put((name, "fail", (type(error), (f"{name}: {error}",), "")))
        sys.exit(1)
    except OSError as error:
        told.put((name, "fail", (OSError, (error.errno, error.strerror or str(error), error.filename), "")))
        sys.exit(1)
    except Exception as error:
        message = f"{name}: {type(error).__name__}: {error}"
        told.put((name, "fail", (RuntimeError, (message,), traceback.format_exc())))
        sys.exit(1)


def _end_with_parent() -> None:
    """Save and stop where the process that has started this one is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

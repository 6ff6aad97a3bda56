"""Runs of several seeds at the same time, each in a process of its own.

Where one run cannot keep the machine busy (a small model on one of several cores), several can. They share the
prepared data, which is mapped from its files.
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
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from vqabench.errors import VqabenchError
from vqabench.training.interruption import Interruption, Stopped
from vqabench.training.progress import Progress

Work = Callable[[int, Progress, Interruption], None]
"""Trains the run of a seed. It must be possible to pickle it."""
SECONDS_TO_LISTEN = 0.2


def train_at_once(
    work: Work, seeds: Sequence[int], jobs: int, progress: Progress, interruption: Interruption
) -> None:
    """Let `jobs` processes at a time train the runs of all seeds, and hear what they tell.

    An error in one of them stops the others, which save what they have, and is raised here; likewise a signal.
    Raises VqabenchError where a process is killed.
    """
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    watchers = {seed: progress.beside(f"seed {seed}") for seed in seeds}
    waiting, running = list(seeds), dict[int, BaseProcess]()
    failure: BaseException | None = None
    stopping = False
    with interruption.put_off():
        try:
            while running or (waiting and not stopping):
                while waiting and len(running) < jobs and not stopping:
                    seed = waiting.pop(0)
                    process: BaseProcess = context.Process(
                        target=_train_one, args=(work, seed, told), name=f"seed-{seed}"
                    )
                    with _kept_from_children(signal.SIGINT):
                        process.start()
                    running[seed] = process
                ended = {seed: process for seed, process in running.items() if process.exitcode is not None}
                heard = _listen(told, watchers)
                failure = failure or heard
                stopped = interruption.received is not None
                for seed, process in ended.items():
                    failure = failure or (None if stopping or stopped else _died(seed, process))
                    del running[seed]
                if not stopping and (failure or stopped or any(process.exitcode for process in ended.values())):
                    stopping = True
                    _stop(running)
        finally:
            _stop(running)
            for process in running.values():
                process.join()
    if failure is not None:
        raise failure
    interruption.check()
    if stopping:  # a process was sent the signal by itself
        raise Stopped("SIGTERM")


def _listen(told: Any, watchers: Mapping[int, Progress]) -> BaseException | None:
    """Pass on what has been told, and give the first error among it."""
    failure: BaseException | None = None
    patience = SECONDS_TO_LISTEN
    while True:
        try:
            seed, what, arguments = told.get(timeout=patience)
        except queue.Empty:
            return failure
        patience = 0.01
        if what == "fail":
            failure = failure or _as_error(*arguments)
        else:
            getattr(watchers[seed], what)(*arguments)


def _as_error(kind: type[Exception], arguments: tuple[object, ...], trace: str) -> Exception:
    error = kind(*arguments)
    if trace:
        error.add_note(trace)
    return error


def _died(seed: int, process: BaseProcess) -> BaseException | None:
    """Give an error where a process has ended otherwise than by itself, and has told of none."""
    code = process.exitcode
    if code in (0, 75, 130):
        return None
    how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
    return VqabenchError(f"seed {seed}: its process {how}; --resume goes on")


@contextmanager
def _kept_from_children(one: signal.Signals) -> Iterator[None]:
    """Block a signal that a terminal sends to all in the processes that are started here: this one tells them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [one])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(running: Mapping[int, BaseProcess]) -> None:
    """Ask processes to save and stop."""
    for process in running.values():
        if process.exitcode is None:
            process.terminate()


class Forwarding:
    """Tells another process what a run tells; all but single batches, which nobody could follow."""

    def __init__(self, told: Any, seed: int) -> None:
        self.told, self.seed = told, seed

    def say(self, message: str) -> None:
        """Forward it."""
        self.told.put((self.seed, "say", (message,)))

    def warn(self, message: str) -> None:
        """Forward it."""
        self.told.put((self.seed, "warn", (message,)))

    def start(self, name: str, epochs: int, done: int, samples: int, seen: int) -> None:
        """Forward it."""
        self.told.put((self.seed, "start", (name, epochs, done, samples, seen)))

    def advance(self, samples: int) -> None:
        """Keep it."""

    def measure(self, loss: float, accuracy: float | None) -> None:
        """Keep it."""

    def finish_epoch(self, record: Mapping[str, Any]) -> None:
        """Forward it."""
        self.told.put((self.seed, "finish_epoch", (dict(record),)))

    def stop(self) -> None:
        """Forward it."""
        self.told.put((self.seed, "stop", ()))

    def beside(self, name: str) -> Progress:
        """Give itself: there is but one run here."""
        return self


def _train_one(work: Work, seed: int, told: Any) -> None:
    """Train the run of a seed, in a process of its own."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    interruption = Interruption()
    try:
        with interruption.watching():
            work(seed, Forwarding(told, seed), interruption)
    except KeyboardInterrupt as stop:
        sys.exit(getattr(stop, "exit_code", 130))
    except VqabenchError as error:
        told.put((seed, "fail", (type(error), (f"seed {seed}: {error}",), "")))
        sys.exit(1)
    except OSError as error:
        told.put((seed, "fail", (OSError, (error.errno, error.strerror or str(error), error.filename), "")))
        sys.exit(1)
    except Exception as error:
        told.put(
            (
                seed,
                "fail",
                (RuntimeError, (f"seed {seed}: {type(error).__name__}: {error}",), traceback.format_exc()),
            )
        )
        sys.exit(1)


def _end_with_parent() -> None:
    """Save and stop where the process that has started this one is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

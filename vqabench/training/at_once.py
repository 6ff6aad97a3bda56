"""Several runs at the same time, each in a process of its own.

Where one run cannot keep the machine busy (a small model on one of several cores or on a GPU), several can. They
share the prepared data, which is mapped from its files.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from vqabench.config import TrainConfig
from vqabench.errors import VqabenchError
from vqabench.training.device import GpuMemory, measure_gpu_memory
from vqabench.training.interruption import Interruption, Stopped, known_signals
from vqabench.training.progress import Progress

SECONDS_TO_LISTEN = 0.2
"""How long a signal may wait until it is heard of."""


@dataclass(frozen=True)
class Task:
    """A run that is to be trained."""

    name: str
    """What it is called where several are told of."""
    config: TrainConfig
    """With its one seed."""
    sharers: int = 1
    """Processes that train at the same time on the same processors, or the same GPU."""
    gpus: int = 1
    """GPUs of the machine on which as many train."""


@dataclass
class Running:
    """A run that is being trained."""

    task: Task
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
class Member:
    """A process that trains a run."""

    run: Running
    process: BaseProcess
    told: Connection
    """What it tells. Each process has its own: one that is killed as it tells something leaves the others alone."""
    watcher: Progress
    failure: Exception | None = None

    def listen(self) -> None:
        """Pass on what has been told; no longer than the process tells anything."""
        try:
            while self.told.poll():
                self._take(*self.told.recv())
        except (EOFError, OSError):
            self.told.close()

    def _take(self, what: str, arguments: tuple[Any, ...]) -> None:
        if what == "fail":
            self.failure = _as_error(*arguments)
        elif what == "take":
            self.run.memory = GpuMemory(*arguments)
        else:
            getattr(self.watcher, what)(*arguments)

    @property
    def is_going_on(self) -> bool:
        """Tell whether the process has not ended yet."""
        return self.process.exitcode is None


@dataclass
class Crew:
    """The processes that train runs at the same time."""

    work: Work
    choose: Choose
    progress: Company
    interruption: Interruption
    ended: Ended
    """Hears of each run that has ended by itself. What it raises stops the others, which save what they have."""
    members: list[Member] = field(default_factory=list)

    def train(self, tasks: Sequence[Task]) -> None:
        """Train all.

        Raises what `ended` raises; Stopped where a signal has come, to this process or to one of them.
        """
        context = _make_context()
        waiting = list(tasks)
        with self.interruption.put_off():
            try:
                while waiting or self.members:
                    self._start_some(waiting, context)
                    ended = [member for member in self.members if not member.is_going_on]
                    self._listen(0 if ended else SECONDS_TO_LISTEN)
                    self.interruption.check()
                    for member in ended:
                        self.members.remove(member)
                        self._end(member)
            finally:
                self._stop()

    def _start_some(self, waiting: list[Task], context: Any) -> None:
        while waiting and (chosen := self.choose(waiting, [member.run for member in self.members])) is not None:
            number, task = chosen
            del waiting[number]
            told, tells = context.Pipe(duplex=False)
            process = context.Process(target=_train_one, args=(self.work, task, tells), name=task.name)
            with blocked(known_signals()), tells:
                process.start()
            self.members.append(Member(Running(task), process, told, self.progress.beside(task.name)))

    def _listen(self, seconds: float) -> None:
        """Pass on what is told, as soon as there is something, or one has ended; wait so long for that."""
        speaking = {member.told: member for member in self.members if not member.told.closed}
        sentinels = [member.process.sentinel for member in self.members if member.is_going_on]
        for one in wait([*speaking, *sentinels], seconds):
            if one in speaking:
                speaking[one].listen()

    def _end(self, member: Member) -> None:
        """Tell of a run that has ended. Raises Stopped where it was sent a signal by itself."""
        code, failure = member.process.exitcode or 0, member.failure
        if failure is None and code in (75, 130):
            raise Stopped("SIGTERM")
        if failure is None and code:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            failure = VqabenchError(f"its process {how}; started again, it goes on from its latest checkpoint")
        self.ended(member.run.task, failure)

    def _stop(self) -> None:
        """Ask processes to save and stop, and hear what they still have to tell."""
        for member in self.members:
            if member.is_going_on:
                member.process.terminate()
        while any(member.is_going_on for member in self.members):
            self._listen(SECONDS_TO_LISTEN)
        for member in self.members:
            member.process.join()


def _make_context() -> Any:
    """Give the way processes are started: as copies of one that has loaded PyTorch, where the system can do that.

    A new one each time takes two seconds of a core, and 150 MB.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vqabench.training.run"])
    return context


def _as_error(kind: type[Exception], arguments: tuple[object, ...], trace: str) -> Exception:
    error = kind(*arguments)
    if trace:
        error.add_note(trace)
    return error


@contextmanager
def blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Block signals in the processes that are started here, until they are ready to take them.

    A terminal, or Slurm, sends them to all: before that they would end a process, and what starts the others.
    """
    resource_tracker.ensure_running()  # as it starts, it unblocks some
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Forwarding:
    """Tells another process what a run tells; all but single batches, which nobody could follow."""

    def __init__(self, tells: Connection) -> None:
        self.tells = tells

    def tell(self, what: str, *arguments: object) -> None:
        """Tell it, if there is still somebody to hear it: where there is not, a signal is about to come."""
        with suppress(BrokenPipeError):
            self.tells.send((what, arguments))

    def say(self, message: str) -> None:
        """Forward it."""
        self.tell("say", message)

    def warn(self, message: str) -> None:
        """Forward it."""
        self.tell("warn", message)

    def start(self, name: str, epochs: int, done: int, samples: int, seen: int) -> None:
        """Forward it."""
        self.tell("start", name, epochs, done, samples, seen)

    def advance(self, samples: int) -> None:
        """Keep it."""

    def measure(self, loss: float, accuracy: float | None) -> None:
        """Keep it."""

    def finish_epoch(self, record: Mapping[str, Any]) -> None:
        """Forward it, with what the run has come to take of its GPU."""
        self.tell("finish_epoch", dict(record))
        memory = measure_gpu_memory()
        if memory is not None:
            self.tell("take", memory.taken, memory.free)

    def stop(self) -> None:
        """Forward it."""
        self.tell("stop")

    def beside(self, name: str) -> Progress:
        """Give itself: there is but one run here."""
        return self


def _train_one(work: Work, task: Task, tells: Connection) -> None:
    """Train a run, in a process of its own."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    interruption, progress = Interruption(), Forwarding(tells)
    try:
        with interruption.watching():
            # Ctrl-C stays blocked: a terminal sends it to all, and the process that started this one tells of it.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, set(known_signals()) - {signal.SIGINT})
            work(task, progress, interruption)
    except KeyboardInterrupt as stop:
        sys.exit(getattr(stop, "exit_code", 130))
    except VqabenchError as error:
        progress.tell("fail", type(error), (str(error),), "")
        sys.exit(1)
    except OSError as error:
        progress.tell("fail", OSError, (error.errno, error.strerror or str(error), error.filename), "")
        sys.exit(1)
    except Exception as error:
        progress.tell("fail", RuntimeError, (f"{type(error).__name__}: {error}",), traceback.format_exc())
        sys.exit(1)


def _end_with_parent() -> None:
    """Save and stop where the process that has started this one is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

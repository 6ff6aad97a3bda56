"""Train each run with the command `vqabench train ... --resume` in a process of its own.

The parent relies on the exit code, the lines on stderr and the run folder alone. Whatever a plugin does to its
process (exit, hang, leave threads or processes behind) does not affect the parent or other runs.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from vqabench.config import TrainConfig, to_arguments
from vqabench.errors import InputError, VqabenchError
from vqabench.events import Emit, Warn
from vqabench.files.python_process import child_environment, kill_group, python_command
from vqabench.paths import Paths
from vqabench.results import BUSY, Manifest, Run
from vqabench.training.interruption import SAVING, Interruption, Stopped
from vqabench.training.resume import has_scored_answers

CHILD = "VQABENCH_CHILD"
"""Environment variable of a run that another process started: runs that share its device, and GPUs in use."""
POLL = 0.1
"""Seconds between checks of the processes."""
GRACE = 10.0
"""Seconds that a process has to exit once its run is finished, or to react to SIGTERM."""
SLOW_START = 300.0
"""Seconds after which a run that has not begun is reported."""
CHECK_LOCKS = 2.0
"""Seconds between checks of runs that other programs train."""
LONGEST_LINE = 10_000
"""Bytes of one line of stderr that are read at once."""


@dataclass(frozen=True)
class Task:
    """A run to be trained."""

    name: str
    config: TrainConfig
    """The configuration, with exactly one seed."""
    run: Run
    afresh: bool = False
    """Whether to replace an existing run."""
    parameters: int | None = None
    """Number of parameters of its model, if an earlier run has recorded it."""


@dataclass(frozen=True)
class Slot:
    """The device on which a run is trained, and how many runs share it."""

    device: str | None = None
    sharers: int = 1
    """Number of runs that share the device or the processors, including this one."""
    gpus: int = 1
    """Number of GPUs of this machine that train that many runs each."""


@dataclass
class Child:
    """A process that trains a run."""

    task: Task
    slot: Slot
    process: subprocess.Popen[bytes]
    on_line: Callable[[Task, str], None]
    """Called with each line of its stderr, from another thread."""
    started: float = field(default_factory=time.monotonic)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    """The last lines of its stderr."""
    has_reacted: bool = False
    """Whether it has written anything to stderr since it was asked to stop."""
    killed: str = ""
    """Why it was killed, if it was."""
    finished_at: float | None = None
    is_reported: bool = False

    def __post_init__(self) -> None:
        self.epochs_before = max((record["epoch"] for record in self.task.run.read_epochs()), default=0)
        """The last epoch that was recorded before this process started."""
        self._before = self._stamp()
        self._seen = self._before
        self._manifest: Manifest | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def manifest(self) -> Manifest | None:
        """Return what the process has written to `run.json`; None before it has."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            with suppress(InputError):
                self._manifest = self.task.run.read_manifest()
        return self._manifest

    @property
    def parameters(self) -> int | None:
        """Return the number of parameters of its model, if it is known."""
        manifest = self.manifest
        return self.task.parameters if manifest is None else manifest.parameters

    @property
    def seconds(self) -> float:
        """Return how long it has been running."""
        return time.monotonic() - self.started

    def has_finished(self) -> bool:
        """Return whether its run is finished, with its scores.

        If the process failed, or had to replace a run, the run counts only if this process has written `run.json`.
        """
        needs_change = self.task.afresh or self.process.poll() != 0
        return (not needs_change or self.has_begun()) and is_finished(self.task.run)

    def has_begun(self) -> bool:
        """Return whether the process has written `run.json`."""
        return self._stamp() != self._before

    def kill(self, why: str = "") -> None:
        """Kill the process and all that it has started."""
        self.killed = self.killed or why
        kill_group(self.process)
        self._reader.join(1.0)  # a process that has left the group may keep the pipe open forever

    def failure(self) -> VqabenchError:
        """Return why the run is not finished although its process has ended."""
        code, resumable = self.process.returncode, self.task.run.resume_file.is_file()
        error = next((line for line in reversed(list(self.tail)) if line.startswith("error: ")), None)
        if error is not None:
            kind = InputError if code == InputError.exit_code else VqabenchError
            return kind(error.removeprefix("error: "))
        if self.killed:
            why = self.killed
        elif code < 0:
            why = f"its process was killed by {_name_signal(-code)}"
        elif code in (75, 130):
            why = f"its process stopped with exit code {code} without being asked to"
        else:
            why = f"its process ended with exit code {code} before the run was finished"
            why += f"; see: vqabench plugins check {self.task.config.backbone}"
        hint = "; rerun the same command to continue from its latest checkpoint"
        return VqabenchError(why + hint if resumable else why)

    def _read(self) -> None:
        """Read the process's stderr to its end."""
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for raw in iter(lambda: lines.readline(LONGEST_LINE), b""):
                self.has_reacted = True
                line = _clean(raw)
                self.tail.append(line)
                if line:
                    self.on_line(self.task, line)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.task.run.manifest_file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


Choose = Callable[[Task, Sequence[Child]], Slot | None]
"""Returns where to start a run, given the running ones; None if it has to wait."""


@dataclass
class Pool:
    """Trains runs at the same time, each in a process of its own."""

    paths: Paths
    choose: Choose
    interruption: Interruption
    emit: Emit
    ended: Callable[[Task, Exception | None], None]
    """Called with each run that has ended by itself. If it raises, the others save and stop."""
    watch: Callable[[Sequence[Child]], None] = lambda _: None
    """Called several times a second with the running processes."""
    warned: set[str] = field(default_factory=set)
    """Warnings that are not reported again when a process prints them."""
    reports_lines: bool = False
    """Whether to report what the processes print besides warnings."""
    children: list[Child] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    """Runs that a signal ended without saving, by name: the reason."""
    _waiting: list[Task] = field(default_factory=list)
    _elsewhere: list[Task] = field(default_factory=list)
    """Runs that another program is training."""
    _next_check: float = 0.0
    _is_stopping: bool = False

    def train(self, tasks: Sequence[Task]) -> None:
        """Train all runs.

        Raises what `ended` raises, and Stopped after a signal. No process is left behind in either case.
        """
        self._waiting = list(tasks)
        with self.interruption.put_off():
            try:
                while self._waiting or self.children or self._elsewhere:
                    if self.interruption.received is not None:
                        self._stop()
                        stopped = Stopped(self.interruption.received)
                        if self.lost and stopped.exit_code != 130:
                            stopped.exit_code = 1  # not everything is saved
                        raise stopped
                    self._check_elsewhere()
                    self._start_some()
                    time.sleep(POLL)
                    self._collect()
                    self.watch(self.children)
            except Exception:
                self._stop()
                raise
            finally:
                for child in list(self.children):
                    self._end(child, "was killed")

    def _start_some(self) -> None:
        while self._waiting and (slot := self.choose(self._waiting[0], self.children)) is not None:
            task = self._waiting.pop(0)
            if task.run.is_locked():
                self._wait_for_others(task)
            else:
                process = subprocess.Popen(
                    python_command("-m", "vqabench", *command_of(task, self.paths, slot.device)),
                    env=child_environment() | {CHILD: f"{slot.sharers},{slot.gpus}"},
                    stdin=subprocess.PIPE,  # closed when this process ends, which stops the run
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    process_group=0,  # so that all of it can be killed, and a terminal's Ctrl-C does not reach it
                )
                self.children.append(Child(task, slot, process, self._pass_on))

    def _pass_on(self, task: Task, line: str) -> None:
        """Report a line of a process's stderr; called from other threads."""
        text = line.removeprefix("warning: ")
        if self._is_stopping:  # each process reports that it was stopped
            return
        if text == line:
            if self.reports_lines and not line.startswith(("error: ", "stopping")):
                self.emit(f"{task.name}: {line}")
        elif text not in self.warned:
            self.warned.add(text)
            self.emit(Warn(f"{task.name}: {text}"))

    def _wait_for_others(self, task: Task) -> None:
        self.emit(Warn(f"{task.name}: another process is training it; waiting for it to end"))
        self._elsewhere.append(task)

    def _check_elsewhere(self) -> None:
        """Find runs that no other program trains any more."""
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + CHECK_LOCKS
        for task in [task for task in self._elsewhere if not task.run.is_locked()]:
            self._elsewhere.remove(task)
            if is_finished(task.run):
                self.ended(task, None)
            else:
                self._waiting.append(task)

    def _collect(self) -> None:
        """Report the processes that have ended, and kill those that should have."""
        for child in list(self.children):
            if child.process.poll() is None and not self._is_overdue(child):
                continue
            child.kill()
            self.children.remove(child)
            if child.has_finished():
                self.ended(child.task, None)
            elif any(BUSY in line for line in list(child.tail)):
                self._wait_for_others(child.task)
            else:
                self.ended(child.task, child.failure())

    def _is_overdue(self, child: Child) -> bool:
        """Return whether a run has been finished for some time, but its process has not ended."""
        manifest = child.manifest
        if manifest is None and child.seconds > SLOW_START and not child.is_reported:
            child.is_reported = True
            self.emit(Warn(f"{child.task.name}: has not started after {SLOW_START / 60:.0f} min"))
        if manifest is None or manifest.status != "finished":
            child.finished_at = None
            return False
        child.finished_at = child.finished_at or time.monotonic()
        if time.monotonic() - child.finished_at < GRACE or not child.has_finished():
            return False
        self.emit(Warn(f"{child.task.name}: finished, but its process did not exit, so it was ended"))
        return True

    def _stop(self) -> None:
        """Ask all processes to save and stop; kill those that do not react."""
        self._is_stopping = True
        self.interruption.cancel_limit()  # each process has limits of its own
        began = time.monotonic()
        for child in self.children:
            child.has_reacted = False
            child.process.terminate()
        while self.children:
            time.sleep(POLL)
            passed = time.monotonic() - began
            for child in list(self.children):
                if child.process.poll() is None:
                    if passed < (SAVING if child.has_reacted else GRACE):
                        continue
                    child.kill(f"did not react to SIGTERM within {passed:.0f} s and was killed")
                self._end(child)

    def _end(self, child: Child, why: str = "") -> None:
        """Kill what is left of a process that was asked to stop, and record how it ended."""
        child.kill(why)
        self.children.remove(child)
        if child.has_finished():
            self.ended(child.task, None)
        elif child.process.returncode not in (75, 130) and child.has_begun():
            self.lost[child.task.name] = str(child.failure())


def command_of(task: Task, paths: Paths, device: str | None = None) -> list[str]:
    """Return the arguments of `vqabench` that train a run."""
    places = ["--runs", str(paths.runs), *paths.to_arguments()]
    options = to_arguments(replace(task.config, device=device or task.config.device, jobs=None))
    return ["train", "--force" if task.afresh else "--resume", *places, *options]


def is_finished(run: Run) -> bool:
    """Return whether a run is finished, with its scores and answers."""
    try:
        return run.read_manifest().status == "finished" and has_scored_answers(run)
    except InputError:
        return False


def read_peers(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Return how many runs share this process's device, and on how many GPUs; None if it is not a child."""
    sharers, _, gpus = environment.get(CHILD, "").partition(",")
    return (int(sharers), int(gpus)) if sharers.isdecimal() and gpus.isdecimal() else None


def _clean(raw: bytes) -> str:
    """Decode a line of a process's stderr, without control characters."""
    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw.decode(errors="replace"))
    return "".join(mark if mark.isprintable() else " " if mark.isspace() else "" for mark in line).strip()


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

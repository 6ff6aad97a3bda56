"""A matrix of runs as one watches it, on stderr: a line for each run that ends, and in a terminal a bar for each
that goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from vqabench.reporting.progress import WatchedLines


class Named(Protocol):
    """A run of a matrix."""

    @property
    def name(self) -> str:
        """Name it."""


class Planned(Protocol):
    """What is to be done."""

    @property
    def done(self) -> Sequence[Named]:
        """Runs that are finished."""

    @property
    def begun(self) -> Sequence[Named]:
        """Runs that go on."""

    @property
    def new(self) -> Sequence[Named]:
        """Runs that begin."""

    @property
    def wrong(self) -> Mapping[str, str]:
        """Runs that cannot be gone on with: why."""

    @property
    def undefined(self) -> Sequence[str]:
        """Why combinations are left out."""

    @property
    def seconds(self) -> float | None:
        """Time for all that is left, one run after another."""


class WatchedMatrix(WatchedLines):
    """Tells of a matrix."""

    def plan(self, outlook: Planned) -> None:
        """Say what is to be done, and in a terminal show a bar over all of it."""
        parts = [(outlook.done, "finished already"), (outlook.begun, "go on"), (outlook.new, "to train")]
        counted = [f"{len(cells)} {what}" for cells, what in parts if cells]
        total = sum(len(cells) for cells, _ in parts) + len(outlook.wrong)
        self.say(f"{total} runs: {', '.join(counted) or 'none'}")
        for reason in outlook.undefined:
            self.say(f"left out: {reason}")
        for name, reason in outlook.wrong.items():
            self.warn(f"{name}: {reason}")
        left = [*outlook.begun, *outlook.new]
        self.total, self.ended = len(left), 0
        for cell in left:
            self.say(f"  {cell.name}")
        if left:
            self.say(_spell_estimate(outlook.seconds))

    def begin(self, at_a_time: int) -> None:
        """Say how many are trained at a time; in a terminal show bars."""
        self.say(f"up to {at_a_time} at a time, each in a process of its own")
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[latest]}", markup=False),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
            )
            self.all = self.bar.add_task("all runs", total=self.total, latest="")
            self.bar.start()

    def beside(self, name: str) -> WatchedCell:
        """Give what tells of one of the runs."""
        return WatchedCell(self, name)

    def end(self, name: str, told: str, *, failed: bool, seconds_left: float | None) -> None:
        """Print how a run has ended."""
        self.ended += 1
        left = f" ({spell_time(seconds_left)} left)" if seconds_left else ""
        where = f"[{self.ended}/{self.total}]"
        colour = "red" if failed else "green"
        mark = "failed: " if failed else ""
        self.console.print(f"[{colour}]{escape(where)}[/] {escape(f'{name}: {mark}{told}{left}')}")
        if self.bar is not None:
            self.bar.update(self.all, completed=self.ended, latest=left.strip(" ()"))


class WatchedCell(WatchedLines):
    """Tells of a run that goes on beside others: its warnings, and in a terminal a bar that counts its epochs."""

    def __init__(self, matrix: WatchedMatrix, name: str) -> None:
        self.console, self.bar = matrix.console, None
        self.matrix, self.name, self.prefix = matrix, name, f"{name}: "
        self.task: TaskID | None = None

    def say(self, message: str) -> None:
        """Keep it: what ends the run is told."""

    def start(self, name: str, epochs: int, done: int, samples: int, seen: int) -> None:
        """Show a bar."""
        if self.matrix.bar is not None:
            self.task = self.matrix.bar.add_task(self.name, total=epochs, completed=done, latest="")

    def advance(self, samples: int) -> None:
        """Keep it."""

    def measure(self, loss: float, accuracy: float | None) -> None:
        """Keep it."""

    def finish_epoch(self, record: Mapping[str, Any]) -> None:
        """Move the bar on."""
        if self.matrix.bar is not None and self.task is not None:
            latest = f"loss {record['loss']:.3f}"
            if "val_accuracy" in record:
                latest += f"  val {record['val_accuracy']:.1f}"
            self.matrix.bar.update(self.task, completed=record["epoch"], latest=latest)

    def stop(self) -> None:
        """Take the bar away."""
        if self.matrix.bar is not None and self.task is not None:
            self.matrix.bar.remove_task(self.task)
            self.task = None

    def beside(self, name: str) -> WatchedCell:
        """Give itself: there is but one run here."""
        return self


def _spell_estimate(seconds: float | None) -> str:
    if seconds is None:
        return "how long they take is not known before the first of them ends"
    return f"about {spell_time(seconds)} of one run after another, going by those that are finished"


def spell_time(seconds: float) -> str:
    """Spell a time in the units that one would say it in."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"

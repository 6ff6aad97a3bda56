"""A matrix of runs as one watches it, on stderr: a line for each run that ends, and in a terminal a bar for each
that goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from vqabench.reporting.output import clean_line
from vqabench.reporting.progress import Bars, WatchedLines


class Named(Protocol):
    """A run of a matrix."""

    @property
    def name(self) -> str:
        """Name it."""


class Expected(Protocol):
    """How long runs may take."""

    @property
    def seconds(self) -> float:
        """One after another."""

    @property
    def guessed(self) -> Sequence[str]:
        """Backbones of which nothing is known."""


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
    def warnings(self) -> Sequence[str]:
        """What a user should think twice about."""

    @property
    def estimate(self) -> Expected | None:
        """Time for all that is left; None where nothing is known."""


class WatchedMatrix(WatchedLines):
    """Tells of a matrix."""

    def plan(self, outlook: Planned) -> None:
        """Say what is to be done."""
        parts = [(outlook.done, "finished already"), (outlook.begun, "to resume"), (outlook.new, "to train")]
        counted = [f"{len(cells)} {what}" for cells, what in parts if cells]
        total = sum(len(cells) for cells, _ in parts) + len(outlook.wrong)
        self.say(f"{total} run{'' if total == 1 else 's'}: {', '.join(counted) or 'none'}")
        for reason in outlook.undefined:
            self.say(f"left out: {reason}")
        left = [*outlook.begun, *outlook.new]
        for cell in left:
            self.say(f"  {cell.name}")
        for message in (*outlook.warnings, *(f"{name}: {reason}" for name, reason in outlook.wrong.items())):
            self.warn(message)
        if left:
            self.say(_format_estimate(outlook.estimate))

    def begin(self, runs: int, at_a_time: int, seconds: float | None, *, or_more: bool) -> None:
        """Print how many are trained at a time; in a terminal show bars."""
        self.total, self.ended = runs, 0
        self.tasks: dict[str, TaskID] = {}
        many = f"{at_a_time} at a time" + (", or more if there is room" if or_more else "")
        last = f": about {format_time(seconds)}" if seconds is not None else ""
        self.say(f"training {many}, each in a process of its own{last}")
        if self.console.is_terminal:
            self.bar = _make_bars(self.console)
            latest = _format_left(seconds)
            self.all = self.bar.add_task("all runs", total=self.total, seed="", latest=latest)
            self.bar.start()

    def follow(self, name: str, epochs: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Show how far a run is, in a bar of its own."""
        if self.bar is None:
            return
        if name not in self.tasks:
            shown, _, seed = name.rpartition(" seed ")  # a long name is cut, its seed is not
            self.tasks[name] = self.bar.add_task(shown, total=epochs, seed=f"seed {seed}", latest="")
        if records:
            latest = f"loss {records[-1].get('loss', float('nan')):.3f}"
            if "val_accuracy" in records[-1]:
                latest += f"  val {records[-1]['val_accuracy']:.1f}"
            self.bar.update(self.tasks[name], completed=records[-1]["epoch"], latest=latest)

    def end(self, name: str, message: str, *, failed: bool, seconds_left: float | None) -> None:
        """Print how a run has ended, and take its bar away."""
        self.ended += 1
        if self.bar is not None and name in self.tasks:
            self.bar.remove_task(self.tasks.pop(name))
        left = _format_left(seconds_left)
        colour, mark = ("red", "failed: ") if failed else ("green", "")
        behind = f" ({left})" if left else ""
        line = clean_line(f"{name}: {mark}{message}{behind}")
        self.console.print(Text.assemble((f"[{self.ended}/{self.total}]", colour), f" {line}"))
        if self.bar is not None:
            self.bar.update(self.all, completed=self.ended, latest=left)


def _make_bars(console: Console) -> Bars:
    """Make bars of a line each; where that is too narrow, names are cut, and numbers are not."""
    whole = Column(no_wrap=True)
    return Bars(
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=3, no_wrap=True)),
        TextColumn("{task.fields[seed]}", table_column=whole),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(table_column=whole),
        TextColumn("{task.fields[latest]}", table_column=whole),
        TimeElapsedColumn(table_column=whole),
        console=console,
        expand=True,
        transient=True,
    )


def plan_to_json(outlook: Planned) -> dict[str, Any]:
    """Give a plan as one JSON document."""
    estimate = outlook.estimate
    return {
        "done": [cell.name for cell in outlook.done],
        "begun": [cell.name for cell in outlook.begun],
        "new": [cell.name for cell in outlook.new],
        "wrong": dict(outlook.wrong),
        "undefined": list(outlook.undefined),
        "seconds": None if estimate is None else estimate.seconds,
    }


def _format_estimate(estimate: Expected | None) -> str:
    if estimate is None:
        return "the time is unknown until the first run has finished"
    message = f"about {format_time(estimate.seconds)} if run one after another, judging by earlier runs"
    return f"{message}; there are none yet of {', '.join(estimate.guessed)}" if estimate.guessed else message


def _format_left(seconds: float | None) -> str:
    return f"about {format_time(seconds)} left" if seconds else ""


def format_time(seconds: float) -> str:
    """Spell a time in the units that one would say it in."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"

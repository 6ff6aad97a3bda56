"""Progress of training and downloads on stderr: a line per epoch, and in a terminal a bar below them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from vqabench.reporting.output import clean_line
from vqabench.reporting.terminal import format_warning, stderr_console


@dataclass(frozen=True)
class Narrow:
    """Leaves some columns of the terminal free: it writes ^C there.

    If that began a line of its own, what takes the bars away would miss one.
    """

    drawn: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        yield from console.render(self.drawn, options.update_width(max(1, options.max_width - len("^C^C "))))


class Bars(Progress):
    """Bars below the lines."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Give what is drawn."""
        return map(Narrow, super().get_renderables())


class WatchedLines:
    """Says lines on stderr, above a bar where one is shown."""

    def __init__(self) -> None:
        self.console = stderr_console()
        self.bar: Bars | None = None

    def say(self, message: str) -> None:
        """Print a line."""
        self.console.print(clean_line(message))

    def warn(self, message: str) -> None:
        """Print a warning."""
        self.console.print(format_warning(message))

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class WatchedProgress(WatchedLines):
    """Tells of a run."""

    def start(self, name: str, epochs: int, done: int, samples: int, seen: int) -> None:
        """Announce a run; in a terminal, show its bar."""
        reached = [f"epoch {done}"] * (done > 0) + [f"{seen:,} questions"] * (seen > 0)
        began = f", going on behind {' and '.join(reached)}" if reached else ""
        self.say(f"training {name}: {epochs} epochs of {samples:,} questions{began}")
        self.epochs, self.samples, self.began = epochs, samples, time.perf_counter()
        self.done, self.seen, self.at_first, self.latest = done, seen, seen, ""
        if self.console.is_terminal:
            self.bar = Bars(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[latest]}"),
                TextColumn("{task.fields[rate]:,.0f}/s"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.task = self.bar.add_task(
                "", total=epochs * samples, completed=done * samples + seen, **self._fields()
            )
            self.bar.start()

    def advance(self, samples: int) -> None:
        """Move the bar on."""
        self.seen += samples
        if self.bar is not None:
            self.bar.update(self.task, advance=samples, **self._fields())

    def measure(self, loss: float, accuracy: float | None) -> None:
        """Show the latest loss and accuracy."""
        self.latest = f"loss {loss:.3f}" + ("" if accuracy is None else f"  acc {accuracy:.1f}")

    def finish_epoch(self, record: Mapping[str, Any]) -> None:
        """Print an epoch's line; the time left is reckoned from it alone, as machines change their speed."""
        left = (self.epochs - record["epoch"]) * record["seconds"]
        watched = [
            (key, record[key]) for key in ("train_accuracy", "val_accuracy", "test_accuracy") if key in record
        ]
        accuracies = ", ".join(f"{key.removesuffix('_accuracy')} {value:.2f}" for key, value in watched)
        self.say(
            f"epoch {record['epoch']}/{self.epochs}: loss {record['loss']:.4f}, soft accuracy {accuracies}, "
            f"{self.samples / record['seconds']:,.0f} samples/s, {left:.0f} s left"
        )

    def _fields(self) -> dict[str, Any]:
        epoch = min(self.epochs, self.done + self.seen // self.samples + 1)
        rate = (self.seen - self.at_first) / max(1e-9, time.perf_counter() - self.began)
        return {"epoch": epoch, "epochs": self.epochs, "latest": self.latest, "rate": rate}


SILENCE = 15.0
"""Seconds without a line after which a pipe gets one."""


class WatchedDownloads(WatchedLines):
    """Tells of downloads."""

    def start(self, name: str, done: int, total: int | None) -> None:
        """Announce a transfer; in a terminal, show its bar."""
        self.name, self.done, self.total, self.told = name, done, total, time.monotonic()
        if not self.console.is_terminal:
            behind = f", going on behind {_format_size(done)}" if done else ""
            self.say(f"fetching {name}: {_format_size(total) if total else 'size unknown'}{behind}")
            return
        self.bar = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task(name, total=total, completed=done)
        self.bar.start()

    def advance(self, size: int) -> None:
        """Move the bar on, or print a line after a while of silence."""
        self.done += size
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)
        elif time.monotonic() - self.told > SILENCE:
            self.told = time.monotonic()
            of_all = f" of {_format_size(self.total)}" if self.total else ""
            self.say(f"{self.name}: {_format_size(self.done)}{of_all}")


def _format_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{size / 1e3:,.1f} kB"

"""Downloads as one watches them, on stderr: in a terminal a bar, elsewhere a line now and then."""

from __future__ import annotations

import time

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from vqabench.reporting.progress import Bars, WatchedLines

SILENCE = 15.0
"""Seconds without a line after which a pipe gets one."""


class WatchedDownloads(WatchedLines):
    """Tells of downloads."""

    def start(self, name: str, done: int, total: int | None) -> None:
        """Announce a transfer; in a terminal, show its bar."""
        self.name, self.done, self.total, self.told = name, done, total, time.monotonic()
        if not self.console.is_terminal:
            behind = f", going on behind {_spell_size(done)}" if done else ""
            self.say(f"fetching {name}: {_spell_size(total) if total else 'size unknown'}{behind}")
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
            of_all = f" of {_spell_size(self.total)}" if self.total else ""
            self.say(f"{self.name}: {_spell_size(self.done)}{of_all}")


def _spell_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{size / 1e3:,.1f} kB"

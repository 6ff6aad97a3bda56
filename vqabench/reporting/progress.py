"""Events on stderr: a line for each epoch, download and finished run, and in a terminal bars below the lines."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

from vqabench.errors import counted
from vqabench.events import (
    BatchTrained,
    BytesReceived,
    CellAdvanced,
    CellEnded,
    DownloadEnded,
    DownloadStarted,
    EpochFinished,
    Event,
    MatrixEnded,
    MatrixStarted,
    RunEnded,
    RunScored,
    RunStarted,
    StepsMeasured,
    Warn,
)
from vqabench.reporting.output import clean_line
from vqabench.reporting.terminal import format_warning, stderr_console

SECONDS_OF_SILENCE = {"download": 15.0, "matrix": 60.0}
"""After so many seconds without a line, the next event prints one if there is no bar."""


@dataclass(frozen=True)
class Narrow:
    """Content that leaves the terminal's last columns free, where the terminal itself writes ^C.

    If ^C wrapped into a line of its own, that line would remain when the bars are removed.
    """

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the content."""
        yield from console.render(self.content, options.update_width(max(1, options.max_width - len("^C^C "))))


class ProgressBars(Progress):
    """Progress bars that leave room for ^C."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn."""
        return map(Narrow, super().get_renderables())


class Display:
    """Shows events on stderr."""

    def __init__(self) -> None:
        self.console = stderr_console()
        self.bars: ProgressBars | None = None
        self._printed_at = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case str():
                self._print(clean_line(event))
            case Warn():
                self._print(format_warning(event.text))
            case RunStarted():
                self._start_run(event)
            case BatchTrained():
                self._questions_done += event.questions
                self._update_run(advance=event.questions)
            case StepsMeasured():
                self._latest = f"loss {event.numbers['loss']:.3f}"
                if "train_accuracy" in event.numbers:
                    self._latest += f"  acc {event.numbers['train_accuracy']:.1f}"
            case EpochFinished():
                self._print_epoch(event)
            case DownloadStarted():
                self._start_download(event)
            case BytesReceived():
                self._update_download(event.size)
            case MatrixStarted():
                self._start_matrix(event)
            case CellAdvanced():
                self._update_cell(event)
            case CellEnded():
                self._end_cell(event)
            case RunEnded() | DownloadEnded() | MatrixEnded():
                if self.bars is not None:
                    self.bars.stop()
                    self.bars = None
            case RunScored():
                pass

    def _print(self, line: str | Text) -> None:
        self.console.print(line)
        self._printed_at = time.monotonic()

    def _is_due(self, kind: str) -> bool:
        return time.monotonic() - self._printed_at > SECONDS_OF_SILENCE[kind]

    def _start_bars(self, *columns: ProgressColumn, expand: bool = False) -> ProgressBars | None:
        """Start bars if stderr is a terminal."""
        if self.console.is_terminal:
            self.bars = ProgressBars(*columns, console=self.console, transient=True, expand=expand)
            self.bars.start()
        return self.bars

    def _start_run(self, run: RunStarted) -> None:
        done = [f"epoch {run.epochs_done}"] * (run.epochs_done > 0)
        done += [f"{run.questions_done:,} questions"] * (run.questions_done > 0)
        continued = f", continuing after {' and '.join(done)}" if done else ""
        length = f"{counted(run.epochs, 'epoch')} of {counted(run.questions, 'question')}"
        self._print(clean_line(f"training {run.name}: {length}{continued}"))
        self._run, self._run_started_at = run, time.perf_counter()
        self._questions_done, self._latest = run.questions_done, ""
        bars = self._start_bars(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[latest]}"),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        if bars is not None:
            bars.add_task(
                "",
                total=run.epochs * run.questions,
                completed=run.epochs_done * run.questions + run.questions_done,
                epochs=run.epochs,
                epoch=0,
                latest="",
                rate=0.0,
            )
            self._update_run(advance=0)

    def _update_run(self, advance: int) -> None:
        if self.bars is not None:
            run, seconds = self._run, time.perf_counter() - self._run_started_at
            self.bars.update(
                self.bars.task_ids[0],
                advance=advance,
                epoch=min(run.epochs, run.epochs_done + self._questions_done // run.questions + 1),
                latest=self._latest,
                rate=(self._questions_done - run.questions_done) / max(1e-9, seconds),
            )

    def _print_epoch(self, event: EpochFinished) -> None:
        record = event.record
        # The time left is estimated from this epoch alone, because a machine's speed changes.
        left = (self._run.epochs - record["epoch"]) * record["seconds"]
        accuracies = ", ".join(
            f"{split} {record[f'{split}_accuracy']:.2f}"
            for split in ("train", "val", "test")
            if f"{split}_accuracy" in record
        )
        self._print(
            f"epoch {record['epoch']}/{self._run.epochs}: loss {record['loss']:.4f}, soft accuracy {accuracies}, "
            f"{self._run.questions / record['seconds']:,.0f} samples/s, {left:.0f} s left"
        )

    def _start_download(self, download: DownloadStarted) -> None:
        self._download, self._bytes_done = download, download.done
        bars = self._start_bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        if bars is not None:
            bars.add_task(download.name, total=download.total, completed=download.done)
            return
        continued = f", continuing after {_format_size(download.done)}" if download.done else ""
        size = _format_size(download.total) if download.total else "size unknown"
        self._print(clean_line(f"fetching {download.name}: {size}{continued}"))

    def _update_download(self, size: int) -> None:
        self._bytes_done += size
        if self.bars is not None:
            self.bars.update(self.bars.task_ids[0], completed=self._bytes_done)
        elif self._is_due("download"):
            of_all = f" of {_format_size(self._download.total)}" if self._download.total else ""
            self._print(clean_line(f"{self._download.name}: {_format_size(self._bytes_done)}{of_all}"))

    def _start_matrix(self, matrix: MatrixStarted) -> None:
        self._runs, self._runs_ended = matrix.runs, 0
        self._cells: dict[str, TaskID] = {}
        more = ", or more if there is room" if matrix.or_more else ""
        many = f"{matrix.at_a_time} at a time{more}, each in a process of its own" if matrix.runs > 1 else "1 run"
        expected = f": about {format_time(matrix.seconds)}" if matrix.seconds is not None else ""
        self._print(f"training {many}{expected}")
        whole = Column(no_wrap=True)  # if the terminal is narrow, names are cut, numbers are not
        bars = self._start_bars(
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=3, no_wrap=True)),
            TextColumn("{task.fields[seed]}", table_column=whole),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=whole),
            TextColumn("{task.fields[latest]}", table_column=whole),
            TimeElapsedColumn(table_column=whole),
            expand=True,
        )
        if bars is not None:
            bars.add_task("all runs", total=matrix.runs, seed="", latest=format_time_left(matrix.seconds))

    def _update_cell(self, cell: CellAdvanced) -> None:
        record = cell.records[-1] if cell.records else {"epoch": 0}
        latest = [f"loss {record['loss']:.3f}"] if "loss" in record else []
        latest += [f"val {record['val_accuracy']:.1f}"] if "val_accuracy" in record else []
        if self.bars is None:
            if cell.records and self._is_due("matrix"):
                message = ", ".join([f"{cell.name}: epoch {record['epoch']}/{cell.epochs}", *latest])
                self._print(clean_line(message))
            return
        if cell.name not in self._cells:
            name, _, seed = cell.name.rpartition(" seed ")  # a long name is cut, its seed is not
            self._cells[cell.name] = self.bars.add_task(name, total=cell.epochs, seed=f"seed {seed}", latest="")
        self.bars.update(self._cells[cell.name], completed=record["epoch"], latest="  ".join(latest))

    def _end_cell(self, cell: CellEnded) -> None:
        self._runs_ended += 1
        if self.bars is not None and cell.name in self._cells:
            self.bars.remove_task(self._cells.pop(cell.name))
        left = format_time_left(cell.seconds_left)
        colour, mark = ("red", "failed: ") if cell.failed else ("green", "")
        line = clean_line(f"{cell.name}: {mark}{cell.message}" + (f" ({left})" if left else ""))
        self._print(Text.assemble((f"[{self._runs_ended}/{self._runs}]", colour), f" {line}"))
        if self.bars is not None:
            self.bars.update(self.bars.task_ids[0], completed=self._runs_ended, latest=left)


def _format_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{size / 1e3:,.1f} kB"


def format_time_left(seconds: float | None) -> str:
    """Return the time left in words; nothing if it is unknown or over."""
    return f"about {format_time(seconds)} left" if seconds else ""


def format_time(seconds: float) -> str:
    """Return a duration in seconds, minutes, or hours and minutes."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"

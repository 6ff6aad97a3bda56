"""What is shown of events, in a terminal and in a pipe."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

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
    RunStarted,
    StepsMeasured,
    Warn,
)
from vqabench.reporting import progress
from vqabench.reporting.progress import Display, format_time
from vqabench.reporting.terminal import Terminal

RECORD = {"epoch": 1, "loss": 1.5, "train_accuracy": 40.0, "val_accuracy": 39.5, "seconds": 5.0}
RUN = (
    RunStarted("runs/[x]", 2, 10),
    BatchTrained(10),
    StepsMeasured(1, {"loss": 1.5, "train_accuracy": 40.0}),
    EpochFinished(1, RECORD),
    BatchTrained(5),
    Warn("careful [y]"),
    RunEnded("stopped"),
)
LONG = "vqa-cp-v2 css-lmh bce-mask+rescale @base.hidden=512,mask.dropout=0.5,rescale.variant=released seed 12"


def make_display(width: int | None = None) -> tuple[Display, io.StringIO]:
    """Return a display in a terminal so wide, or into a file."""
    display, shown = Display(), io.StringIO()
    terminal = width is not None
    display.console = Terminal(file=shown, force_terminal=terminal, width=width, soft_wrap=True, color_system=None)
    return display, shown


def show(events: Iterable[Event], width: int | None = None) -> list[str]:
    """Return every line that was drawn, without what moves the cursor."""
    display, shown = make_display(width)
    for event in events:
        display(event)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue().replace("\r", "\n")).splitlines()


def test_lines_show_loss_accuracy_speed_and_time_left() -> None:
    assert show(RUN) == [
        "training runs/[x]: 2 epochs of 10 questions",
        "epoch 1/2: loss 1.5000, soft accuracy train 40.00, val 39.50, 2 samples/s, 5 s left",
        "warning: careful [y]",
    ]


def test_a_terminal_shows_a_bar_with_the_same() -> None:
    text = "\n".join(show(RUN, width=100))
    for part in ("epoch 2/2", "loss 1.500", "acc 40.0", "/s", "val 39.50"):
        assert part in text


def test_a_resumed_run_says_where_it_continues() -> None:
    (line,) = show([RunStarted("a", 5, 2000, 2, 1024, 7)])
    assert line == "training a: 5 epochs of 2,000 questions, continuing after epoch 2 and 1,024 questions"


def test_training_continues_if_the_reader_of_its_messages_exits(tmp_path: Path) -> None:
    program = (
        "from vqabench.cli import streams; streams.protect()\n"
        "from vqabench.reporting.progress import Display; [Display()('x' * 99999) for _ in range(9)]"
    )
    quoted = shlex.join([sys.executable, "-c", f"{program}; print('done')"])
    command = f"{quoted} 2>&1 >{tmp_path / 'out'} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert (tmp_path / "out").read_text() == "done\n"


def test_a_download_into_a_file_is_a_line_and_more_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    started, received = DownloadStarted("a.zip", 2000, 4_000_000), BytesReceived(1_000_000)
    first = "fetching a.zip: 4.0 MB, continuing after 2.0 kB"
    assert show([started, received, DownloadEnded()]) == [first]
    monkeypatch.setitem(progress.SECONDS_OF_SILENCE, "download", 0.0)
    assert show([started, received, DownloadEnded()]) == [first, "a.zip: 1.0 MB of 4.0 MB"]


def test_into_a_file_each_run_of_a_matrix_that_ends_is_a_line() -> None:
    events: list[Event] = [MatrixStarted(2, 1, None, or_more=True)]
    for name, failed in (("a seed 0", False), ("b seed 0", True)):
        events.append(CellAdvanced(name, 2, []))
        events.append(CellAdvanced(name, 2, [{"epoch": 1, "loss": 2.0, "val_accuracy": 50.0}]))
        events.append(CellEnded(name, "message", failed, None if failed else 300.0))
    assert show([*events, MatrixEnded()]) == [
        "training 1 at a time, or more if there is room, each in a process of its own",
        "[1/2] a seed 0: message (about 5 min left)",
        "[2/2] b seed 0: failed: message",
    ]


def test_after_a_minute_without_a_line_an_epoch_of_a_matrix_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(progress.SECONDS_OF_SILENCE, "matrix", 0.0)
    record = {"epoch": 1, "loss": 2.0, "val_accuracy": 50.0}
    lines = show([MatrixStarted(1, 1, None), CellAdvanced("a", 2, []), CellAdvanced("a", 2, [record])])
    assert lines == ["training 1 run", "a: epoch 1/2, loss 2.000, val 50.0"]


def test_however_narrow_a_terminal_names_are_cut_and_numbers_are_not() -> None:
    display, shown = make_display(width=80)
    display(MatrixStarted(2, 2, 120.0))
    display(CellAdvanced(LONG, 150, [{"epoch": 117, "loss": 12.345, "val_accuracy": 55.5}]))
    assert display.bars is not None
    display.bars.refresh()
    display(MatrixEnded())
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue().replace("\r", "\n")).splitlines()
    assert drawn[0] == "training 2 at a time, each in a process of its own: about 2 min"
    bars = [line for line in drawn[1:] if line]
    assert max(map(len, bars)) <= 80 - len("^C^C ")  # a terminal writes them behind the last one
    (own,) = {line for line in bars if "117" in line}
    assert re.match(r"vqa-cp-v2 .*… +seed 12 .*117/150 loss 12\.345  val 55\.5 0:00:\d\d$", own)
    assert any(re.match(r"all runs .* 0/2 +about 2 min left +0:00:\d\d$", line) for line in bars)


def test_a_bar_is_removed_with_its_run_and_all_are_at_the_end() -> None:
    display, shown = make_display(width=100)
    display(MatrixStarted(1, 1, None))
    display(CellAdvanced("a seed 0", 2, []))
    assert display.bars is not None
    assert [task.description for task in display.bars.tasks] == ["all runs", "a"]
    display(CellEnded("a seed 0", "message", failed=False, seconds_left=None))
    assert [task.description for task in display.bars.tasks] == ["all runs"]
    display(MatrixEnded())
    assert display.bars is None
    _, hidden, rest = shown.getvalue().rpartition("\x1b[?25h")  # the cursor is shown again
    assert hidden
    assert "━" not in rest


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (89.4, "89 s"),
        (90.0, "2 min"),
        (150.0, "2 min"),
        (5360.0, "89 min"),
        (5400.0, "1 h 30 min"),
        (7170.0, "2 h 00 min"),
    ],
)
def test_durations_have_the_units_that_a_person_would_use(seconds: float, expected: str) -> None:
    assert format_time(seconds) == expected

from __future__ import annotations

import io
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vqabench.reporting.progress import WatchedProgress
from vqabench.reporting.terminal import Terminal

RECORD = {"epoch": 1, "loss": 1.5, "train_accuracy": 40.0, "val_accuracy": 39.5, "seconds": 5.0}


def watch(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("NO_COLOR", raising=False)
    progress = WatchedProgress()
    stream = io.StringIO()
    progress.console = Terminal(file=stream, force_terminal=terminal, width=100)
    progress.start("runs/[x]", 2, 0, 10, 0)
    progress.advance(10)
    progress.measure(1.5, 40.0)
    progress.finish_epoch(RECORD)
    progress.advance(5)
    progress.warn("careful [y]")
    progress.stop()
    return stream.getvalue()


def test_plain_lines_tell_loss_accuracy_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = watch(False, monkeypatch).splitlines()
    assert lines[0] == "training runs/[x]: 2 epochs of 10 questions"
    assert lines[1].startswith(
        "epoch 1/2: loss 1.5000, soft accuracy train 40.00, val 39.50, 2 samples/s, 5 s left"
    )
    assert lines[2] == "warning: careful [y]"
    assert "\x1b" not in "".join(lines)


def test_a_terminal_shows_a_bar_with_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = watch(True, monkeypatch)
    for part in ("epoch 2/2", "loss 1.500", "acc 40.0", "/s", "val 39.50"):
        assert part in text


def test_training_goes_on_where_the_reader_of_its_messages_goes_away(tmp_path: Path) -> None:
    program = (
        "from vqabench.cli import streams; streams.protect()\n"
        "from vqabench.reporting.progress import WatchedProgress as W; [W().say('x' * 99999) for _ in range(9)]"
    )
    quoted = shlex.join([sys.executable, "-c", f"{program}; print('done')"])
    command = f"{quoted} 2>&1 >{tmp_path / 'out'} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert (tmp_path / "out").read_text() == "done\n"

"""Where output goes, and in what form."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.processes import in_terminal
from tests.tiny import write_tiny
from tests.training.runs import start
from vqabench.cli import _report
from vqabench.results import Run


def test_colours_are_for_terminals_that_want_them(tmp_path: Path) -> None:
    command = ["plugins", "show", "updm"]
    assert "\x1b[1;31merror" in in_terminal(command, tmp_path)
    assert "\x1b[1;31m" not in in_terminal(command, tmp_path, NO_COLOR="1")
    assert "\x1b[31m" not in in_terminal(command, tmp_path, NO_COLOR="1")


def test_a_terminal_shows_a_bar_and_a_pipe_gets_lines(tmp_path: Path, cli: CommandLine) -> None:
    catalog = str(write_tiny(tmp_path / "own"))
    common = ["train", "updn", "--dataset", "tiny", "--catalog", catalog, "--epochs", "2", "--set", "hidden=8"]
    assert "epoch 1/2" in in_terminal(common, tmp_path)
    done = cli(*common, "--force")
    assert done.stderr.count("samples/s") == 2
    assert "\x1b" not in done.stderr + done.stdout


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "vqabench", "plugins", "list"], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert done.stderr == b""


@pytest.mark.slow
def test_ctrl_c_keeps_finished_epochs_and_says_how_to_go_on(tmp_path: Path) -> None:
    write_tiny(tmp_path / "own")
    process = start(tmp_path, "updn", "--dataset", "tiny", "--epochs", "100000", "--set", "hidden=8")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/**/resume.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    (folder,) = tmp_path.glob("runs/**/seed-0")
    assert Run(folder).read_manifest().status == "stopped"
    assert (folder / "model.safetensors").is_file()


def test_an_error_with_braces_in_its_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert _report(ValueError("odd table {'a': 1}"), ["compare"]) == 1
    assert "vqabench compare: ValueError: odd table {'a': 1}" in capsys.readouterr().err


def test_what_a_plugin_prints_on_stderr_is_not_lost_when_its_process_is_killed() -> None:
    program = (
        "from vqabench.cli import streams; streams.protect(); import os, sys; print('kept', file=sys.stderr); "
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"{program}os._exit(0)"], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stderr == "kept\n"

"""A matrix of runs in which one plugin does to its process whatever it can, and signals at a bad time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.outcomes import assert_done, assert_refused
from tests.processes import Forked
from tests.trials.conftest import PLUGIN, Trial

pytestmark = pytest.mark.slow

SMALL = ("--datasets", "tiny", "--set", "recipe.batch_size=20")
STUBBORN = """\
import time, pathlib; pathlib.Path('here').touch()
while True:
    try:
        time.sleep(9999)
    except BaseException:
        pass"""
HOLDS_THE_LOCK = "import pathlib; pathlib.Path('here').touch(); sum(range(10**13))"


def bench(trial: Trial, backbones: str, *options: str) -> list[str]:
    epochs = () if any("epochs" in option for option in options) else ("--epochs", "1")
    return ["bench", "--backbones", backbones, *SMALL, *epochs, *trial.catalog, *options]


def processes_of(trial: Trial) -> Iterator[str]:
    """Yield the command lines of processes that mention the trial's folder, besides zombies and the forkserver."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(trial.folder) in line and "multiprocessing.forkserver" not in line:
                yield line


def wait_until_it_hangs(trial: Trial, process: Forked) -> None:
    while not (trial.folder / "here").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)


def test_whatever_a_plugin_does_to_its_process_only_its_own_run_fails(trial: Trial) -> None:
    trial.plugin("exit75", "os._exit(75)")
    trial.plugin(
        "lasting",
        "import subprocess, threading, time\n"
        "threading.Thread(target=lambda: time.sleep(9999)).start()\n"
        "subprocess.Popen(['sleep', '9999', os.getcwd()])",
    )
    # Neither may run in the process of bench, by importing or building the model there.
    source = PLUGIN.format(body=" " * 8 + "pass")
    hostile = {"dies": f"{source}\nos._exit(0)\n", "exit0": source.replace("super()", "os._exit(0); super()")}
    for name, text in hostile.items():
        trial.install(name, text)
        trial.declare(name, f"[vqabench.backbones]\n{name} = trial_{name}:Model\n")
    ended = trial.run(*bench(trial, "exit75,dies,exit0,lasting", "--jobs", "2", "--json"), timeout=600)
    assert_refused(ended, "1 of 4 runs finished, 3 failed", code=1)
    failed = {name.split()[1]: reason for name, reason in json.loads(ended.stdout)["failed"].items()}
    assert failed.keys() == {"exit75", *hostile}
    assert "exit code 0" in failed["exit0"]
    assert "exit code 75" in failed["exit75"]
    assert "importing it ends" in failed["dies"]
    assert len(json.loads(ended.stdout)["rows"]) == 1
    assert not list(processes_of(trial))


@pytest.mark.parametrize(
    ("command", "body"),
    [("bench", HOLDS_THE_LOCK), ("train", STUBBORN)],
    ids=["bench", "train"],
)
def test_a_hanging_plugin_is_ended_by_sigterm_within_seconds(trial: Trial, body: str, command: str) -> None:
    trial.plugin("bad", body)
    train = ["train", "bad", *trial.data, "--epochs", "1"]
    process = trial.start(*(train if command == "train" else bench(trial, "bad", "--jobs", "1")))
    wait_until_it_hangs(trial, process)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert time.monotonic() - began < 30
    assert process.returncode == 1
    assert "everything is saved" not in errors.replace("not everything is saved", "")
    assert "SIGTERM" in errors
    assert not list(processes_of(trial))


@pytest.mark.parametrize("command", ["bench", "train"])
def test_a_second_ctrl_c_ends_it_at_once_and_leaves_no_process(trial: Trial, command: str) -> None:
    trial.plugin("bad", STUBBORN)
    train = ["train", "bad", *trial.data, "--epochs", "1"]
    process = trial.start(*(train if command == "train" else bench(trial, "bad", "--jobs", "1")))
    wait_until_it_hangs(trial, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "everything is saved" not in errors.replace("not everything is saved", "")
    assert not list(processes_of(trial))


def test_runs_stop_when_bench_is_killed(trial: Trial) -> None:
    trial.plugin("busy", "import pathlib; pathlib.Path('here').touch()")
    process = trial.start(*bench(trial, "busy", "--jobs", "1", "--set", "recipe.epochs=99999"))
    wait_until_it_hangs(trial, process)
    process.kill()
    process.communicate(timeout=60)
    began = time.monotonic()
    while list(processes_of(trial)) and time.monotonic() - began < 120:
        time.sleep(0.2)
    assert not list(processes_of(trial))


def test_two_benches_on_one_matrix_both_succeed(trial: Trial) -> None:
    trial.plugin("good")
    command = bench(trial, "good", "--jobs", "1", "--epochs", "30")
    both = [trial.start(*command) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
        assert "1 of 1 run finished" in errors
    assert len(trial.runs()) == 1


def test_a_grid_of_a_million_millions_is_refused_at_once(trial: Trial) -> None:
    values = ",".join(map(str, range(1, 101)))
    grids = [f"--grid=recipe.{key}={values}" for key in ("lr", "batch_size", "clip", "epochs", "finetune_epochs")]
    began = time.monotonic()
    ended = trial.cli("bench", "--backbones", "prior", *grids, f"--grid=hidden={values}")
    assert_refused(ended, "1,000,000,000,000 runs are too many; a matrix may have at most 10,000")
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("command", "one"), [("train", signal.SIGINT), ("train", signal.SIGTERM), ("bench", signal.SIGTERM)]
)
def test_a_signal_while_the_program_is_loaded_is_reported(trial: Trial, command: str, one: signal.Signals) -> None:
    trial.plugin("good")
    train = ["train", "good", *trial.data, "--epochs", "9999"]
    arguments = train if command == "train" else bench(trial, "good", "--epochs", "9999")
    process = subprocess.Popen(
        trial.command(*arguments),
        cwd=trial.folder,
        env=trial.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(one)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == (130 if one == signal.SIGINT else 75), errors
    assert "Traceback" not in errors
    assert "stopped by " + ("Ctrl-C" if one == signal.SIGINT else "SIGTERM") in errors.splitlines()[-1]


def test_twenty_thousand_entry_points_cost_seconds(trial: Trial) -> None:
    lines = "".join(f"b{number} = nowhere:B{number}\n" for number in range(20_000))
    trial.declare("big", f"[vqabench.backbones]\n{lines}")
    began = time.monotonic()
    ended = trial.cli(*bench(trial, "prior,updn,b7", "--dry-run"))
    assert time.monotonic() - began < 120
    assert_done(ended, "'b7' of vqabench-big 0.1 cannot be loaded")

"""Logs for TensorBoard, read back by TensorBoard, and for Weights & Biases, read from W&B's own files."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from vqabench_updn import UpDn
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made as it is loaded

from tests.conftest import CommandLine, resize
from tests.processes import start_pair
from tests.tiny import write_tiny
from tests.training.runs import SIZES, Counting, elsewhere, environment_in, places_in, run, run_in, start
from vqabench.api import Batch, Output
from vqabench.errors import InputError
from vqabench.events import EpochFinished, Event, RunEnded
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training import loop
from vqabench.training.checkpoint import save_state
from vqabench.training.interruption import Interruption, Stopped

BOTH = ("tensorboard", "wandb")
ONE_BY_ONE = SIZES | {"recipe.batch_size": 1}  # 60 batches an epoch, of which losses are read three times
LINE = ("updn", "--dataset", "tiny", *(word for pair in SIZES.items() for word in ("--set", "{}={}".format(*pair))))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return places_in(tmp_path)


def curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return TensorBoard's curves of a run: tag -> steps and values."""
    read = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return {tag: [(point.step, point.value) for point in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def hyperparameters(run: Run) -> dict[str, Any]:
    """Return a run's row of TensorBoard's table of hyperparameters."""
    read = EventAccumulator(str(run.folder / "tensorboard"))
    read.Reload()
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


def records(file: Path) -> Iterator[Record]:
    """Read a W&B file: after seven bytes, blocks of 32 KiB that contain pieces of records."""
    content, at, piece = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if at + 7 + length > len(content):  # still being written
            return
        piece += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(piece)
            piece = b""


def sessions(run: Run) -> list[list[Record]]:
    """Return the records of each W&B session of a run, in order."""
    deadline = time.monotonic() + 20
    while True:
        files = sorted((run.folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda one: one.stat().st_mtime_ns)
        found = [list(records(file)) for file in files]
        # On a busy machine, W&B's service may write the file after `finish` has returned.
        ended = all(any(record.HasField("exit") for record in session) for session in found)
        if ended or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def items(pairs: Any) -> dict[str, Any]:
    return {pair.key or "/".join(pair.nested_key): json.loads(pair.value_json) for pair in pairs}


def history(run: Run) -> list[dict[str, Any]]:
    """Return the rows of all W&B sessions."""
    every = [record for session in sessions(run) for record in session]
    return [items(record.history.item) for record in every if record.HasField("history")]


def ids(run: Run) -> set[str]:
    return {record.run.run_id for session in sessions(run) for record in session if record.HasField("run")}


def points(run: Run, axis: str, name: str) -> list[tuple[int, float]]:
    return [(row[axis], row[name]) for row in history(run) if name in row]


def epochs(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.epochs_file.read_text().splitlines()]


def final_scores(run: Run) -> dict[str, float]:
    scores = json.loads(run.scores_file.read_text())
    return {
        f"{split}/{metric}/{category.replace('/', '-')}": number
        for split, form in scores.items()
        for metric in ("accuracy", "kappa")
        for category, number in form[metric].items()
        if number is not None
    }


def test_tensorboard_has_losses_by_step_epochs_over_both_stages_scores_and_settings(paths: Paths) -> None:
    two_stages: dict[str, Any] = {"loss": "mask+rescale", "epochs": 2, "finetune_epochs": 1}
    done = run(paths, log=("tensorboard",), settings=ONE_BY_ONE, track_test=True, **two_stages)
    found, recorded = curves(done), epochs(done)
    assert [step for step, _ in found["step/loss"]] == list(range(20, 181, 20))
    means = [sum(value for _, value in found["step/loss"][at : at + 3]) / 3 for at in (0, 3, 6)]
    assert means == pytest.approx([epoch["loss"] for epoch in recorded], rel=1e-5)
    assert found["epoch"] == [(60, 1), (120, 2), (180, 3)]
    for name in ("loss", "lr", "seconds", "train_accuracy", "val_accuracy", "test_accuracy"):
        assert [value for _, value in found[f"epoch/{name}"]] == pytest.approx([epoch[name] for epoch in recorded])
    scores = {name: found[name][0][1] for name in found if name.startswith(("val/", "test/"))}
    assert all(len(found[name]) == 1 for name in scores)
    assert scores == pytest.approx(final_scores(done), rel=1e-5)
    assert {"val/accuracy/all", "test/kappa/number"} <= scores.keys()
    settings = hyperparameters(done)
    assert settings["backbone"] == "updn"
    assert settings["options.backbone.hidden"] == 8
    assert settings["stages.1.loss"] == "rescale"
    assert not {"status", "seconds", "epoch"} & settings.keys()


def test_wandb_has_losses_by_step_epochs_scores_and_settings(paths: Paths) -> None:
    done = run(paths, log=("wandb",), settings=ONE_BY_ONE, epochs=2)
    recorded, (session,) = epochs(done), sessions(done)
    losses = points(done, "step", "step/loss")
    assert [step for step, _ in losses] == [20, 40, 60, 80, 100, 120]
    assert sum(value for _, value in losses[:3]) / 3 == pytest.approx(recorded[0]["loss"])
    for name in ("loss", "lr", "seconds", "train_accuracy", "val_accuracy"):
        assert points(done, "epoch", f"epoch/{name}") == [(epoch["epoch"], epoch[name]) for epoch in recorded]
    summary: dict[str, Any] = {}
    for record in session:
        summary |= items(record.summary.update)
    assert {name: summary[name] for name in final_scores(done)} == final_scores(done)
    assert summary["chosen_epoch"] == 2
    (begun,) = (record.run for record in session if record.HasField("run"))
    assert begun.display_name == f"updn/{done.folder.parent.name}/seed-0"
    assert begun.run_group == f"tiny/updn/{done.folder.parent.name}"
    settings = items(begun.config.update)
    assert settings["recipe"]["batch_size"] == 1
    assert settings["options"]["backbone"]["hidden"] == 8
    assert not {"status", "seconds", "epoch"} & settings.keys()
    assert [record.exit.exit_code for record in session if record.HasField("exit")] == [0]


def test_a_resumed_run_has_each_step_and_epoch_once_although_steps_are_trained_again(paths: Paths) -> None:
    whole = run(elsewhere(paths, "whole"), log=BOTH, settings=ONE_BY_ONE)
    with pytest.raises(KeyboardInterrupt):  # steps 80 and 100 are logged, 60 is the last that is saved
        run(paths, emit=Counting(110), log=BOTH, settings=ONE_BY_ONE)
    begun = run_in(paths.runs)
    assert [step for step, _ in curves(begun)["step/loss"]] == [20, 40, 60, 80, 100]
    again = run(paths, "resume", log=BOTH, settings=ONE_BY_ONE)
    found, expected = curves(again), curves(whole)
    for name in expected.keys() - {"epoch/seconds"}:
        assert found[name] == expected[name], name
    for axis, name in (("step", "step/loss"), ("epoch", "epoch/loss"), ("epoch", "epoch/val_accuracy")):
        assert points(again, axis, name) == points(whole, axis, name)
    assert [row["_step"] for row in history(again)] == list(range(1, len(history(again)) + 1))
    assert len(ids(again)) == 1


@pytest.mark.slow
def test_a_kill_costs_tensorboard_nothing(paths: Paths, tmp_path: Path) -> None:
    process = start(tmp_path, *LINE, "--epochs", "40", "--log", "tensorboard")
    while "epoch 3/" not in process.stderr.readline():
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)
    before = curves(run_in(paths.runs))["epoch"]
    assert len(before) >= 3
    found = curves(run(paths, "resume", epochs=40, log=("tensorboard",)))
    assert found["epoch"] == [(4 * epoch, epoch) for epoch in range(1, 41)]
    assert [step for step, _ in found["step/loss"]] == [4 * epoch for epoch in range(1, 41)]


def test_a_run_that_is_only_scored_again_keeps_its_curves(paths: Paths) -> None:
    done = run(paths, log=BOTH)
    before = curves(done)
    done.predictions_file("test").unlink()
    found = curves(run(paths, "resume", log=BOTH))
    assert found["step/loss"] == before["step/loss"]
    assert found["test/accuracy/all"] == before["test/accuracy/all"] * 2
    assert len(points(done, "epoch", "epoch/loss")) == 4


def test_a_replaced_run_starts_new_logs(paths: Paths) -> None:
    first = run(paths, log=BOTH)
    (known,) = ids(first)
    again = run(paths, "force", log=BOTH, epochs=4)
    assert curves(again)["epoch"] == [(4, 1), (8, 2), (12, 3), (16, 4)]
    assert len(list((again.folder / "tensorboard").iterdir())) == 1
    assert len(sessions(again)) == 1
    assert ids(again).isdisjoint({known})


def test_a_log_can_be_added_when_a_run_is_resumed(paths: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6))
    again = run(paths, "resume", log=BOTH)
    assert curves(again)["epoch"] == [(8, 2), (12, 3), (16, 4)]
    assert "log" not in json.loads(again.manifest_file.read_text())


def test_a_backbone_that_has_nothing_to_train_logs_only_scores(paths: Paths) -> None:
    done = run(paths, backbone="prior", settings={}, epochs=None, log=BOTH)
    assert curves(done).keys() == final_scores(done).keys()


def test_incompatible_parts_leave_no_folder_although_there_are_logs(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = UpDn.forward

    def lacks_an_answer(self: UpDn, batch: Batch) -> Output:
        output = forward(self, batch)
        return dataclasses.replace(output, logits_BA=output.logits_BA[:, 1:])

    monkeypatch.setattr(UpDn, "forward", lacks_an_answer)
    with pytest.raises(InputError, match="logits_BA"):
        run(paths, log=BOTH)
    assert not list(paths.runs.glob("**/seed-0"))


def test_a_log_whose_path_is_taken_causes_a_warning_and_the_run_is_finished(paths: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6))
    begun = run_in(paths.runs)
    for name in BOTH:
        (begun.folder / name).touch()
    watch = Counting()
    assert run(paths, "resume", emit=watch, log=BOTH).read_manifest().status == "finished"
    warnings = [line for line in watch.messages if "has failed" in line]
    assert [line.partition(": --log ")[2].partition(" has failed and is turned off")[0] for line in warnings] == [
        *BOTH
    ]


def test_a_full_disk_for_tensorboard_alone_causes_one_warning_and_no_traceback(
    paths: Paths, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6), epochs=30)
    folder = run_in(paths.runs).folder / "tensorboard"
    folder.mkdir()
    subprocess.run(["mount", "--bind", small_disk, folder], check=True)  # a run does not write through a link

    class Filling(Counting):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, EpochFinished) and event.record["epoch"] == 2:
                assert list(small_disk.iterdir())
                resize(small_disk, 64)
                with pytest.raises(OSError, match="No space left"):
                    (small_disk / "ballast").write_bytes(bytes(1_000_000))

    watch = Filling()
    try:
        done = run(paths, "resume", emit=watch, log=("tensorboard",), epochs=30)
        assert done.read_manifest().status == "finished"
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    (warning,) = (line for line in watch.messages if "has failed" in line)
    assert "No space left" in warning
    assert "Traceback" not in capfd.readouterr().err


def test_an_epoch_is_in_the_logs_before_a_checkpoint_includes_it(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_after(*arguments: Any) -> None:
        save_state(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", die_after)
    with pytest.raises(KeyboardInterrupt):
        run(paths, log=("tensorboard",), epochs=3)
    monkeypatch.setattr(loop, "save_state", save_state)
    found = curves(run(paths, "resume", log=("tensorboard",), epochs=3))
    assert found["epoch"] == [(4, 1), (8, 2), (12, 3)]


def test_a_signal_while_logs_close_ends_the_program_at_once_and_the_run_is_finished(paths: Paths) -> None:
    interruption = Interruption()

    def emit(event: Event) -> None:
        if isinstance(event, RunEnded):
            os.kill(os.getpid(), signal.SIGTERM)

    with interruption.watching(), pytest.raises(Stopped):
        run(paths, emit=emit, interruption=interruption)
    done = run_in(paths.runs)
    assert done.read_manifest().status == "finished"
    assert not done.resume_file.exists()


@pytest.mark.slow
def test_each_of_several_seeds_at_once_has_logs_of_its_own(tmp_path: Path) -> None:
    write_tiny(tmp_path / "own")
    seeds = ("--seeds", "0-1", "--jobs", "2")
    process = start(tmp_path, *LINE, "--epochs", "2", *seeds, "--log", "tensorboard")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    for seed in (0, 1):
        own = run_in(tmp_path / "runs", seed)
        drawn = curves(own)
        assert drawn["epoch"] == [(4, 1), (8, 2)]
        losses = [epoch["loss"] for epoch in epochs(own)]
        assert [step for step, _ in drawn["epoch/loss"]] == [4, 8]
        assert [loss for _, loss in drawn["epoch/loss"]] == pytest.approx(losses)
        assert f"seed {seed}: tensorboard: " in errors


@pytest.mark.slow
def test_only_the_first_of_several_processes_writes_logs(tmp_path: Path) -> None:
    write_tiny(tmp_path / "own")
    arguments = ("train", *LINE, "--epochs", "2", "--log", "tensorboard")
    for process in start_pair(arguments, tmp_path, environment_in(tmp_path)):
        _, errors = process.communicate(timeout=150)
        assert process.returncode == 0, errors
    done = run_in(tmp_path / "runs")
    assert len(list((done.folder / "tensorboard").iterdir())) == 1
    assert [value for _, value in curves(done)["epoch/loss"]] == pytest.approx(
        [one["loss"] for one in epochs(done)]
    )


class Hiding:
    """Finds a package only as a folder in the current directory."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        found = PathFinder.find_spec(name, [str(Path.cwd())])
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found


@pytest.mark.parametrize("name", BOTH)
def test_a_missing_package_is_a_one_line_error_before_training(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    command = ("train", *LINE, "--catalog", write_tiny(tmp_path / "own"), "--log", name)
    monkeypatch.setattr(sys, "meta_path", [Hiding(name), *sys.meta_path])
    for folder in ("other", name):  # one of the package's name is no package
        for module in [one for one in sys.modules if name in one]:  # what other tests have imported
            monkeypatch.delitem(sys.modules, module)
        (tmp_path / folder).mkdir()
        done = cli(*command)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: --log {name}: needs more (")
        assert line.endswith(f'pip install "vqabench[{name}]"')
    assert not (tmp_path / "runs").exists()


def test_wandb_without_a_login_is_a_one_line_error_before_training(tmp_path: Path) -> None:
    write_tiny(tmp_path / "own")
    account = {"WANDB_MODE": "online", "WANDB_API_KEY": "", "HOME": str(tmp_path)}
    process = start(tmp_path, *LINE, "--log", "wandb", **account)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: --log wandb: No API key configured")
    assert "WANDB_MODE=offline" in line
    assert not (tmp_path / "runs").exists()

"""A full disk costs nothing but what was to be written on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import CommandLine, resize
from tests.tiny import write_tiny
from tests.training.runs import same_bits
from vqabench.errors import VqabenchError
from vqabench.results import Run
from vqabench.training.checkpoint import load_state, load_weights

LINE = ("train", "updn", "--dataset", "tiny", "--epochs", "3", "--set", "hidden=128", "--set", "embedding=32")


def only_run(folder: Path) -> Run:
    (manifest,) = folder.glob("**/run.json")
    return Run(manifest.parent)


@pytest.mark.parametrize(("file", "room"), [("model.safetensors", 4.5), ("resume.pt", 5.5)])
def test_a_full_disk_is_told_in_a_line_and_the_earlier_checkpoint_goes_on_to_the_same_bits(
    cli: CommandLine, tmp_path: Path, small_disk: Path, file: str, room: float
) -> None:
    line = (*LINE, "--catalog", write_tiny(tmp_path / "own"), "--runs")
    assert cli(*line, tmp_path / "whole").returncode == 0
    whole = only_run(tmp_path / "whole")
    # An epoch leaves weights, and a checkpoint of three times their size; the next writes both beside those.
    resize(small_disk, int(room * whole.weights_file.stat().st_size / 1000))
    done = cli(*line, small_disk)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    message = done.stderr.splitlines()[-1]
    assert message.startswith("error: ")
    assert f"{file}: cannot be written" in message
    assert "No space left on device" in message
    run = only_run(small_disk)
    assert load_state(run.resume_file)["position"]["epochs"] == 1
    assert load_weights(run.weights_file).keys() == load_weights(whole.weights_file).keys()
    assert not [*run.folder.glob(".*.part-*"), *run.folder.glob(".tmp*")]
    resize(small_disk, 16_000)
    assert cli(*line, small_disk, "--resume").returncode == 0
    assert same_bits(whole, run)


def test_an_epoch_that_the_disk_has_no_room_for_names_its_file(small_disk: Path) -> None:
    run = Run(small_disk)
    run.append_epoch({"epoch": 1})
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(bytes(2_000_000))
    with pytest.raises(VqabenchError, match=r"epochs\.jsonl: cannot be written: No space left"):
        run.append_epoch({"epoch": 2, "note": "x" * 5_000})
    (small_disk / "ballast").unlink()
    assert run.keep_epochs(2) == 1

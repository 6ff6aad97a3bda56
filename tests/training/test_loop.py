from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.plugin_installation import install_fixture
from tests.tiny import write_tiny
from tests.training.runs import Counting
from vqabench.config import make_config
from vqabench.errors import InputError, TrainingError
from vqabench.events import Emit, ignore
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.workflows.training import IfExists, train

SIZES = {"hidden": 8, "embedding": 8, "recipe.batch_size": 16}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "runs", tmp_path / "data", write_tiny(tmp_path / "own"))


def run(
    paths: Paths,
    if_exists: IfExists = "refuse",
    emit: Emit = ignore,
    settings: dict[str, Any] | None = None,
    **given: Any,
) -> Run:
    fields = {"backbone": "updn", "dataset": "tiny", "epochs": 4, "settings": SIZES | (settings or {})}
    (done,) = train(make_config(fields | given), paths, if_exists, emit)
    return done


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.weights_file)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", ["plain", "mask+rescale"])
def test_a_stopped_run_goes_on_to_the_same_bits(paths: Paths, tmp_path: Path, loss: str, precision: str) -> None:
    given: dict[str, Any] = {"loss": loss, "precision": precision, "settings": {}}
    if "mask" in loss:
        given |= {"settings": {"mask.dropout": 0.5}, "finetune_epochs": 3}
    whole = run(dataclasses.replace(paths, runs=tmp_path / "whole"), **given)
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(10), **given)
    (folder,) = paths.runs.glob("**/seed-0")
    assert Run(folder).read_manifest().status == "stopped"
    assert (folder / "model.safetensors").is_file()  # what was finished is kept
    again = run(paths, "resume", **given)
    first, second = weights(whole), weights(again)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.predictions_file("test").read_bytes() == again.predictions_file("test").read_bytes()
    epochs = [json.loads(line)["epoch"] for line in again.epochs_file.read_text().splitlines()]
    assert epochs == list(range(1, len(epochs) + 1))
    assert not again.resume_file.exists()


def test_a_run_from_another_that_was_stopped_in_its_first_epoch_starts_from_it_again(
    paths: Paths, tmp_path: Path
) -> None:
    origin = run(paths, epochs=1)
    given: dict[str, Any] = {"epochs": None, "finetune_epochs": 1, "loss": "rescale"}
    given["start_from"] = origin.folder.parent
    whole = run(dataclasses.replace(paths, runs=tmp_path / "whole"), **given)
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(2), **given)
    again = run(paths, "resume", **given)
    first, second = weights(whole), weights(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_run_is_not_taken_for_one_with_other_defaults(paths: Paths) -> None:
    done = run(paths, epochs=1)
    manifest = done.read_manifest()
    manifest.options["backbone"]["attention_dropout"] = 0.7  # as if the default had changed since
    done.write_manifest(manifest)
    with pytest.raises(
        InputError, match=r"began with options\.backbone\.attention_dropout 0\.7, now 0\.2; .*force"
    ):
        run(paths, "resume", epochs=1)


def test_force_keeps_the_old_run_until_the_new_one_can_begin(paths: Paths) -> None:
    origin = run(paths, epochs=1)
    given: dict[str, Any] = {"epochs": None, "finetune_epochs": 1, "start_from": origin.folder}
    done = run(paths, **given)
    before = done.weights_file.read_bytes()
    origin.weights_file.write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged"):
        run(paths, "force", **given)
    assert done.weights_file.read_bytes() == before


def test_a_resumed_run_tells_which_versions_have_changed(paths: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6))
    (folder,) = paths.runs.glob("**/seed-0")
    manifest = Run(folder).read_manifest()
    manifest.versions["vqabench-updn"] = "0.0.1"
    Run(folder).write_manifest(manifest)
    notes = run(paths, "resume").read_manifest().notes
    assert any("began with vqabench-updn 0.0.1, now" in note for note in notes)


def test_a_seed_decides_everything(paths: Paths, tmp_path: Path) -> None:
    runs = [
        run(dataclasses.replace(paths, runs=tmp_path / name), seeds=(seed,))
        for name, seed in zip("abc", (1, 1, 2), strict=True)
    ]
    first, again, other = (weights(one)["gru.weight_ih_l0"] for one in runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_loss_that_is_no_longer_finite_names_step_rate_and_parts(paths: Paths) -> None:
    given: dict[str, Any] = {"settings": {"recipe.lr": 1e30, "recipe.clip": None}, "loss": "mask"}
    with pytest.raises(TrainingError, match=r"at step \d+ \(learning rate 1e\+30; answers .*mask "):
        run(paths, **given)
    (folder,) = paths.runs.glob("**/seed-0")
    manifest = Run(folder).read_manifest()
    assert manifest.status == "failed"
    assert "no longer finite" in manifest.failure


def test_the_last_good_weights_outlive_a_loss_that_is_not_finite(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install_fixture("sick", tmp_path / "installed"))
    with pytest.raises(TrainingError, match="step 5 "):
        run(paths, loss="sick")
    (folder,) = paths.runs.glob("**/seed-0")
    assert all(tensor.isfinite().all() for tensor in load_file(folder / "model.safetensors").values())
    assert len((folder / "epochs.jsonl").read_text().splitlines()) == 1


def test_selecting_on_validation_keeps_the_best_epoch_of_the_last_stage(paths: Paths) -> None:
    done = run(paths, loss="mask+rescale", select="val", finetune_epochs=5, settings={"recipe.lr": 0.05})
    lines = [json.loads(line) for line in done.epochs_file.read_text().splitlines()]
    final = [line for line in lines if line["stage"] == "finetune"]
    best = max(final, key=lambda line: line["val_accuracy"])
    assert done.read_manifest().epoch == best["epoch"]
    scores = json.loads(done.scores_file.read_text())
    assert scores["val"]["accuracy"]["all"] == pytest.approx(best["val_accuracy"], abs=0.01)


def test_a_run_is_not_resumed_with_other_settings(paths: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6))
    (folder,) = paths.runs.glob("**/seed-0")
    manifest = Run(folder).read_manifest()
    manifest.recipe["lr"] = 0.5
    Run(folder).write_manifest(manifest)
    with pytest.raises(InputError, match=r"began with recipe\.lr 0\.5, now .*--force"):
        run(paths, "resume")


def test_a_damaged_checkpoint_is_an_error_that_names_it(paths: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6))
    (checkpoint,) = paths.runs.glob("**/resume.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(InputError, match=r"resume\.pt: damaged"):
        run(paths, "resume")
    kept = {path.name for path in checkpoint.parent.iterdir()}  # the epochs that were finished are not lost
    assert {"model.safetensors", "resume.pt", "run.json", "epochs.jsonl"} <= kept


def test_a_run_goes_on_from_its_checkpoint_where_its_weights_are_damaged(paths: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6))
    (checkpoint,) = paths.runs.glob("**/resume.pt")
    checkpoint.with_name("model.safetensors").write_bytes(b"damaged")
    assert run(paths, "resume").read_manifest().status == "finished"


def test_rescale_adds_nothing_to_the_model_that_is_tested(paths: Paths) -> None:
    plain, rescaled = run(paths), run(paths, loss="rescale", settings={"rescale.minimum": 1})
    assert weights(plain).keys() == weights(rescaled).keys()
    sizes = [one.read_manifest().parameters for one in (plain, rescaled)]
    assert sizes[0] == sizes[1]


def test_training_learns_what_the_images_show(paths: Paths) -> None:
    done = run(paths, epochs=60, settings={"recipe.lr": 0.02, "hidden": 32})
    assert json.loads(done.scores_file.read_text())["test"]["accuracy"]["all"] > 95


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Exactness holds at an equal number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

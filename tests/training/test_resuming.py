from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs import SIZES, Counting, elsewhere, places_in, run, same_bits, weights
from vqabench.api import Recipe
from vqabench.config import make_config
from vqabench.errors import InputError
from vqabench.events import BatchTrained, Event
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.checkpoint import State
from vqabench.training.interruption import Interruption, Stopped
from vqabench.training.plan import make_plan
from vqabench.training.resume import IfExists, begin
from vqabench.workflows.prediction import predict_run

BATCHES = 4  # of an epoch: 60 questions in batches of 16
EVERY_BATCH = 1e-9  # minutes between checkpoints


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return places_in(tmp_path)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Exactness holds at an equal number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def only_run(paths: Paths) -> Run:
    (folder,) = paths.runs.glob("**/seed-0")
    return Run(folder)


def losses(run: Run) -> list[float]:
    return [json.loads(line)["loss"] for line in run.epochs_file.read_text().splitlines()]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop_at", [1, 6, BATCHES, 4 * BATCHES])
def test_a_signal_saves_the_very_step_and_the_run_goes_on_to_the_same_bits(
    paths: Paths, precision: Any, stop_at: int
) -> None:
    whole = run(elsewhere(paths, "whole"), precision=precision)
    interruption = Interruption()
    with pytest.raises(Stopped) as stopped:
        run(paths, emit=Counting(stop_at, interruption), interruption=interruption, precision=precision)
    assert stopped.value.exit_code == 75
    assert only_run(paths).read_manifest().status == "stopped"
    watch = Counting()
    again = run(paths, "resume", emit=watch, precision=precision)
    assert watch.batches == 4 * BATCHES - stop_at
    assert same_bits(whole, again)
    assert losses(whole) == losses(again)


@pytest.mark.parametrize(
    ("backbone", "loss", "settings"),
    [
        ("css-lmh", "plain", {f"base.base.{name}": 8 for name in ("hidden", "embedding")}),
        ("updn", "mask+rescale", SIZES | {"mask.dropout": 0.5}),
        ("updn", "equalized-focal", SIZES),
        ("updn", "ldam", SIZES),
    ],
)
def test_what_stops_without_a_word_goes_on_from_the_latest_checkpoint(
    paths: Paths, backbone: str, loss: str, settings: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"backbone": backbone, "loss": loss, "epochs": 2}
    given["settings"] = settings | {"recipe.batch_size": 16}
    given |= {"finetune_epochs": 2} if "mask" in loss else {}
    whole = run(elsewhere(paths, "whole"), **given)
    with pytest.raises(KeyboardInterrupt):  # in the midst of the step
        run(paths, emit=Counting(7), checkpoint_minutes=EVERY_BATCH, **given)
    watch = Counting()
    again = run(paths, "resume", emit=watch, **given)
    batches = BATCHES * (4 if "mask" in loss else 2)
    assert watch.batches == batches - 6
    assert same_bits(whole, again)


def test_a_signal_while_answers_are_given_loses_no_step(paths: Paths) -> None:
    whole = run(elsewhere(paths, "whole"), epochs=1)
    interruption = Interruption()
    with pytest.raises(Stopped):
        run(paths, emit=Counting(BATCHES, interruption), interruption=interruption, epochs=1)
    watch = Counting()
    again = run(paths, "resume", emit=watch, epochs=1)
    assert watch.batches == 0
    assert same_bits(whole, again)


def test_a_run_goes_on_in_the_precision_that_another_machine_began_it_with(paths: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6))
    manifest = only_run(paths).read_manifest()
    other = {"float32": "bfloat16", "bfloat16": "float32"}[manifest.precision]
    only_run(paths).write_manifest(manifest, precision=other)
    assert run(paths, "resume").read_manifest().precision == other


@pytest.mark.parametrize("name", [".resume.pt.part-12345", ".tmpaBc123"])  # ours, and safetensors' own
def test_what_a_killed_process_had_begun_to_write_is_swept_away(paths: Paths, name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6))
    part = only_run(paths).folder / name
    part.write_bytes(b"half")
    run(paths, "resume")
    assert not part.exists()


@pytest.mark.parametrize("if_exists", ["refuse", "resume"])
def test_a_kill_within_the_very_first_file_leaves_no_run(paths: Paths, if_exists: Any) -> None:
    begun = run(paths, epochs=1)
    part = begun.folder / ".run.json.part-12345"
    begun.clear()
    begun.folder.mkdir()
    part.write_bytes(b"half")
    assert run(paths, if_exists, epochs=1).read_manifest().status == "finished"
    assert not part.exists()


def test_a_run_that_was_being_replaced_is_the_new_one_or_the_old_one(paths: Paths) -> None:
    whole = run(paths)
    old = weights(whole)
    whole.write_manifest(whole.read_manifest(), status="running", epoch=None)
    manifest = whole.read_manifest()  # a kill comes here, before anything is deleted
    assert all(torch.equal(old[name], tensor) for name, tensor in weights(run(paths, "resume")).items())
    assert len(losses(whole)) == 4
    whole.resume_file.touch()
    whole.begin_anew(manifest)
    assert list(whole.folder.iterdir()) == [whole.manifest_file]


def test_a_kill_behind_the_end_of_a_run_leaves_nothing_for_ever(paths: Paths) -> None:
    finished = run(paths, epochs=1)
    before = sorted(finished.folder.parent.rglob("*"))
    lock = finished.folder.with_name(".seed-0.lock")
    for left in (finished.resume_file, lock):
        left.touch()
    watch = Counting()
    run(paths, "resume", emit=watch, epochs=1)
    assert any("finished already" in line for line in watch.messages)
    assert sorted(finished.folder.parent.rglob("*")) == before


class Impatient(Counting):
    """Presses Ctrl-C twice in the middle of a batch."""

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, BatchTrained) and self.batches == 6:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_leaves_the_latest_checkpoint_as_it_is(paths: Paths) -> None:
    whole = run(elsewhere(paths, "whole"))
    interruption = Interruption()
    with interruption.watching(), pytest.raises(KeyboardInterrupt):
        run(paths, emit=Impatient(), interruption=interruption)
    kept = torch.load(only_run(paths).resume_file, weights_only=True)
    steps = {int(state["step"]) for state in kept["optimizer"]["state"].values()}
    assert steps == {BATCHES} == {kept["position"]["steps"]}
    assert same_bits(whole, run(paths, "resume"))


def test_the_random_numbers_of_a_batch_depend_on_its_place_alone(paths: Paths) -> None:
    state = State(torch.nn.Linear(1, 1), torch.nn.ModuleList(), Recipe(), 3)  # type: ignore[arg-type]
    drawn = []
    for epochs, batch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        state.position.epochs = epochs
        state.seed_batch(batch)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[3]
    assert len({tuple(numbers) for numbers in drawn}) == 3


def test_how_a_run_starts_depends_on_what_its_folder_holds(paths: Paths) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6))
    begun = only_run(paths)
    config = make_config({"backbone": "updn", "dataset": "tiny", "epochs": 4, "settings": SIZES})
    plan = make_plan(config, paths.dataset("tiny").entry.recipe)
    assert begun.folder == plan.folder(paths.runs, 0)

    def kind(if_exists: IfExists = "resume", folder: Run = begun) -> str:
        return begin(plan, 0, folder, if_exists).kind

    with pytest.raises(InputError, match="--resume, or replace it with --force"):
        kind("refuse")
    assert kind("refuse", Run(plan.folder(paths.runs, 1))) == "fresh"
    assert kind() == "resume"
    assert begin(plan, 0, begun, "force").before is None
    saved = begun.resume_file.read_bytes()
    begun.resume_file.unlink()
    assert kind() == "fresh"
    assert begin(plan, 0, begun, "resume").before is not None
    begun.resume_file.write_bytes(saved)
    run(paths, "resume")
    assert kind() == "finished"
    begun.weights_file.rename(begun.folder / "moved")
    assert kind() == "finished"
    begun.scores_file.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        kind()
    (begun.folder / "moved").rename(begun.weights_file)
    assert kind() == "rescore"
    assert kind("force") == "fresh"


def test_scoring_a_run_again_keeps_the_checksums_of_answers_about_other_images(paths: Paths) -> None:
    done = run(paths, epochs=1)
    predict_run(done.folder, "test", None, paths, "cpu", shuffle_images=0)
    before = done.read_manifest().checksums
    assert "predictions.test.other-images-0.json" in before
    done.scores_file.unlink()
    run(paths, "resume", epochs=1)
    assert done.read_manifest().checksums == before

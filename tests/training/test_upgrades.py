"""Runs that earlier versions made: what was added to a recipe or a checkpoint since makes no other run of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs import Counting, places_in, run, run_in
from vqabench.api import Recipe
from vqabench.errors import InputError
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.workflows.prediction import predict_run

EARLIER = Path(__file__).parents[1] / "fixtures" / "earlier_runs"
VERSIONS = sorted(folder.name for folder in EARLIER.iterdir())
LABELS = {"finished": "embedding=8,epochs=2,hidden=8,recipe.batch_size=16"}
LABELS["stopped"] = LABELS["finished"].replace("epochs=2", "epochs=6")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return places_in(tmp_path)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def place(version: str, state: str, paths: Paths) -> Run:
    folder = paths.runs / "tiny" / "updn" / f"ce-plain@{LABELS[state]}" / "seed-0"
    shutil.copytree(EARLIER / version / state, folder)
    return Run(folder)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_finished_run_of_an_earlier_version_is_finished_and_answers_as_it_did(version: str, paths: Paths) -> None:
    earlier = place(version, "finished", paths)
    before = {file.name: file.read_bytes() for file in earlier.folder.iterdir()}
    watch = Counting()
    run(paths, "resume", emit=watch, epochs=2)
    assert watch.batches == 0
    predict_run(earlier.folder, "test", None, paths, "cpu")
    assert {file.name: file.read_bytes() for file in earlier.folder.iterdir()} == before


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stopped_run_of_an_earlier_version_goes_on(version: str, paths: Paths) -> None:
    earlier = place(version, "stopped", paths)
    done = len(earlier.read_epochs())
    watch = Counting()
    finished = run(paths, "resume", emit=watch, epochs=6)
    assert finished.folder == earlier.folder
    assert 0 < watch.batches <= 4 * (6 - done)
    assert [record["epoch"] for record in finished.read_epochs()] == [1, 2, 3, 4, 5, 6]
    assert finished.read_manifest().status == "finished"


def change_manifest(run: Run, part: str, **changes: Any) -> None:
    manifest = json.loads(run.manifest_file.read_text())
    section = manifest["options"][part] if part != "recipe" else manifest["recipe"]
    for name, value in changes.items():
        if value is None:
            section.pop(name)
        else:
            section[name] = value
    run.manifest_file.write_text(json.dumps(manifest))


@pytest.fixture
def finished(paths: Paths) -> Run:
    return run(paths, epochs=1)


def test_a_key_that_was_added_since_counts_as_its_default(paths: Paths, finished: Run) -> None:
    own = finished.read_manifest().recipe
    added = [one.name for one in dataclasses.fields(Recipe) if own[one.name] == one.default]
    assert {"sampling", "schedule", "weight_decay"} <= set(added)
    change_manifest(finished, "recipe", **dict.fromkeys(added))
    change_manifest(finished, "backbone", attention_dropout=None)
    watch = Counting()
    run(paths, "resume", emit=watch, epochs=1)
    assert watch.batches == 0


@pytest.mark.parametrize(
    ("part", "changes"),
    [("recipe", {"lr": 0.5}), ("recipe", {"sampling": "balanced"}), ("backbone", {"hidden": 9})],
)
def test_what_differs_from_the_default_still_makes_another_run(
    paths: Paths, finished: Run, part: str, changes: dict[str, Any]
) -> None:
    change_manifest(finished, part, **changes)
    with pytest.raises(InputError, match=next(iter(changes))):
        run(paths, "resume", epochs=1)


def test_a_checkpoint_with_unknown_positions_is_read(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(paths, emit=Counting(6), checkpoint_minutes=1e-9, epochs=2)
    begun = run_in(paths.runs)
    kept = torch.load(begun.resume_file, weights_only=True)
    kept["position"]["invented_later"] = 1
    kept["position"]["tally"] = {"steps": 1, "loss": 2.0, "counted_otherwise": 3}
    torch.save(kept, begun.resume_file)
    assert run(paths, "resume", epochs=2).read_manifest().status == "finished"

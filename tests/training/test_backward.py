from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.plugin_installation import install_fixture
from tests.training.runs import Counting, elsewhere, places_in, run, weights
from vqabench.errors import TrainingError
from vqabench.events import Emit, ignore
from vqabench.files.resources import is_out_of_memory
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.training.backward import explaining_out_of_memory
from vqabench.workflows.training import IfExists


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.syspath_prepend(install_fixture("greedy", tmp_path / "installed"))
    return places_in(tmp_path)


def test_where_memory_is_short_batches_are_computed_in_pieces_to_the_same_result(paths: Paths) -> None:
    settings = {"recipe.batch_size": 16}
    whole = run_greedy(elsewhere(paths, "whole"), settings=settings | {"room": 16})
    watch = Counting()
    pieces = run_greedy(paths, watch, settings=settings | {"room": 5})
    assert pieces.read_manifest().pieces == 4
    assert whole.read_manifest().pieces == 1
    assert [message for message in watch.messages if "into 2 pieces" in message or "into 4 pieces" in message]
    one, other = weights(whole), weights(pieces)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def run_greedy(
    paths: Paths,
    watch: Emit = ignore,
    if_exists: IfExists = "refuse",
    backbone: str = "greedy",
    settings: dict[str, int] | None = None,
) -> Run:
    given: dict[str, Any] = {"backbone": backbone, "epochs": 2, "settings": settings, "precision": "float32"}
    return run(paths, if_exists, watch, **given)


def test_a_stopped_run_goes_on_with_as_many_pieces(paths: Paths) -> None:
    settings = {"recipe.batch_size": 16, "room": 5}
    with pytest.raises(KeyboardInterrupt):
        run_greedy(paths, Counting(6), settings=settings)
    watch = Counting()
    run_greedy(paths, watch, "resume", settings=settings)
    assert not [message for message in watch.messages if "pieces" in message]


def test_a_backbone_that_takes_several_steps_stops_and_tells_which_batch_size_to_try(paths: Paths) -> None:
    with pytest.raises(TrainingError, match=r"several|of its own.*recipe\.batch_size=8"):
        run_greedy(paths, backbone="greedy-twice", settings={"recipe.batch_size": 16, "room": 5})


def test_a_question_too_large_for_memory_ends_the_run(paths: Paths) -> None:
    with pytest.raises(TrainingError, match="a single question"):
        run_greedy(paths, settings={"recipe.batch_size": 4, "room": 0})


def test_scoring_a_run_again_keeps_what_its_record_says_of_pieces(paths: Paths) -> None:
    settings = {"recipe.batch_size": 16, "room": 5}
    done = run_greedy(paths, settings=settings)
    done.scores_file.unlink()
    again = run_greedy(paths, if_exists="resume", settings=settings)
    assert again.read_manifest().pieces == 4


def test_memory_that_runs_out_elsewhere_is_an_error_that_tells_what_may_help() -> None:
    message = r"cpu has no memory left: try .*batch_size.*--features disk"
    with pytest.raises(TrainingError, match=message), explaining_out_of_memory(torch.device("cpu")):
        torch.empty(10**15)


def test_the_real_allocator_is_understood() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(10**15)
    assert is_out_of_memory(failed.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))

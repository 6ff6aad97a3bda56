"""Training and answering on a real GPU, held against the CPU. `pytest tests/cuda` runs these alone."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import torch

from tests.small_plans import PLUGINS, plans
from tests.tiny import write_tiny
from tests.training.runs import Counting, places_in, run, start, weights
from vqabench.api import Backbone, Batch, Loss
from vqabench.data.batches.placement import Place, PlacedFeatures
from vqabench.data.batches.split_data import SplitData
from vqabench.data.prepare.prepared import prepare
from vqabench.errors import VqabenchError
from vqabench.evaluation.predict import predict
from vqabench.events import ignore
from vqabench.paths import Paths
from vqabench.results import Run
from vqabench.testing.samples import make_sample, make_spec
from vqabench.training.backward import BackwardPass
from vqabench.training.checkpoint import State
from vqabench.training.criterion import Criterion
from vqabench.training.device import autocast, tune
from vqabench.training.loop import train_batch
from vqabench.training.model import build_losses, build_model
from vqabench.training.plan import Plan
from vqabench.training.session import Session

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@contextmanager
def exact() -> Iterator[None]:
    """Multiply in float32 with all its bits."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def refusing_waits() -> Iterator[None]:
    """Let PyTorch raise an error wherever the program waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def trained(plan: Plan, device: torch.device, batch: Batch, model: Backbone) -> list[float]:
    """Take two steps for each loss; return the losses minimised."""
    losses = build_losses(plan, make_spec())
    found = []
    for loss in losses:
        state = State(model.to(device), torch.nn.ModuleList([loss]).to(device), plan.recipe, seed=0)
        backward = BackwardPass(state, Session(device, ignore), autocast(device, "float32"))
        criterion = Criterion(cast(Loss, loss))
        for number in range(2):
            state.seed_batch(number)
            train_batch(batch.map(lambda tensor: tensor.to(device)), criterion, backward, plan.recipe.clip)
        found += [float(value) for value, _ in criterion.steps]
    return found


def without_dropout(model: Backbone) -> Backbone:
    """Turn dropout off: a GPU draws other numbers."""
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


@pytest.mark.parametrize("backbone", PLUGINS)
def test_steps_on_the_gpu_minimise_the_losses_that_the_cpu_does(backbone: str) -> None:
    spec = make_spec()
    for plan in plans(backbone):
        found = {}
        for device in (CPU, GPU):
            torch.manual_seed(0)
            try:
                model = without_dropout(build_model(plan, spec)).train()
            except VqabenchError:  # the mask needs question features, which some baselines do not have
                break
            if not any(True for _ in model.parameters()):
                return
            batch = make_sample(spec, 8, odd=True).given_to(model)
            with exact():
                found[device] = trained(plan, device, batch, model)
        if found:
            assert found[GPU] == pytest.approx(found[CPU], rel=1e-3), (plan.loss, plan.objective)


@pytest.mark.parametrize("backbone", [name for name in PLUGINS if not name.startswith("css")])
def test_a_step_never_waits_for_the_gpu(backbone: str) -> None:
    spec = make_spec()
    for plan in plans(backbone)[:3]:
        model = build_model(plan, spec).train()
        if not any(True for _ in model.parameters()):
            return
        batch = make_sample(spec, 8).given_to(model).map(lambda tensor: tensor.to(GPU))
        losses = build_losses(plan, spec).to(GPU)
        state = State(model.to(GPU), losses, plan.recipe, seed=0)
        for precision in ("float32", "bfloat16"):
            backward = BackwardPass(state, Session(GPU, ignore), autocast(GPU, precision))
            criterion = Criterion(cast(Loss, losses[0]))
            train_batch(batch, criterion, backward, plan.recipe.clip)  # the first step sets libraries up
            with refusing_waits():
                train_batch(batch, criterion, backward, plan.recipe.clip)


@pytest.mark.parametrize("place", ["device", "host", "disk"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_is_the_same_wherever_features_are(tmp_path: Path, place: Place, dtype: torch.dtype) -> None:
    paths = Paths(data=tmp_path, catalog=write_tiny(tmp_path / "own"))
    prepared = prepare(paths.dataset("tiny"), lambda _: None)
    parts = torch.split(torch.randperm(60, generator=torch.Generator().manual_seed(0)), 7)
    batches = [
        list(SplitData(prepared, "train", features).batches(parts, with_targets=True))
        for features in (
            PlacedFeatures(prepared.features, CPU, "disk", dtype),
            PlacedFeatures(prepared.features, GPU, place, dtype),
        )
    ]
    for expected, found in zip(*batches, strict=True):
        for name, value in vars(expected).items():
            if isinstance(value, torch.Tensor):
                assert vars(found)[name].device == GPU, name
                assert torch.equal(vars(found)[name].cpu(), value), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("features", ["device", "host", "disk"])
def test_a_run_trains_answers_and_is_scored(tmp_path: Path, precision: str, features: str) -> None:
    done = run(places_in(tmp_path), device="cuda", precision=precision, features=features)
    manifest = done.read_manifest()
    assert manifest.status == "finished"
    assert manifest.device == torch.cuda.get_device_name(GPU)
    assert all(value.isfinite().all() for value in weights(done).values())


def test_answers_on_the_gpu_are_those_on_the_cpu(tmp_path: Path) -> None:
    paths = places_in(tmp_path)
    prepared = prepare(paths.dataset("tiny"), lambda _: None)
    torch.manual_seed(0)
    (plan, *_) = plans("updn")
    model = build_model(plan, prepared.spec).eval()
    tune(GPU)
    answers = [
        predict(model.to(device), SplitData(prepared, "test", PlacedFeatures(prepared.features, device)), 5, "ce")
        for device in (CPU, GPU)
    ]
    assert torch.equal(answers[0].answers_N, answers[1].answers_N)
    assert torch.allclose(answers[0].confidences_N, answers[1].confidences_N, atol=1e-2)


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    places_in(tmp_path)
    sizes = ("--set", "hidden=8", "--set", "embedding=8", "--set", "recipe.batch_size=16")
    command = ("updn", "--dataset", "tiny", "--device", "cuda", *sizes, "--epochs", "60")
    process = start(tmp_path, *command)
    epochs = tmp_path / "runs" / "tiny" / "updn"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(
        len(path.read_text().splitlines()) > 2 for path in epochs.glob("*/seed-0/epochs.jsonl")
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    again = start(tmp_path, *command, "--resume")
    _, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    (found,) = epochs.glob("*/seed-0")
    assert Run(found).read_manifest().status == "finished"
    assert [record["epoch"] for record in Run(found).read_epochs()] == list(range(1, 61))


def test_a_batch_too_large_for_the_gpu_is_cut() -> None:
    spec = make_spec(regions=36, region_width=512)
    (plan, *_) = plans("updn")
    torch.manual_seed(0)
    model = build_model(plan, spec).train()
    batch = make_sample(spec, 4096).given_to(model).map(lambda tensor: tensor.to(GPU))
    losses = build_losses(plan, spec).to(GPU)
    progress = Counting()
    state = State(model.to(GPU), losses, plan.recipe, seed=0)
    backward = BackwardPass(state, Session(GPU, progress), autocast(GPU, "float32"))
    criterion = Criterion(cast(Loss, losses[0]))
    train_batch(batch, criterion, backward, plan.recipe.clip)
    resting = torch.cuda.memory_allocated(GPU)
    torch.cuda.reset_peak_memory_stats(GPU)
    train_batch(batch, criterion, backward, plan.recipe.clip)
    needed = torch.cuda.max_memory_allocated(GPU) - resting
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(GPU) + 0.6 * needed) / total, GPU)
    try:
        train_batch(batch, criterion, backward, plan.recipe.clip)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    assert state.position.pieces > 1
    assert "no memory" in progress.messages[0]
    assert all(float(value) > 0 for value, _ in criterion.steps)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("backbone", ["updn", "lmh", "lxmert"])
def test_steps_replayed_from_a_graph_minimise_the_same_losses(
    backbone: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine batches, of which the graph computes five, and a smaller one in between that it does not fit."""
    monkeypatch.setattr("vqabench.training.backward.WARM_UP", 3)
    spec = make_spec()
    for plan in plans(backbone):
        found = {}
        for way in ("step by step", "as a graph"):
            torch.manual_seed(0)
            model = without_dropout(build_model(plan, spec)).train()
            parts = {type(part) for part in model.modules() if isinstance(part, Backbone)}
            for part in parts if way == "step by step" else ():
                monkeypatch.setattr(part, "capturable", False)
            extras = make_sample(spec, 8).given_to(model).extras
            losses = build_losses(plan, spec).to(GPU)
            state = State(model.to(GPU), losses, plan.recipe, seed=0)
            backward = BackwardPass(state, Session(GPU, ignore), autocast(GPU, precision))
            criterion = Criterion(cast(Loss, losses[0]))
            for number in range(9):
                batch = make_sample(spec, 8, number, odd=True).batch.replace(extras=extras)
                batch = batch.map(lambda tensor: tensor.to(GPU)[: 5 if number == 6 else 8])  # noqa: B023
                train_batch(batch, criterion, backward, plan.recipe.clip)
            assert (backward.graph is not None) == (way == "as a graph")
            monkeypatch.undo()
            monkeypatch.setattr("vqabench.training.backward.WARM_UP", 3)
            tally = criterion.read(0, 0.0).result()
            assert tally.steps == 9
            assert tally.questions == 69
            found[way] = [tally.loss, tally.accuracy]
            found[way] += [float(one.detach().float().norm()) for one in model.parameters()]
        assert found["as a graph"] == pytest.approx(found["step by step"], rel=2e-2, abs=1e-3), plan.loss

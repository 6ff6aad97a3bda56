"""Measure single training steps on a GPU: kernels, waits for the device, and other ways to launch them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

from benchmarks import compiled_step
from benchmarks.step_floor import synchronize
from vqabench.api import Backbone, Batch, DataSpec
from vqabench.config import make_config
from vqabench.events import ignore
from vqabench.training.backward import BackwardPass
from vqabench.training.checkpoint import State
from vqabench.training.criterion import Criterion
from vqabench.training.device import autocast, choose_device, number_type, tune
from vqabench.training.loop import train_batch
from vqabench.training.model import build_losses, build_model
from vqabench.training.plan import make_plan
from vqabench.training.session import Session

Found = dict[str, Any]
Report = Callable[[Found], None]
STEPS = 60
MODELS: Mapping[str, Mapping[str, object]] = {
    "updn": {},
    "lm": {},
    "lmh": {},
    "css": {},
    "css-lmh": {},
    "lxmert": {"recipe.batch_size": 32},
    "lxmert ": {"recipe.batch_size": 256},
}
"""Backbone -> its settings."""
SMALL: Mapping[str, Mapping[str, object]] = {
    "lxmert": {"hidden": 32, "heads": 2, "language_layers": 1, "object_layers": 1, "cross_layers": 1},
}


class Steps:
    """A full-size model and one batch on a device, as in training."""

    def __init__(self, name: str, device: str, precision: str, *, tiny: bool, capture: bool = True) -> None:
        self.device = choose_device(device)
        tune(self.device)
        settings = dict(MODELS.get(name, {})) | (dict(SMALL.get(name.strip(), {})) if tiny else {})
        settings |= {"recipe.batch_size": 8} if tiny else {}
        loss = "rescale"
        self.plan = make_plan(make_config({"backbone": name.strip(), "loss": loss, "settings": settings}))
        spec = compiled_step.make_spec()
        self.size = self.plan.recipe.batch_size
        torch.manual_seed(0)
        model = build_model(self.plan, with_names(spec)).train()
        batch = compiled_step.make_batch(self.size, number_type(precision))
        batch = batch.replace(object_ids_BR=torch.randint(100, (self.size, compiled_step.REGIONS)))
        self.batch = with_own_tokens(model, batch).map(lambda tensor: tensor.to(self.device))
        losses = build_losses(self.plan, spec).to(self.device)
        self.state = State(model.to(self.device), losses, self.plan.recipe, seed=0)
        self.context = autocast(self.device, precision)
        session = Session(self.device, ignore)
        self.backward = BackwardPass(self.state, session, self.context)
        if not capture:
            self.backward.batches = -(10**9)  # still among the batches before one is recorded
        self.criterion = Criterion(losses[0])  # type: ignore[arg-type]

    def take(self) -> None:
        """Run the steps of one batch, as the training loop does."""
        self.state.seed_batch(0)
        train_batch(self.batch, self.criterion, self.backward, self.plan.recipe.clip)
        self.criterion.calls.clear()
        self.criterion.steps.clear()
        self.criterion.accuracies.clear()


def with_names(spec: DataSpec) -> DataSpec:
    """Return the data set with names of object classes and word vectors, which CSS compares."""
    vectors = torch.randn(len(spec.words), 300)
    return DataSpec(**(vars(spec) | {"object_names": spec.words[2:102], "word_vectors": vectors}))


def with_own_tokens(model: Backbone, batch: Batch) -> Batch:
    """Return the batch with tokens of the model's own tokeniser, for as many words."""
    questions = [" ".join(["1"] * int(words)) for words in batch.word_mask_BL.sum(1)]
    return batch.replace(extras=dict(model.prepare_questions(questions)))


def milliseconds(work: Callable[[], object], device: torch.device, steps: int) -> float:
    """Return the median time of a step over several series of ten, each followed by a wait for the device."""
    for _ in range(max(1, steps // 6)):
        work()
    found = []
    for first in range(0, steps, 10):
        few = min(10, steps - first)
        synchronize(device)
        began = time.perf_counter()
        for _ in range(few):
            work()
        synchronize(device)
        found.append((time.perf_counter() - began) / few)
    return 1000 * median(found)


def count_waits(work: Callable[[], object]) -> list[str]:
    """Return the places where a step waits for the GPU, according to PyTorch."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{one.filename.rpartition('/')[2]}:{one.lineno}" for one in seen if "synchroni" in str(one.message)]


def profile(work: Callable[[], object], device: torch.device, steps: int) -> Found:
    """Return the number of kernels per step, their duration, and the largest ones."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds) as profiler:
        for _ in range(steps):
            work()
        synchronize(device)
    kernels = [one for one in profiler.events() if one.device_type.name == "CUDA"]
    busy: dict[str, float] = {}
    for one in kernels:
        busy[one.name] = busy.get(one.name, 0.0) + one.time_range.elapsed_us() / steps / 1000
    largest = sorted(busy.items(), key=lambda pair: -pair[1])[:14]
    return {
        "kernels a step": len(kernels) / steps,
        "ms of kernels a step": round(sum(busy.values()), 3),
        "largest kernels, ms": {name[:90]: round(milli, 3) for name, milli in largest},
    }


def look(device: str, *, tiny: bool, report: Report) -> Found:
    """Measure a step of full-size UpDn."""
    steps = 1 if tiny else STEPS
    found: Found = {}
    for precision in ("float32",) if tiny else ("bfloat16", "float32"):
        taken = Steps("updn", device, precision, tiny=tiny, capture=False)
        found[f"ms a step, {precision}, kernel by kernel"] = round(milliseconds(taken.take, taken.device, steps), 3)
        taken = Steps("updn", device, precision, tiny=tiny)
        found[f"ms a step, {precision}"] = round(milliseconds(taken.take, taken.device, steps), 3)
        if taken.device.type == "cuda":
            found[f"waits, {precision}"] = count_waits(taken.take)
        found[f"profile, {precision}"] = profile(taken.take, taken.device, 1 if tiny else 5)
        report(found)
    return found


def time_models(device: str, *, tiny: bool, report: Report) -> Found:
    """Time the steps of a batch, in bfloat16, of each first-party backbone at its full size."""
    found: Found = {}
    for name in MODELS:
        try:
            taken = Steps(name, device, "float32" if tiny else "bfloat16", tiny=tiny)
            if taken.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            milli = milliseconds(taken.take, taken.device, 1 if tiny else 40)
            one: Found = {"batch": taken.size, "ms": round(milli, 2), "samples/s": round(1000 * taken.size / milli)}
            if taken.device.type == "cuda":
                one["GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
                one["waits"] = count_waits(taken.take)
            found[f"{name.strip()}, batch {taken.size}"] = one
            del taken
        except Exception as error:  # the others are worth knowing
            found[name.strip()] = f"{type(error).__name__}: {str(error)[:300]}"
        report(found)
    return found

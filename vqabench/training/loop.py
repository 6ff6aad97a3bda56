"""The training loop, from the first step to the chosen weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Loss
from vqabench.data.batches import SplitData
from vqabench.errors import InputError, TrainingError
from vqabench.evaluation.predict import mean_soft_target, predict
from vqabench.results import Run
from vqabench.training.assembly import Plan, Stage
from vqabench.training.checkpoint import load_state, save_state, save_weights
from vqabench.training.criterion import Criterion
from vqabench.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from vqabench.training.progress import Progress

STEPS_BETWEEN_READINGS = 20
"""Losses are read from the device (and checked to be finite) this often."""

Autocast = Callable[[], AbstractContextManager[object]]


@dataclass
class Position:
    """How far a run has come."""

    epochs: int = 0
    """Finished epochs, over all stages."""
    steps: int = 0
    chosen_epoch: int | None = None
    """The epoch whose weights are kept, counted from 1."""
    chosen_accuracy: float = -1.0


def fit(
    plan: Plan,
    model: Backbone,
    losses: nn.ModuleList,
    splits: Mapping[str, SplitData],
    seed: int,
    run: Run,
    autocast: Autocast,
    progress: Progress,
) -> Position:
    """Train a model through all stages, or the rest of them where the run has begun before.

    After every epoch the run's folder holds all that is needed to go on, and the weights chosen so far.
    Raises TrainingError where a loss is not finite.
    """
    recipe, train = plan.recipe, splits["train"]
    parameters = [*model.parameters(), *losses.parameters()]
    optimizer = make_optimizer(recipe, parameters)
    order = torch.Generator().manual_seed(seed)
    position = Position()
    if run.resume_file.is_file():
        position = _go_on(run, model, losses, optimizer, order)
    if run.keep_epochs(position.epochs) < position.epochs:
        progress.warn(f"{run.epochs_file}: lacks finished epochs; training goes on without their record")
    steps_per_epoch = -(-len(train) // recipe.batch_size)
    epochs = sum(stage.epochs for stage in plan.stages)
    progress.start(str(run.folder), epochs, position.epochs, len(train))

    for stage, loss, epoch in _epochs_to_go(plan.stages, losses, position.epochs):
        began = time.perf_counter()
        loss.start_epoch(epoch, stage.epochs)
        criterion = Criterion(loss)
        meter = _Meter()
        model.train()
        for number, batch in enumerate(train.shuffled(recipe.batch_size, order)):
            lr = learning_rate(recipe, epoch * steps_per_epoch + number, stage.epochs * steps_per_epoch)
            set_learning_rate(optimizer, lr)
            for value in _under(autocast, model.training_losses(batch, criterion)):
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
                if recipe.clip is not None:
                    nn.utils.clip_grad_norm_(parameters, recipe.clip)
                optimizer.step()
                position.steps += 1
            progress.advance(len(batch))
            if (number + 1) % STEPS_BETWEEN_READINGS == 0 or number + 1 == steps_per_epoch:
                meter.read(criterion, position.steps, lr, progress)

        position.epochs += 1
        record = {"epoch": position.epochs, "stage": stage.name, **meter.means(), "lr": lr}
        record |= _watched_accuracies(plan, model, splits, autocast)
        _choose(plan, stage, record, position, model, run)
        record["seconds"] = max(0.001, round(time.perf_counter() - began, 3))
        run.append_epoch(record)
        _save(run, model, losses, optimizer, order, position)
        progress.finish_epoch(record)
    return position


def _epochs_to_go(stages: tuple[Stage, ...], losses: nn.ModuleList, done: int) -> Iterator[tuple[Stage, Loss, int]]:
    """Give each epoch that is not done yet: its stage, the stage's loss, and its number within the stage."""
    pairs = zip(stages, cast(Iterable[Loss], losses), strict=True)
    everything = [(stage, loss, epoch) for stage, loss in pairs for epoch in range(stage.epochs)]
    yield from everything[done:]


def _under(autocast: Autocast, losses: Iterator[Tensor]) -> Iterator[Tensor]:
    """Compute each loss under autocast, and hand it out outside of it, for the backward pass."""
    while True:
        with autocast():
            value = next(losses, None)
        if value is None:
            return
        yield value


class _Meter:
    """Means over an epoch of what the criterion saw."""

    def __init__(self) -> None:
        self.readings: list[tuple[int, float, float]] = []

    def read(self, criterion: Criterion, steps: int, lr: float, progress: Progress) -> None:
        count = len(criterion.parts)
        if count == 0:  # a backbone may skip a batch
            return
        loss, accuracy = criterion.read(steps - count + 1, lr)
        self.readings.append((count, loss, accuracy))
        progress.measure(loss, accuracy)

    def means(self) -> dict[str, float]:
        total = sum(count for count, _, _ in self.readings)
        if total == 0:
            raise TrainingError("the backbone gave no loss for any batch of an epoch")
        loss = sum(count * loss for count, loss, _ in self.readings) / total
        accuracy = sum(count * accuracy for count, _, accuracy in self.readings) / total
        return {"loss": loss, "train_accuracy": accuracy}


def _watched_accuracies(
    plan: Plan, model: Backbone, splits: Mapping[str, SplitData], autocast: Autocast
) -> dict[str, float]:
    """Measure in-domain validation, and the test split only where the user asked for it."""
    watched = ["val"] if "val" in splits else []
    if plan.config.track_test or plan.config.select == "test":
        watched.append("test")
    return {
        f"{split}_accuracy": mean_soft_target(
            splits[split], predict(model, splits[split], plan.recipe.batch_size, autocast())
        )
        for split in watched
    }


def _choose(
    plan: Plan, stage: Stage, record: Mapping[str, Any], position: Position, model: nn.Module, run: Run
) -> None:
    """Keep an epoch's weights: always the latest, or within the final stage the best on a split."""
    best_on = plan.config.select
    if best_on != "last" and stage == plan.stages[-1]:
        accuracy = record[f"{best_on}_accuracy"]
        if accuracy <= position.chosen_accuracy:
            return
        position.chosen_accuracy = accuracy
    position.chosen_epoch = position.epochs
    save_weights(model, run.weights_file)


def _save(
    run: Run,
    model: nn.Module,
    losses: nn.ModuleList,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    position: Position,
) -> None:
    """Keep all that the next epoch depends on."""
    state = {
        "model": model.state_dict(),
        "losses": losses.state_dict(),
        "optimizer": optimizer.state_dict(),
        "order": order.get_state(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "position": vars(position),
    }
    save_state(state, run.resume_file)


def _go_on(
    run: Run,
    model: nn.Module,
    losses: nn.ModuleList,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
) -> Position:
    """Take up a run behind its last finished epoch."""
    state = load_state(run.resume_file)
    try:
        model.load_state_dict(state["model"])
        losses.load_state_dict(state["losses"])
        optimizer.load_state_dict(state["optimizer"])
        position = Position(**state["position"])
        order.set_state(state["order"])
        torch.set_rng_state(state["random"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{run.resume_file}: does not fit this run; train it again with --force") from error
    if torch.cuda.is_available() and len(state["random_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["random_cuda"])
    return position

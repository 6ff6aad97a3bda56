"""The training loop, from the first step to the chosen weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Loss
from vqabench.data.batches import SplitData
from vqabench.errors import InputError, PluginError, TrainingError
from vqabench.evaluation.predict import mean_soft_target, predict
from vqabench.results import Run
from vqabench.training.checkpoint import load_state, save_state, save_weights
from vqabench.training.criterion import Criterion, Reading
from vqabench.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from vqabench.training.plan import Plan, Stage
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

    After every epoch the run's folder holds all that is needed to go on, and the weights chosen so far. A model
    without parameters is kept as it is.
    Raises TrainingError where a loss is not finite.
    """
    recipe, train = plan.recipe, splits["train"]
    if not any(True for _ in model.parameters()):
        progress.say(f"{run.folder}: {plan.backbone} has nothing to train")
        save_weights(model, run.weights_file)
        return Position(chosen_epoch=0)
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
        readings: list[Reading] = []
        model.train()
        draw = train.balanced if recipe.sampling == "balanced" else train.shuffled
        for number, batch in enumerate(draw(recipe.batch_size, order)):
            lr = learning_rate(recipe, epoch * steps_per_epoch + number, stage.epochs * steps_per_epoch)
            set_learning_rate(optimizer, lr)
            for value in under(autocast, model.training_losses(batch, criterion)):
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
                if recipe.clip is not None:
                    nn.utils.clip_grad_norm_(parameters, recipe.clip)
                optimizer.step()
                criterion.finish_step(value)
            criterion.finish_batch()
            progress.advance(len(batch))
            if (number + 1) % STEPS_BETWEEN_READINGS == 0 or number + 1 == steps_per_epoch:
                reading = criterion.read(position.steps, lr)
                if reading is not None:
                    position.steps += reading.steps
                    readings.append(reading)
                    progress.measure(reading.loss, reading.accuracy)

        position.epochs += 1
        _check_weights(parameters, position.epochs)
        record = {"epoch": position.epochs, "stage": stage.name, **_means(readings), "lr": lr}
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


def under(autocast: Autocast, losses: Iterator[Tensor]) -> Iterator[Tensor]:
    """Compute each loss under autocast, and hand it out outside of it, for the backward pass."""
    while True:
        with autocast():
            value = next(losses, None)
        if value is None:
            return
        yield value


def _means(readings: Sequence[Reading]) -> dict[str, float]:
    """Give the means over an epoch. Raises PluginError where the backbone gave no loss at all."""
    steps = sum(reading.steps for reading in readings)
    if steps == 0:
        raise PluginError("the backbone yielded no loss for any batch of an epoch")
    means = {"loss": sum(reading.steps * reading.loss for reading in readings) / steps}
    accuracies = [(reading.steps, reading.accuracy) for reading in readings if reading.accuracy is not None]
    if accuracies:
        measured = sum(count for count, _ in accuracies)
        means["train_accuracy"] = sum(count * accuracy for count, accuracy in accuracies) / measured
    return means


def _check_weights(parameters: Sequence[nn.Parameter], epoch: int) -> None:
    """Raise TrainingError unless all weights are finite: a finite loss may still have had another gradient."""
    finite = torch.stack([parameter.detach().isfinite().all() for parameter in parameters])
    if not finite.all():
        raise TrainingError(f"the weights are no longer finite behind epoch {epoch}; those before it are kept")


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

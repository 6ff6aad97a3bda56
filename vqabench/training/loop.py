"""The training loop, from the first step to the chosen weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from vqabench.api import Backbone, Loss
from vqabench.data.batches.split_data import SplitData
from vqabench.errors import PluginError, TrainingError
from vqabench.evaluation.predict import Chosen, evaluation_batch, mean_soft_target, predict
from vqabench.events import BatchTrained, Emit, EpochFinished, RunStarted, StepsMeasured
from vqabench.results import Run
from vqabench.training.checkpoint import save_state, save_weights
from vqabench.training.criterion import Criterion, Reading
from vqabench.training.descent import Descent
from vqabench.training.device import Autocast, measure_gpu_memory
from vqabench.training.guard import advice, calling, describe
from vqabench.training.interruption import Stopped
from vqabench.training.optimizer import learning_rate, set_learning_rate
from vqabench.training.plan import Plan, Stage
from vqabench.training.session import GOES_ON, SAVES, STOPS, Session
from vqabench.training.state import Position, State

STEPS_BETWEEN_READINGS = 20
"""Losses are read from the device (and checked to be finite) this often."""


@dataclass
class Training:
    """One run's training: what is trained, on what, where it is kept, and with what it is carried out."""

    plan: Plan
    state: State
    splits: Mapping[str, SplitData]
    run: Run
    session: Session
    autocast: Autocast
    emit: Emit
    readings: list[Reading] = field(default_factory=list)
    """Losses that are on their way from the device."""
    order: Tensor = field(default_factory=lambda: torch.empty(0))
    """The state that the order's generator had when the epoch began."""

    def fit(self) -> Position:
        """Train through all stages, or the rest of them where the run has come some way.

        After every epoch, every few minutes, and where a signal stops it, the run's folder holds all that the next
        step depends on; it always holds the weights chosen so far.
        Raises TrainingError where a loss is not finite, Stopped where a signal has come and everything is saved.
        """
        position = self.state.position
        epochs, questions = sum(stage.epochs for stage in self.plan.stages), len(self.splits["train"])
        seen = min(questions, position.batches * self.plan.recipe.batch_size)
        self.emit(RunStarted(str(self.run.folder), epochs, questions, position.epochs, seen, position.steps))
        with self.session.interruption.put_off():
            for stage, loss, epoch in self._epochs_to_go():
                self.order = self.state.order.get_state()
                try:
                    record = self._train_epoch(stage, loss, epoch) | self._watched_accuracies()
                except Stopped:  # comes between two batches; whatever else ends this does not
                    self._save()
                    raise
                with self.session.interruption.saving():
                    self._finish_epoch(stage, record)
        if self.session.wish() == STOPS:
            self.session.interruption.stop()
        return position

    def _epochs_to_go(self) -> Iterator[tuple[Stage, Loss, int]]:
        """Give each epoch that is not done yet: its stage, the stage's loss, and its number within the stage."""
        pairs = zip(self.plan.stages, cast(Iterable[Loss], self.state.losses), strict=True)
        everything = [(stage, loss, epoch) for stage, loss in pairs for epoch in range(stage.epochs)]
        yield from everything[self.state.position.epochs :]

    def _train_epoch(self, stage: Stage, loss: Loss, epoch: int) -> dict[str, Any]:
        """Train on each batch of an epoch, or of the rest of it; give what is recorded of it."""
        recipe, position, session, train = self.plan.recipe, self.state.position, self.session, self.splits["train"]
        batches = torch.split(train.draw_order(recipe.sampling, self.state.order), recipe.batch_size)
        began = time.perf_counter() - position.seconds
        with calling([*self.plan.losses, *self.plan.parts], "starting an epoch"):
            _start_epoch(loss, epoch, stage, goes_on=position.batches > 0)
        criterion, descent = Criterion(loss), Descent(self.state, session, self.autocast, recipe.clip)
        self.state.model.train()
        shares = [session.processes.share(batch) for batch in batches[position.batches :]]
        for number, batch in enumerate(train.batches(shares, with_targets=True), position.batches):
            lr = learning_rate(recipe, epoch * len(batches) + number, stage.epochs * len(batches))
            set_learning_rate(self.state.optimizer, lr)
            self.state.seed_batch(number)
            with calling(self.plan.parts, "training"):
                descent.train_on(batch, criterion)
            position.batches = number + 1
            self.emit(BatchTrained(len(batches[number])))
            wish = session.wish()
            pauses = wish != GOES_ON or position.batches == len(batches)
            if pauses or position.batches % STEPS_BETWEEN_READINGS == 0:
                self._read(criterion, lr, wait=pauses)
                position.seconds = time.perf_counter() - began
            if wish == STOPS:
                session.interruption.stop()
            if wish == SAVES:
                with session.interruption.saving():
                    self._save()
        last = learning_rate(recipe, (epoch + 1) * len(batches) - 1, stage.epochs * len(batches))
        return {"epoch": position.epochs + 1, "stage": stage.name} | self._means() | {"lr": last}

    def _read(self, criterion: Criterion, lr: float, *, wait: bool) -> None:
        """Begin to read the losses since the last time; take note of those that have come, or wait for all."""
        position = self.state.position
        if criterion.steps or criterion.accuracies:
            self.readings.append(criterion.read(position.steps, lr))
            position.steps += len(self.readings[-1].steps)
        while self.readings and (wait or self.readings[0].has_come()):
            reading = self.readings.pop(0)
            tally = reading.result()
            position.tally.add(tally)
            means = tally.means()
            if "loss" in means:
                self.emit(StepsMeasured(reading.last_step, means | {"lr": reading.lr}))

    def _means(self) -> dict[str, float]:
        """Give the means over an epoch and all processes. Raises PluginError where there was no loss at all."""
        tally = copy.copy(self.state.position.tally)
        sums = torch.tensor(list(vars(tally).values()), dtype=torch.float64)
        tally.steps, tally.loss, tally.questions, tally.accuracy = self.session.processes.sum_numbers(sums).tolist()
        if not tally.steps:
            plugin = self.plan.chain[0].plugin
            raise PluginError(f"{describe(plugin)}: it yielded no loss in a whole epoch; {advice(plugin)}")
        return tally.means()

    def _watched_accuracies(self) -> dict[str, float]:
        """Measure in-domain validation, and the test split only where the user asked for it."""
        watched = ["val"] if "val" in self.splits else []
        if self.plan.config.track_test or self.plan.config.select == "test":
            watched.append("test")
        self.session.processes.average_buffers(self.state.model, self.state.losses)
        began, accuracies = time.perf_counter(), {}
        with self.session.interruption.saving():  # of several processes, none may stop before the others
            for split in watched:
                data = self.splits[split]
                chosen = answer(self.plan, self.state.model, data, self.session)
                accuracies[f"{split}_accuracy"] = mean_soft_target(data, chosen.answers_N)
        self.state.position.seconds += time.perf_counter() - began
        return accuracies

    def _finish_epoch(self, stage: Stage, record: dict[str, Any]) -> None:
        """Keep an epoch: its weights, if they are chosen, its record, and all that the next one depends on."""
        position = self.state.position
        _check_weights(self.state)
        record["seconds"] = max(0.001, round(position.seconds, 3))
        record |= measure_gpu_memory()
        position.finish_epoch()
        self._choose(stage, record)
        if self.session.processes.writes:
            self.run.append_epoch(record)
        self.order = self.state.order.get_state()
        self._save()
        self.emit(EpochFinished(position.steps, record))

    def _choose(self, stage: Stage, record: Mapping[str, Any]) -> None:
        """Keep an epoch's weights: always the latest, or within the final stage the best on a split."""
        best_on, position = self.plan.config.select, self.state.position
        if best_on != "last" and stage == self.plan.stages[-1]:
            accuracy = record[f"{best_on}_accuracy"]
            if accuracy <= position.chosen_accuracy:
                return
            position.chosen_accuracy = accuracy
        position.chosen_epoch = position.epochs
        self._save_weights()

    def _save_weights(self) -> None:
        if self.session.processes.writes:
            save_weights(self.state.model, self.run.weights_file)

    def _save(self) -> None:
        """Keep all that the next step depends on. Raises TrainingError where that is spoilt, and keeps what was."""
        _check_weights(self.state)
        kept = self.state.keep(self.session.processes, self.order)
        if self.session.processes.writes:
            save_state(kept, self.run.resume_file)
        self.session.saved()


def answer(plan: Plan, model: Backbone, data: SplitData, session: Session) -> Chosen:
    """Answer every question of a split, each in one of the processes.

    Raises Stopped where a signal has come; of several processes none may stop ahead of the others.
    """
    processes = session.processes
    after_batch = session.interruption.check if processes.count == 1 else lambda: None
    asked = processes.questions_of(len(data))
    batch_size = evaluation_batch(plan.recipe.batch_size, data)
    with calling(plan.parts, "answering"):
        own = predict(model, data, batch_size, plan.objective, asked, after_batch)
    return Chosen(*(processes.gather(part, len(data)) for part in (own.answers_N, own.confidences_N)))


def _start_epoch(loss: Loss, epoch: int, stage: Stage, *, goes_on: bool) -> None:
    """Tell a loss of its epoch; in the midst of one, what it has come to since is kept."""
    kept = copy.deepcopy(loss.state_dict()) if goes_on else None
    loss.start_epoch(epoch, stage.epochs)
    if kept is not None:
        loss.load_state_dict(kept)


def _check_weights(state: State) -> None:
    """Raise TrainingError unless all weights are finite: a finite loss may still have had another gradient."""
    finite = torch.stack([parameter.detach().isfinite().all() for parameter in state.parameters])
    if not finite.all():
        where = f"batch {state.position.batches} of epoch {state.position.epochs + 1}"
        raise TrainingError(f"the weights are no longer finite at {where}; those of the latest checkpoint are kept")

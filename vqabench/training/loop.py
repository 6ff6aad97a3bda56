"""The training loop, to be read from top to bottom: batch -> losses -> step -> record.

    fit            all epochs that are left
      _train_epoch   all batches of an epoch
        train_batch    one optimiser step for each loss of a batch
      _evaluate      soft accuracies after the epoch
      _finish_epoch  choose weights, record, save

How a loss and its gradients are computed is in `backward.py`, what the loss is in `criterion.py`, and how several
processes sum gradients in `processes.py`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from vqabench.api import Backbone, Batch, Loss
from vqabench.data.batches.split_data import SplitData
from vqabench.errors import PluginError, TrainingError
from vqabench.evaluation.predict import Chosen, evaluation_batch, mean_soft_target, predict
from vqabench.events import BatchTrained, Emit, EpochFinished, RunStarted, StepsMeasured
from vqabench.training.backward import BackwardPass, explaining_out_of_memory
from vqabench.training.checkpoint import Position, State, save_state, save_weights
from vqabench.training.criterion import Criterion, Reading, Tally
from vqabench.training.device import Autocast, measure_gpu_memory
from vqabench.training.guard import advice, calling, describe
from vqabench.training.interruption import Stopped
from vqabench.training.optimizer import learning_rate
from vqabench.training.plan import Stage
from vqabench.training.session import Action, Job

STEPS_BETWEEN_READINGS = 20
"""Losses are read from the device (and checked to be finite) this often: each reading may wait for the GPU."""


@dataclass
class Training:
    """The training of one run, from its current position to its last epoch."""

    job: Job
    state: State
    splits: Mapping[str, SplitData]
    autocast: Autocast
    emit: Emit
    readings: list[Reading] = field(default_factory=list)
    """Losses that are being copied from the device."""
    order: Tensor = field(default_factory=lambda: torch.empty(0))
    """The state of the order's generator when the epoch began: resuming draws the same order again."""

    def fit(self) -> Position:
        """Train through all stages, or the rest of them.

        After every epoch, every few minutes, and if a signal stops it, the run's folder holds all that the next
        step depends on; it always holds the weights chosen so far.
        Raises TrainingError if a loss is not finite, Stopped if a signal has come and everything is saved.
        """
        job, position = self.job, self.state.position
        interruption = job.session.interruption
        pairs = zip(job.plan.stages, cast(Iterable[Loss], self.state.losses), strict=True)
        epochs = [(stage, loss, epoch) for stage, loss in pairs for epoch in range(stage.epochs)]
        questions = len(self.splits["train"])
        seen = min(questions, position.batches * job.plan.recipe.batch_size)
        self.emit(RunStarted(str(job.run.folder), len(epochs), questions, position.epochs, seen, position.steps))
        # A signal in the middle of a step would leave weights and optimiser half-updated, so it is only recorded.
        with interruption.put_off(), explaining_out_of_memory(job.session.device):
            for stage, loss, epoch in epochs[position.epochs :]:
                self.order = self.state.order.get_state()
                try:
                    record = self._train_epoch(stage, loss, epoch) | self._evaluate()
                except Stopped:  # raised between two batches, so the state is consistent; of other errors it is not
                    self._save()
                    raise
                with interruption.saving():
                    self._finish_epoch(stage, record)
        if job.session.choose_action() == Action.STOP:
            interruption.stop()
        return position

    def _train_epoch(self, stage: Stage, loss: Loss, epoch: int) -> dict[str, Any]:
        """Train on each batch of an epoch, or the rest of it; return its record."""
        plan, session, train = self.job.plan, self.job.session, self.splits["train"]
        state, position, recipe = self.state, self.state.position, plan.recipe
        # Also if the epoch is resumed: the order is drawn again, and the batches that are done are skipped.
        batches = torch.split(train.draw_order(recipe.sampling, state.order), recipe.batch_size)
        began = time.perf_counter() - position.seconds  # with the time before an interruption
        with calling([*plan.losses, *plan.parts], "starting an epoch"):
            _start_epoch(loss, epoch, stage, continues=position.batches > 0)
        criterion, backward = Criterion(loss), BackwardPass(state, session, self.autocast)
        state.model.train()
        shares = [session.processes.share(batch) for batch in batches[position.batches :]]
        for number, batch in enumerate(train.batches(shares, with_targets=True), position.batches):
            # The schedule covers a stage, and each stage has its own: its weights change at its beginning.
            lr = learning_rate(recipe, epoch * len(batches) + number, stage.epochs * len(batches))
            for group in state.optimizer.param_groups:
                group["lr"] = lr
            state.seed_batch(number)
            with calling(plan.parts, "training"):
                train_batch(batch, criterion, backward, recipe.clip)
            position.batches = number + 1
            self.emit(BatchTrained(len(batches[number])))  # of all processes, not only this one's share
            action = session.choose_action()
            # Before weights are saved all losses are read: one that is not finite ends the run.
            pauses = action != Action.CONTINUE or position.batches == len(batches)
            if pauses or position.batches % STEPS_BETWEEN_READINGS == 0:
                self._read(criterion, lr, wait=pauses)
                position.seconds = time.perf_counter() - began
            if action == Action.STOP:
                session.interruption.stop()
            if action == Action.SAVE:
                with session.interruption.saving():
                    self._save()
        last = learning_rate(recipe, (epoch + 1) * len(batches) - 1, stage.epochs * len(batches))
        return {"epoch": position.epochs + 1, "stage": stage.name} | self._means() | {"lr": last}

    def _read(self, criterion: Criterion, lr: float, *, wait: bool) -> None:
        """Begin to read the losses since the last time; add up those that have arrived, or wait for all."""
        position = self.state.position
        if criterion.steps or criterion.accuracies:
            self.readings.append(criterion.read(position.steps, lr))
            position.steps += len(self.readings[-1].steps)
        while self.readings and (wait or self.readings[0].is_ready()):
            reading = self.readings.pop(0)
            tally = reading.result()
            position.tally.add(tally)
            means = tally.means()
            if "loss" in means:
                self.emit(StepsMeasured(reading.last_step, means | {"lr": reading.lr}))

    def _means(self) -> dict[str, float]:
        """Return the means over an epoch and all processes. Raises PluginError if there was no loss at all."""
        sums = torch.tensor(list(vars(self.state.position.tally).values()), dtype=torch.float64)
        tally = Tally(*self.job.session.processes.sum_numbers(sums).tolist())
        if not tally.steps:
            plugin = self.job.plan.chain[0].plugin
            raise PluginError(f"{describe(plugin)}: it yielded no loss in a whole epoch; {advice(plugin)}")
        return tally.means()

    def _evaluate(self) -> dict[str, float]:
        """Return soft accuracies on the in-domain validation split, and on the test split only if asked to."""
        config, session = self.job.plan.config, self.job.session
        watched = ["val"] if "val" in self.splits else []
        if config.track_test or config.select == "test":
            watched.append("test")
        # Running statistics, as of batch normalisation, come from each process's own share of the batches.
        session.processes.average_buffers(self.state.model, self.state.losses)
        began, accuracies = time.perf_counter(), {}
        # It may take long. A single process still stops between two batches; several finish together.
        with session.interruption.saving():
            for split in watched:
                data = self.splits[split]
                chosen = answer(self.job, self.state.model, data)
                accuracies[f"{split}_accuracy"] = mean_soft_target(data, chosen.answers_N)
        self.state.position.seconds += time.perf_counter() - began
        return accuracies

    def _finish_epoch(self, stage: Stage, record: dict[str, Any]) -> None:
        """Write an epoch to the run's folder: its weights, if chosen, its record, and the state."""
        job, position = self.job, self.state.position
        _check_weights(self.state)
        record["seconds"] = max(0.001, round(position.seconds, 3))
        record |= measure_gpu_memory()
        position.finish_epoch()
        if self._is_chosen(stage, record):
            position.chosen_epoch = position.epochs
            if job.session.processes.writes:
                save_weights(self.state.model, job.run.weights_file)
        if job.session.processes.writes:
            job.run.append_epoch(record)
        self.order = self.state.order.get_state()  # `_save` now belongs to the next epoch
        self.emit(EpochFinished(position.steps, record))
        # Last: after a kill before it, the epoch is repeated; `keep_epochs` and the logs drop what is repeated.
        self._save()

    def _is_chosen(self, stage: Stage, record: Mapping[str, Any]) -> bool:
        """Return whether to keep an epoch's weights: the latest, or in the last stage the best on a split."""
        plan, position = self.job.plan, self.state.position
        if plan.config.select == "last" or stage != plan.stages[-1]:  # the first stage is no final result
            return True
        accuracy = record[f"{plan.config.select}_accuracy"]
        if accuracy <= position.chosen_accuracy:
            return False
        position.chosen_accuracy = accuracy
        return True

    def _save(self) -> None:
        """Save all that the next step depends on. Raises TrainingError, and saves nothing, if it is not finite."""
        _check_weights(self.state)
        session = self.job.session
        saved = self.state.capture(session.processes, self.order)
        if session.processes.writes:
            save_state(saved, self.job.run.resume_file)
        session.record_save()


def train_batch(batch: Batch, criterion: Criterion, backward: BackwardPass, clip: float | None) -> None:
    """Step the optimiser for each loss of a batch: once, unless the backbone has a procedure of its own."""
    state, processes = backward.state, backward.session.processes
    for loss in processes.sum_losses(backward.losses(batch, criterion), state.parameters):
        if clip is not None:  # by the norm over all parameters together, after the sum over processes
            nn.utils.clip_grad_norm_(state.parameters, clip)
        state.optimizer.step()
        criterion.finish_step(loss)
    criterion.first = True


def answer(job: Job, model: Backbone, data: SplitData) -> Chosen:
    """Answer every question of a split, each in one of the processes.

    Raises Stopped if a signal has come, unless there are several processes: none may stop ahead of the others.
    """
    plan, processes = job.plan, job.session.processes
    after_batch = job.session.interruption.check if processes.count == 1 else lambda: None
    asked = processes.questions_of(len(data))
    batch_size = evaluation_batch(plan.recipe.batch_size, data)
    with calling(plan.parts, "answering"):
        own = predict(model, data, batch_size, plan.objective, asked, after_batch)
    parts = processes.gather((own.answers_N, own.confidences_N))
    return Chosen(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _start_epoch(loss: Loss, epoch: int, stage: Stage, *, continues: bool) -> None:
    """Call a loss's `start_epoch`; in the middle of an epoch, keep what it has counted since."""
    # `start_epoch` may reset what a loss has counted, but the counts of the batches that are done still hold.
    saved = copy.deepcopy(loss.state_dict()) if continues else None
    loss.start_epoch(epoch, stage.epochs)
    if saved is not None:
        loss.load_state_dict(saved)


def _check_weights(state: State) -> None:
    """Raise TrainingError unless all weights are finite: a gradient may be infinite although the loss is not."""
    finite = torch.stack([parameter.detach().isfinite().all() for parameter in state.parameters])
    if not finite.all():
        where = f"batch {state.position.batches} of epoch {state.position.epochs + 1}"
        raise TrainingError(f"the weights are no longer finite at {where}; those of the latest checkpoint are kept")

"""Answers from a model, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from vqabench.api import Backbone
from vqabench.data.annotations import Prediction
from vqabench.data.batches import SplitData
from vqabench.data.dataset import Dataset
from vqabench.data.memory import is_out_of_memory
from vqabench.data.placement import PlacedFeatures
from vqabench.data.prepared import Prepared
from vqabench.errors import TrainingError
from vqabench.evaluation.scores import Scores, score

NOT_A_NUMBER = -1
"""Stands for the answer of a question whose logits have no largest one."""
AT_ONCE = {"cpu": 1, "cuda": 4}
"""Batches of training that are answered in one go: nothing has to be kept for a backward pass."""


def evaluation_batch(batch_size: int, data: SplitData) -> int:
    """Give the size of batches to answer with, for a model that is trained with batches of `batch_size`."""
    return AT_ONCE[data.device.type] * batch_size


def load_split(
    model: Backbone, prepared: Prepared, dataset: Dataset, split: str, features: PlacedFeatures
) -> SplitData:
    """Put a split beside its features, with what the backbone's own tokeniser makes of its questions."""
    texts = {question.question_id: question.question for question in dataset.read_questions(split)}
    ids = prepared.splits[split].question_ids.tolist()
    extras = model.prepare_questions([texts[question_id] for question_id in ids])
    return SplitData(prepared, split, features, extras)


def predict(
    model: Backbone,
    data: SplitData,
    batch_size: int,
    autocast: AbstractContextManager[object] | None = None,
    questions: Tensor | None = None,
    after_batch: Callable[[], object] = lambda: None,
) -> Tensor:
    """Answer every question of a split, in its order, or those at some indices.

    Gives int64 [N] indices into the vocabulary, on the CPU. The model is asked in evaluation mode, and is left in
    the mode it was in. Raises TrainingError where its logits are not numbers: their largest would be the first
    answer.
    """
    asked = torch.arange(len(data)) if questions is None else questions
    if len(asked) == 0:  # one of several processes may have none
        return asked
    was_training = model.training
    model.eval()
    chosen: list[Tensor] = []
    try:
        with torch.inference_mode(), autocast or nullcontext():
            while (done := sum(map(len, chosen))) < len(asked):
                parts = torch.split(asked[done:], batch_size)
                batch_size = _answer(model, data, parts, chosen, after_batch)
    finally:
        model.train(was_training)
    answers = torch.cat(chosen).cpu()
    if (answers == NOT_A_NUMBER).any():
        raise TrainingError("the model's answers are not numbers (NaN)")
    return answers


def _answer(
    model: Backbone,
    data: SplitData,
    parts: Sequence[Tensor],
    chosen: list[Tensor],
    after_batch: Callable[[], object],
) -> int:
    """Answer batches, as many as memory is enough for; give the size to go on with."""
    try:
        for batch in data.batches(parts, with_targets=False):
            largest, indices = model(batch).logits_BA.max(1)
            chosen.append(indices.masked_fill(largest.isnan(), NOT_A_NUMBER))
            after_batch()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(parts[0]) == 1:
            raise
        return len(parts[0]) // 2
    return len(parts[0])


def spell(chosen: Tensor, prepared: Prepared, split: str) -> list[Prediction]:
    """Turn a split's chosen answers into the official results format."""
    answers = prepared.spec.answers
    ids = prepared.splits[split].question_ids.tolist()
    return [Prediction(number, answers[answer]) for number, answer in zip(ids, chosen.tolist(), strict=True)]


def score_split(predictions: list[Prediction], dataset: Dataset, split: str) -> Scores:
    """Score predictions against the annotations of the questions that they answer."""
    answers = {prediction.question_id: prediction.answer for prediction in predictions}
    _, table = dataset.read_split(split)
    return score(answers, table.choose(answers))


def mean_soft_target(data: SplitData, chosen: Tensor, batch_size: int = 4096) -> float:
    """Give the mean soft target of the chosen answers, in percent.

    It follows the official accuracy closely, and needs no annotations: meant for curves, not for results.
    """
    total = 0.0
    for indices in torch.split(torch.arange(len(data)), batch_size):
        on_device = indices.to(data.device)
        targets_BA = data.targets(on_device)
        total += float(targets_BA.gather(1, chosen[indices].to(data.device)[:, None]).sum())
    return 100 * total / len(data)

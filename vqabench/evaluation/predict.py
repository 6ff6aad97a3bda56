"""Answers from a model, and their scores."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from vqabench.api import Backbone
from vqabench.data.annotations import Prediction
from vqabench.data.batches import SplitData
from vqabench.data.dataset import Dataset
from vqabench.data.prepared import Prepared
from vqabench.errors import TrainingError
from vqabench.evaluation.scores import Scores, score


def load_split(
    model: Backbone, prepared: Prepared, dataset: Dataset, split: str, device: torch.device
) -> SplitData:
    """Put a split on a device, with what the backbone's own tokeniser makes of its questions."""
    texts = {question.question_id: question.question for question in dataset.read_questions(split)}
    ids = prepared.splits[split].question_ids.tolist()
    extras = model.prepare_questions([texts[question_id] for question_id in ids])
    return SplitData(prepared, split, device, extras)


def predict(
    model: Backbone,
    data: SplitData,
    batch_size: int,
    autocast: AbstractContextManager[object] | None = None,
) -> Tensor:
    """Answer every question of a split, in its order: int64 [N] indices into the vocabulary, on the CPU.

    The model is asked in evaluation mode, and is left in the mode it was in. Raises TrainingError where its
    logits are not numbers: their largest would be the first answer.
    """
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast or nullcontext():
        largest = [model(batch).logits_BA.max(1) for batch in data.in_order(batch_size)]
    model.train(was_training)
    if torch.cat([values for values, _ in largest]).isnan().any():
        raise TrainingError("the model's answers are not numbers (NaN)")
    return torch.cat([indices for _, indices in largest]).cpu()


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

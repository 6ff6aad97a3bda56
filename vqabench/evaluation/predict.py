"""Answers from a model, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqabench.api import Backbone, Output
from vqabench.data.batches.placement import PlacedFeatures
from vqabench.data.batches.split_data import SplitData
from vqabench.data.catalog.dataset import Dataset, check_questions
from vqabench.data.prepare.prepared import Prepared
from vqabench.data.vqa.annotations import Prediction, SurePrediction
from vqabench.errors import OutputError, TrainingError
from vqabench.evaluation.scores import Scores, score
from vqabench.files.resources import is_out_of_memory


def check_output(output: object, shape: tuple[int, int], culprit: object = None) -> None:
    """Check an output for logits of this shape: a row for each question of the batch, a column for each answer.

    Raises OutputError.
    """
    if not isinstance(output, Output):
        raise OutputError(f"a backbone must return an Output, not {_name(output)}", culprit)
    logits: dict[str, object] = {"logits_BA": output.logits_BA}
    if output.training_logits_BA is not None:
        logits["training_logits_BA"] = output.training_logits_BA
    for kind, given in (("auxiliary", output.auxiliary), ("penalties", output.penalties)):
        if not isinstance(given, Mapping):
            raise OutputError(f"its {kind} must be a mapping, not {_name(given)}", culprit)
    for name, pair in output.auxiliary.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise OutputError(f"its auxiliary[{name!r}] must be a pair of logits and weight", culprit)
        logits[f"auxiliary[{name!r}]"] = pair[0]
    for name, one in logits.items():
        require_tensor(one, shape, f"its {name}", culprit)
    for name, penalty in output.penalties.items():
        require_tensor(penalty, (), f"its penalties[{name!r}]", culprit)


def require_tensor(given: object, shape: tuple[int, ...], what: str, culprit: object = None) -> None:
    """Raise OutputError unless something is a floating-point tensor of this shape."""
    if isinstance(given, Tensor) and given.is_floating_point() and tuple(given.shape) == shape:
        return
    wanted = "a scalar" if not shape else f"{list(shape)} ({shape[0]} questions, {shape[1]} answers)"
    raise OutputError(f"{what} must be a floating-point tensor, {wanted}, not {_name(given)}", culprit)


def _name(given: object) -> str:
    if not isinstance(given, Tensor):
        return f"a {type(given).__name__}"
    return f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}"


NOT_A_NUMBER = -1
"""Stands for the answer to a question whose largest logit is not finite."""
DIGITS = 4
"""Decimals of a stored confidence."""
AT_ONCE = {"cpu": 1, "cuda": 4}
"""Factor on the training batch size: answering keeps nothing for a backward pass."""


def evaluation_batch(batch_size: int, data: SplitData) -> int:
    """Return the batch size for answering, for a model that is trained with batches of `batch_size`."""
    return AT_ONCE[data.device.type] * batch_size


def load_split(
    model: Backbone, prepared: Prepared, dataset: Dataset, split: str, features: PlacedFeatures
) -> SplitData:
    """Return a split with its features and the output of the backbone's own tokeniser for its questions.

    Raises VqabenchError if the questions have changed since the data was prepared.
    """
    texts = {question.question_id: question.question for question in dataset.read_questions(split)}
    check_questions(prepared.question_hashes)
    ids = prepared.splits[split].question_ids.tolist()
    # After the check above: a changed question must not meet the features of the old one.
    extras = model.prepare_questions([texts[question_id] for question_id in ids])
    _check_extras(extras, len(ids), model)
    return SplitData(prepared, split, features, extras)


def _check_extras(extras: object, questions: int, model: Backbone) -> None:
    """Raise OutputError unless a tokeniser returned tensors with a row for each question."""
    if not isinstance(extras, Mapping):
        message = f"prepare_questions must return a mapping of names to tensors, not {_name(extras)}"
        raise OutputError(message, model)
    for name, rows in extras.items():
        if not isinstance(rows, Tensor) or rows.ndim == 0 or len(rows) != questions:
            message = f"its prepare_questions must return a row for each of {questions} questions"
            raise OutputError(f"{message}; {name!r} is {_name(rows)}", model)


@dataclass(frozen=True)
class Chosen:
    """A model's answers to N questions, on the CPU."""

    answers_N: Tensor
    """int64: indices into the vocabulary."""
    confidences_N: Tensor
    """float32, [0, 1]: the model's probabilities: a sigmoid for `bce`, else a softmax."""


def predict(
    model: Backbone,
    data: SplitData,
    batch_size: int,
    objective: str,
    questions: Tensor | None = None,
    after_batch: Callable[[], object] = lambda: None,
) -> Chosen:
    """Answer every question of a split, in its order, or those at the indices `questions`.

    The model answers in evaluation mode, and is left in the mode it was in. It computes in float32 whatever it was
    trained in: bfloat16 has so few digits that the two best answers of 2 to 5 % of the questions tie, and each tie
    would go to the answer that is more frequent in training.

    Raises OutputError if an output is malformed, so that no answer goes to another question; TrainingError if a
    largest logit is not finite: the first answer would be chosen.
    """
    asked = torch.arange(len(data)) if questions is None else questions
    if len(asked) == 0:  # one of several processes may have no questions
        return Chosen(asked, torch.empty(0))
    # Restored below: the training loop evaluates between epochs.
    was_training = model.training
    model.eval()
    chosen: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.inference_mode():
            # Each pass answers until memory runs out, then continues with half the batch size.
            while (done := sum(len(answers) for answers, _ in chosen)) < len(asked):
                parts = torch.split(asked[done:], batch_size)
                batch_size = _answer(model, data, parts, objective, chosen, after_batch)
    finally:
        model.train(was_training)
    answers, confidences = (torch.cat(parts).cpu() for parts in zip(*chosen, strict=True))
    unclear = int((answers == NOT_A_NUMBER).sum())
    if unclear:
        raise TrainingError(
            f"the model's answers to {unclear} of {len(answers)} questions are undefined: their largest logit is "
            "not a finite number (NaN or infinite)"
        )
    return Chosen(answers, confidences)


def _answer(
    model: Backbone,
    data: SplitData,
    parts: Sequence[Tensor],
    objective: str,
    chosen: list[tuple[Tensor, Tensor]],
    after_batch: Callable[[], object],
) -> int:
    """Answer batches until memory runs out; return the batch size to continue with."""
    try:
        for batch in data.batches(parts, with_targets=False):
            # Features may be stored in half precision; answers are computed in float32 (see `predict`).
            output = model(batch.replace(regions_BRV=batch.regions_BRV.float()))
            check_output(output, (len(batch), data.answers), model)
            logits_BA = output.logits_BA.float()
            largest, indices = logits_BA.max(1)
            # Only the probability of the chosen answer is needed, so no softmax over all answers.
            sure = largest.sigmoid() if objective == "bce" else (largest - logits_BA.logsumexp(1)).exp()
            # The maximum of NaN has an arbitrary index: marked here, counted and refused in `predict`.
            chosen.append((indices.masked_fill(~largest.isfinite(), NOT_A_NUMBER), sure))
            after_batch()
    except (RuntimeError, MemoryError) as error:
        # A single question that does not fit will not fit later.
        if not is_out_of_memory(error) or len(parts[0]) == 1:
            raise
        return len(parts[0]) // 2
    return len(parts[0])


def spell(chosen: Chosen, prepared: Prepared, split: str) -> list[SurePrediction]:
    """Return a split's answers in the official results format, with confidences."""
    answers = prepared.spec.answers
    ids = prepared.splits[split].question_ids.tolist()
    given = zip(ids, chosen.answers_N.tolist(), chosen.confidences_N.tolist(), strict=True)
    return [SurePrediction(number, answers[answer], round(sure, DIGITS)) for number, answer, sure in given]


def score_split(predictions: Sequence[Prediction], prepared: Prepared, dataset: Dataset, split: str) -> Scores:
    """Score predictions against the annotations of the questions that they answer.

    Raises VqabenchError if the annotations have changed since the data was prepared.
    """
    answers = {prediction.question_id: prediction.answer for prediction in predictions}
    try:
        _, table = dataset.read_split(split)
    finally:  # if the files have changed, this error explains more than that of reading them
        check_questions(prepared.question_hashes)
    return score(answers, table.choose(answers))


def mean_soft_target(data: SplitData, chosen: Tensor, batch_size: int = 4096) -> float:
    """Return the mean soft target of the chosen answers, in percent.

    It follows the official accuracy closely, and needs no annotations: meant for curves, not for results.
    """
    total = 0.0
    for indices in torch.split(torch.arange(len(data)), batch_size):
        on_device = indices.to(data.device)
        targets_BA = data.targets(on_device)
        total += float(targets_BA.gather(1, chosen[indices].to(data.device)[:, None]).sum())
    return 100 * total / len(data)

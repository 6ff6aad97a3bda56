from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiny import write_tiny
from vqabench.api import Backbone, Batch, DataSpec, Output
from vqabench.data.batches.placement import PlacedFeatures
from vqabench.data.batches.split_data import SplitData
from vqabench.data.prepare.prepared import prepare
from vqabench.evaluation.predict import predict, spell
from vqabench.paths import Paths


class Fixed(Backbone):
    """Answers by a table of logits, a row for each question's number modulo its rows."""

    def __init__(self, spec: DataSpec, logits_XA: Tensor) -> None:
        super().__init__(spec)
        self.logits_XA = logits_XA

    def forward(self, batch: Batch) -> Output:
        return Output(logits_BA=self.logits_XA[batch.question_ids_B % len(self.logits_XA)])


@pytest.mark.parametrize("objective", ["ce", "bce"])
def test_a_confidence_is_the_probability_that_the_objective_reads_from_the_logits(
    tmp_path: Path, objective: str
) -> None:
    paths = Paths(data=tmp_path, catalog=write_tiny(tmp_path / "own"))
    prepared = prepare(paths.dataset("tiny"), lambda _: None)
    logits_XA = torch.randn(7, len(prepared.spec.answers), generator=torch.Generator().manual_seed(0))
    data = SplitData(prepared, "test", PlacedFeatures(prepared.features, torch.device("cpu")))
    chosen = predict(Fixed(prepared.spec, logits_XA), data, 5, objective)
    logits_NA = logits_XA[data.question_ids % 7]
    probabilities_NA = logits_NA.softmax(1) if objective == "ce" else logits_NA.sigmoid()
    assert torch.equal(chosen.answers_N, probabilities_NA.argmax(1))
    assert torch.allclose(chosen.confidences_N, probabilities_NA.amax(1))
    spelled = spell(chosen, prepared, "test")
    assert [one.confidence for one in spelled] == [round(p, 4) for p in chosen.confidences_N.tolist()]


class Rounding(Backbone):
    """A linear layer, which autocast computes in bfloat16, over numbers of each question's own."""

    def __init__(self, spec: DataSpec, answers: int) -> None:
        super().__init__(spec)
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(answers, 16, generator=generator))
        self.numbers = torch.nn.Parameter(torch.randn(900, 16, generator=generator))

    def forward(self, batch: Batch) -> Output:
        return Output(logits_BA=torch.nn.functional.linear(self.numbers[batch.question_ids_B % 900], self.weight))


def test_answers_of_a_run_in_bfloat16_do_not_tie(tmp_path: Path) -> None:
    """Computed in bfloat16, the two largest logits of some questions are equal; in scoring they never are."""
    paths = Paths(data=tmp_path, catalog=write_tiny(tmp_path / "own", {"train": 60, "val": 12, "test": 900}))
    prepared = prepare(paths.dataset("tiny"), lambda _: None)
    features = PlacedFeatures(prepared.features, torch.device("cpu"), dtype=torch.bfloat16)
    data = SplitData(prepared, "test", features)
    data.answers = 400  # as if the vocabulary were so large
    model = Rounding(prepared.spec, 400)
    scored: list[Tensor] = []
    hook = model.register_forward_hook(lambda _, __, output: scored.append(output.logits_BA))
    predict(model, data, 100, "ce")
    hook.remove()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rounded_NA = model(data.batch(torch.arange(len(data)), with_targets=False)).logits_BA
    assert count_ties(rounded_NA) > 20
    assert count_ties(torch.cat(scored)) == 0


def count_ties(logits_NA: Tensor) -> int:
    """Count the rows whose two largest numbers are equal."""
    first_N, second_N = logits_NA.float().topk(2, dim=1).values.unbind(1)
    return int((first_N == second_N).sum())

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiny import write_tiny
from vqabench.api import Backbone, Batch, DataSpec, Output
from vqabench.data.batches import SplitData
from vqabench.data.placement import PlacedFeatures
from vqabench.data.prepared import prepare
from vqabench.evaluation.predict import predict, spell
from vqabench.workflows.places import Places


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
    places = Places(data=tmp_path, catalog=write_tiny(tmp_path / "own"))
    prepared = prepare(places.dataset("tiny"), lambda _: None)
    logits_XA = torch.randn(7, len(prepared.spec.answers), generator=torch.Generator().manual_seed(0))
    data = SplitData(prepared, "test", PlacedFeatures(prepared.features, torch.device("cpu")))
    chosen = predict(Fixed(prepared.spec, logits_XA), data, 5, objective)
    logits_NA = logits_XA[data.question_ids % 7]
    probabilities_NA = logits_NA.softmax(1) if objective == "ce" else logits_NA.sigmoid()
    assert torch.equal(chosen.answers_N, probabilities_NA.argmax(1))
    assert torch.allclose(chosen.confidences_N, probabilities_NA.amax(1))
    spelled = spell(chosen, prepared, "test")
    assert [one.confidence for one in spelled] == [round(p, 4) for p in chosen.confidences_N.tolist()]

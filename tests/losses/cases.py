"""The golden cases, as a data spec, a batch and logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqabench.api import Batch, DataSpec

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "losses.json").read_text(encoding="utf-8")
)["cases"]


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def make_spec(counts_TA: Tensor, questions_T: Tensor | None = None) -> DataSpec:
    types, answers = counts_TA.shape
    return DataSpec(
        answers=tuple(f"answer {number}" for number in range(answers)),
        words=("<padding>", "<unknown>", "word"),
        question_types=tuple(f"type {number}" for number in range(types)),
        regions=1,
        region_width=1,
        question_length=1,
        answer_counts_TA=counts_TA,
        mean_targets_TA=torch.full_like(counts_TA, 1 / answers),
        questions_T=torch.ones(types, dtype=torch.int64) if questions_T is None else questions_T,
    )


def make_batch(types_B: Tensor, targets_BA: Tensor | None) -> Batch:
    size = len(types_B)
    return Batch(
        question_ids_B=torch.arange(size),
        question_types_B=types_B,
        tokens_BL=torch.full((size, 1), 2),
        word_mask_BL=torch.ones(size, 1, dtype=torch.bool),
        type_words_BL=torch.zeros(size, 1, dtype=torch.bool),
        regions_BRV=torch.zeros(size, 1, 1, dtype=torch.float64),
        boxes_BR4=torch.zeros(size, 1, 4),
        region_mask_BR=torch.ones(size, 1, dtype=torch.bool),
        targets_BA=targets_BA,
    )


def load_case(case: dict[str, Any]) -> tuple[DataSpec, Batch, Tensor]:
    """Return the case's spec and batch, and its logits as a leaf that takes a gradient."""
    spec = make_spec(tensor(case["answer_counts_per_type"]))
    batch = make_batch(torch.tensor(case["question_type"]), tensor(case["targets"]))
    return spec, batch, tensor(case["logits"]).requires_grad_()

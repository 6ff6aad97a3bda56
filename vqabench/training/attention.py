"""Attention of trained models over the regions of a few questions' images (Fig. 9)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from vqabench.data.batches.placement import PlacedFeatures
from vqabench.data.catalog.dataset import Dataset
from vqabench.data.prepare.prepared import Prepared
from vqabench.evaluation.predict import check_output, load_split
from vqabench.events import Emit
from vqabench.results import Run
from vqabench.training.device import number_type
from vqabench.training.guard import calling
from vqabench.training.model import load_model
from vqabench.training.provenance import recall_plan

Attention = tuple[float, ...]


def attend(
    run: Run, dataset: Dataset, prepared: Prepared, split: str, rows: Sequence[int], emit: Emit
) -> list[Attention] | None:
    """Return a run's attention over the regions of each question's image, which sums to 1.

    The questions are given by their rows in a prepared split. None if the backbone has no attention. Computed on
    the CPU. Raises InputError if the weights or a plugin are missing or damaged.
    """
    manifest = run.read_manifest()
    device, precision = torch.device("cpu"), manifest.precision
    plan = recall_plan(manifest)
    model = load_model(run, prepared, emit, plan).eval()
    few = dataclasses.replace(prepared, splits={split: prepared.splits[split].take(rows)})
    features = PlacedFeatures(prepared.features, device, "disk", number_type(precision))
    with calling(plan.parts, "answering"), torch.inference_mode():
        data = load_split(model, few, dataset, split, features)
        batch = data.batch(torch.arange(len(data)), with_targets=False)
        output = model(batch.replace(regions_BRV=batch.regions_BRV.float()))
        check_output(output, (len(batch), data.answers), model)
    attention_BR = output.attention_BR
    if attention_BR is None:
        return None
    pairs = zip(attention_BR.float(), batch.region_mask_BR, strict=True)
    return [tuple(own[real].tolist()) for own, real in pairs]

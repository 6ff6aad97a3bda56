"""Make batches on a device from prepared arrays."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vqabench.api import PADDING, Batch
from vqabench.data.batches.placement import PlacedFeatures
from vqabench.data.prepare.preparation import SplitArrays
from vqabench.data.prepare.prepared import Prepared
from vqabench.errors import InputError


class SplitData:
    """One split, from which batches are made. Questions and sparse targets are on the device of the features.

    `extras` is what the backbone's own `prepare_questions` returned for all questions of the split.
    """

    def __init__(
        self, prepared: Prepared, split: str, features: PlacedFeatures, extras: Mapping[str, Tensor] | None = None
    ) -> None:
        arrays = prepared.splits[split]
        self.features = features
        self.device = device = features.device
        self.answers = len(prepared.spec.answers)
        self.image_rows = arrays.image_rows
        self.question_ids = torch.from_numpy(arrays.question_ids).to(device)
        self.types = torch.from_numpy(arrays.types).to(device)
        self.tokens = torch.from_numpy(arrays.tokens.astype(np.int64)).to(device)
        self.type_word_counts = torch.from_numpy(arrays.type_word_counts).to(device)
        self.target_answers, self.target_values = (part.to(device) for part in _pad_targets(arrays))
        self.extras = {name: rows.to(device) for name, rows in (extras or {}).items()}

    def __len__(self) -> int:
        return len(self.image_rows)

    def with_other_images(self, seed: int) -> Self:
        """Return the same questions, each about another image of the split; those of one image about the same one.

        Raises InputError if there is only one image.
        """
        rows = np.unique(self.image_rows)
        if len(rows) < 2:
            raise InputError("there is no other image to pair the questions with")
        order = np.random.default_rng(seed).permutation(rows)
        other = np.zeros(rows.max() + 1, np.int64)
        other[order] = np.roll(order, 1)
        shuffled = copy.copy(self)
        shuffled.image_rows = other[self.image_rows]
        return shuffled

    def batches(self, parts: Sequence[Tensor], *, with_targets: bool) -> Iterator[Batch]:
        """Yield a batch for each part, a tensor of indices (int64, on the CPU)."""
        sizes = [len(part) for part in parts]
        order = torch.cat(list(parts)) if parts else torch.empty(0, dtype=torch.int64)
        rows = torch.from_numpy(self.image_rows[order.numpy()])
        # In one copy: many small ones would each make the program wait for the device.
        indices, near = torch.split(order.to(self.device), sizes), torch.split(rows.to(self.device), sizes)
        wanted = near if self.features.resident is not None else torch.split(rows, sizes)
        for part, some, regions in zip(indices, near, self.features.gather(wanted), strict=True):
            yield self._batch(part, some, regions, with_targets)

    def batch(self, indices: Tensor, *, with_targets: bool) -> Batch:
        """Return the questions at `indices` (int64, on the CPU)."""
        (only,) = self.batches([indices], with_targets=with_targets)
        return only

    def _batch(self, indices: Tensor, rows: Tensor, regions_BRV: Tensor, with_targets: bool) -> Batch:
        tokens = self.tokens[indices]
        words = tokens != PADDING
        # Counted from the first word, so that padding in front is negative and never a type word.
        position = torch.cumsum(words, dim=1) - 1
        real = torch.arange(regions_BRV.shape[1], device=self.device) < self.features.counts[rows, None]
        objects = self.features.object_ids
        return Batch(
            question_ids_B=self.question_ids[indices],
            question_types_B=self.types[indices],
            tokens_BL=tokens,
            word_mask_BL=words,
            type_words_BL=words & (position < self.type_word_counts[indices, None]),
            regions_BRV=regions_BRV,
            boxes_BR4=self.features.boxes[rows],
            region_mask_BR=real,
            object_ids_BR=None if objects is None else objects[rows].long(),
            targets_BA=self.targets(indices) if with_targets else None,
            answered_B=(self.target_values[indices] > 0).any(1) if with_targets else None,
            extras={name: values[indices] for name, values in self.extras.items()},
        )

    def targets(self, on_device: Tensor) -> Tensor:
        """Scatter the sparse targets of some questions: [B, A] in [0, 1]."""
        dense = torch.zeros(len(on_device), self.answers, device=self.device)
        return dense.scatter_add_(1, self.target_answers[on_device], self.target_values[on_device])

    def draw_order(self, sampling: str, generator: torch.Generator) -> Tensor:
        """Draw the questions of an epoch: int64 [N] indices.

        `shuffled`: each once; `balanced`: with replacement, each type equally often, and within it each answer.
        """
        if sampling == "balanced":
            return torch.multinomial(self.balance, len(self), replacement=True, generator=generator)
        return torch.randperm(len(self), generator=generator)

    @cached_property
    def balance(self) -> Tensor:
        """Return the probability of each question if types, and answers within each, are equally frequent: [N].

        The answer of a question is the one with the largest target; questions without one in the vocabulary are a
        group of their own.
        """
        types = self.types.cpu().numpy()
        largest = self.target_values.cpu().numpy().argmax(1)[:, None]
        values, answers = (
            np.take_along_axis(part.cpu().numpy(), largest, 1)[:, 0]
            for part in (self.target_values, self.target_answers)
        )
        groups, group_of, sizes = np.unique(
            types * (self.answers + 1) + np.where(values > 0, answers, self.answers),
            return_inverse=True,
            return_counts=True,
        )
        groups_of_type = np.bincount(groups // (self.answers + 1))
        return torch.from_numpy(1 / (len(np.unique(types)) * groups_of_type[types] * sizes[group_of]))


def _pad_targets(arrays: SplitArrays) -> tuple[Tensor, Tensor]:
    """Return sparse targets as two arrays [N, most answers of a question]; padding adds 0 to answer 0."""
    lengths = np.diff(arrays.starts)
    width = max(1, int(lengths.max(initial=0)))
    used = np.arange(width) < lengths[:, None]
    answers = np.zeros(used.shape, np.int64)
    values = np.zeros(used.shape, np.float32)
    answers[used], values[used] = arrays.target_answers, arrays.target_values
    return torch.from_numpy(answers), torch.from_numpy(values)

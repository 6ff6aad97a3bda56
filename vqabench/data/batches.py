"""From prepared arrays to batches on a device."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqabench.api import PADDING, Batch
from vqabench.data.preparation import SplitArrays
from vqabench.data.prepared import Prepared
from vqabench.errors import InputError


class SplitData:
    """One split, ready to give batches. Questions and sparse targets live on the device.

    Region features stay where they are, a memory-mapped file, and go to the device batch by batch.
    `extras` are what the backbone's own `prepare_questions` made of all the questions of the split.
    """

    def __init__(
        self, prepared: Prepared, split: str, device: torch.device, extras: Mapping[str, Tensor] | None = None
    ) -> None:
        arrays = prepared.splits[split]
        self.device = device
        self.features = prepared.features
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
        """Give the same questions, each about another image of the split; those of one image about the same one.

        Raises InputError where there is but one image.
        """
        rows = np.unique(self.image_rows)
        if len(rows) < 2:
            raise InputError("there is no other image that the questions could be asked about")
        order = np.random.default_rng(seed).permutation(rows)
        other = np.zeros(rows.max() + 1, np.int64)
        other[order] = np.roll(order, 1)
        shuffled = copy.copy(self)
        shuffled.image_rows = other[self.image_rows]
        return shuffled

    def batch(self, indices: Tensor, *, with_targets: bool) -> Batch:
        """Gather the questions at `indices` (int64, on the CPU)."""
        on_device = indices.to(self.device)
        tokens = self.tokens[on_device]
        words = tokens != PADDING
        # Counted from the first word, so that padding in front is negative and never a type word.
        position = torch.cumsum(words, dim=1) - 1
        rows = self.image_rows[indices.numpy()]
        regions = self._gather(self.features.regions, rows).float()
        real = (
            torch.arange(regions.shape[1], device=self.device) < self._gather(self.features.counts, rows)[:, None]
        )
        objects = self.features.object_ids
        return Batch(
            question_ids_B=self.question_ids[on_device],
            question_types_B=self.types[on_device],
            tokens_BL=tokens,
            word_mask_BL=words,
            type_words_BL=words & (position < self.type_word_counts[on_device, None]),
            regions_BRV=regions,
            boxes_BR4=self._gather(self.features.boxes, rows),
            region_mask_BR=real,
            object_ids_BR=None if objects is None else self._gather(objects, rows).long(),
            targets_BA=self.targets(on_device) if with_targets else None,
            extras={name: values[on_device] for name, values in self.extras.items()},
        )

    def _gather(self, array: NDArray[Any], rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array[rows]).to(self.device)

    def targets(self, on_device: Tensor) -> Tensor:
        """Scatter the sparse targets of some questions: [B, A] in [0, 1]."""
        dense = torch.zeros(len(on_device), self.answers, device=self.device)
        return dense.scatter_add_(1, self.target_answers[on_device], self.target_values[on_device])

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Give all questions once, in an order drawn from `generator`, with targets."""
        yield from self._batches(torch.randperm(len(self), generator=generator), batch_size)

    def balanced(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Give as many questions, drawn with replacement: each type as often, and within it each answer."""
        drawn = torch.multinomial(self.balance, len(self), replacement=True, generator=generator)
        yield from self._batches(drawn, batch_size)

    @cached_property
    def balance(self) -> Tensor:
        """Give the probability of each question where types come as often, and within a type its answers: [N].

        A question's answer is the one with its largest target; those without one in the vocabulary are a group.
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

    def _batches(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        for indices in torch.split(order, batch_size):
            yield self.batch(indices, with_targets=True)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Give all questions once, in the file's order, without targets."""
        for indices in torch.split(torch.arange(len(self)), batch_size):
            yield self.batch(indices, with_targets=False)


def _pad_targets(arrays: SplitArrays) -> tuple[Tensor, Tensor]:
    """Lay sparse targets out as two rectangles [N, most answers of a question]; padding adds 0 to answer 0."""
    lengths = np.diff(arrays.starts)
    width = max(1, int(lengths.max(initial=0)))
    used = np.arange(width) < lengths[:, None]
    answers = np.zeros(used.shape, np.int64)
    values = np.zeros(used.shape, np.float32)
    answers[used], values[used] = arrays.target_answers, arrays.target_values
    return torch.from_numpy(answers), torch.from_numpy(values)

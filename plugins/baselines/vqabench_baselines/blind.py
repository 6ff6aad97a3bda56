"""Wrappers whose base sees the question alone or the image alone: how much of its accuracy needs the other?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vqabench.api import PADDING, Batch, Output, Wrapper


class QuestionOnly(Wrapper):
    """Replace the image by a single region of zeros, in training and in testing.

    ReLU units that read regions then output their bias alone: those with a negative bias, about half of UpDn's
    image layer, are 0 and get no gradient. That costs no accuracy on digits-cp (see the README), so the base is
    left unchanged.
    """

    default_base = "vqabench-updn:updn"
    declarations: ClassVar[Mapping[str, str]] = {
        "gradients": "the base's layers for regions see only zeros",
        "learning": "the same words get the same answer, whatever the image",
    }

    def forward(self, batch: Batch) -> Output:
        """Return the base's output for the questions alone, without attention."""
        # Attention over the one region of zeros is always 1, and would not fit the batch's regions.
        return dataclasses.replace(super().forward(hide_image(batch)), attention_BR=None)


class ImageOnly(Wrapper):
    """Remove all words but those of the question's type, in training and in testing.

    A base with a tokeniser of its own sees unknown words in their place, so it still sees how many there were.
    """

    default_base = "vqabench-updn:updn"

    def forward(self, batch: Batch) -> Output:
        """Return the base's output for question types and images.

        Raises PluginError if the base has its own tokens and does not override `hide_words`.
        """
        # Only a base with its own tokeniser has extras; `keep_type` cuts the data set's tokens, not these.
        if not batch.extras:
            return super().forward(keep_type(batch))
        words_BL, type_words_BL = super().word_masks(batch)
        return super().forward(self.hide_words(batch, words_BL & ~type_words_BL))

    def word_masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the positions of words that the base sees and of those that spell the type: bool [B, L] each."""
        if not batch.extras:
            return super().word_masks(keep_type(batch))
        words_BL, type_words_BL = super().word_masks(batch)
        return words_BL & type_words_BL, type_words_BL


def hide_image(batch: Batch) -> Batch:
    """Return the batch with one region of zeros per question, whose box [0, 0, 1, 1] is the whole image."""
    whole_B14 = torch.zeros_like(batch.boxes_BR4[:, :1])
    whole_B14[..., 2:] = 1
    return batch.replace(
        regions_BRV=torch.zeros_like(batch.regions_BRV[:, :1]),
        boxes_BR4=whole_B14,
        # The region counts as real: a softmax over regions that are all masked would be NaN.
        region_mask_BR=torch.ones_like(batch.region_mask_BR[:, :1]),
        object_ids_BR=None,
    )


def keep_type(batch: Batch) -> Batch:
    """Return the batch with each question cut to the words of its type, padded in front as before.

    A question that does not begin with its type's words has none left.
    """
    # A stable sort of False before True moves the type's words to the end and keeps their order.
    order_BL = torch.argsort(batch.type_words_BL.int(), dim=1, stable=True)
    kept_BL = batch.type_words_BL.gather(1, order_BL)
    tokens_BL = torch.where(kept_BL, batch.tokens_BL.gather(1, order_BL), PADDING)
    return batch.replace(tokens_BL=tokens_BL, word_mask_BL=kept_BL, type_words_BL=kept_BL)

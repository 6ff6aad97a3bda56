"""A base that sees the question alone, or the image alone: how much of its accuracy needs the other?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vqabench.api import PADDING, Batch, Output, Wrapper


class QuestionOnly(Wrapper):
    """Its base sees a single region of zeros in place of the image, in training and in testing.

    A unit that reads regions through a ReLU and has a bias below 0 never speaks, nor learns: in UpDn's image layer
    about half of them. That costs no accuracy on digits-cp (see the README), and the base stays as it is.
    """

    default_base = "vqabench-updn:updn"
    declarations: ClassVar[Mapping[str, str]] = {
        "gradients": "the base's layers for regions see only zeros",
        "learning": "it answers the same words alike, whatever the image",
    }

    def forward(self, batch: Batch) -> Output:
        """Answer the questions of a batch unseen; there is no attention to speak of."""
        return dataclasses.replace(super().forward(hide_image(batch)), attention_BR=None)


class ImageOnly(Wrapper):
    """Its base sees only the words that spell the question's type, in training and in testing.

    To a base with a tokeniser of its own the other words are unknown ones: their number stays visible.
    """

    default_base = "vqabench-updn:updn"

    def forward(self, batch: Batch) -> Output:
        """Answer the questions of a batch by their types and images.

        Raises PluginError where the base has tokens of its own and does not say how to hide words.
        """
        if not batch.extras:
            return super().forward(keep_type(batch))
        words_BL, type_words_BL = super().word_masks(batch)
        return super().forward(self.hide_words(batch, words_BL & ~type_words_BL))

    def word_masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Count the words of the type alone: the base sees no others, and these where it sees them."""
        if not batch.extras:
            return super().word_masks(keep_type(batch))
        words_BL, type_words_BL = super().word_masks(batch)
        return words_BL & type_words_BL, type_words_BL


def hide_image(batch: Batch) -> Batch:
    """Give the batch with one region of zeros, which covers the whole image, for every question."""
    regions_B1V = torch.zeros_like(batch.regions_BRV[:, :1])
    whole_B14 = torch.zeros_like(batch.boxes_BR4[:, :1])
    whole_B14[..., 2:] = 1
    return batch.replace(
        regions_BRV=regions_B1V,
        boxes_BR4=whole_B14,
        region_mask_BR=torch.ones_like(batch.region_mask_BR[:, :1]),
        object_ids_BR=None,
    )


def keep_type(batch: Batch) -> Batch:
    """Give the batch with each question cut to the words of its type, padded in front as before.

    A question that does not begin with its type's words has none left.
    """
    order_BL = torch.argsort(batch.type_words_BL.int(), dim=1, stable=True)  # the type's words last, in their order
    kept_BL = batch.type_words_BL.gather(1, order_BL)
    tokens_BL = torch.where(kept_BL, batch.tokens_BL.gather(1, order_BL), PADDING)
    return batch.replace(tokens_BL=tokens_BL, word_mask_BL=kept_BL, type_words_BL=kept_BL)

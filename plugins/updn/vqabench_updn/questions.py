"""The last state of a recurrent layer, without processing the padding of every question."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from vqabench.api import without_autocast

TOGETHER = 32
"""Questions that start at the same step. oneDNN prepares and caches a matrix product for each number of rows."""


def last_state(gru: nn.GRU, words_BLE: Tensor, padding_E: Tensor, padded_B: Tensor) -> Tensor:
    """Return a layer's state [B, H] after questions [B, L, E] whose first `padded_B` words are padding.

    On a CPU, the states after each length of padding are computed once for all questions, and every question
    continues from its own: more than half of a batch of short questions is padding. On a GPU, processing the
    padding is faster than sorting the questions.
    """
    if words_BLE.device.type != "cpu" or torch.compiler.is_compiling():
        # On a GPU, autocast runs recurrent layers in float16 even if asked for bfloat16, and gradients underflow.
        with without_autocast(words_BLE.device) if words_BLE.is_cuda else nullcontext():
            return gru(words_BLE)[1][0]  # type: ignore[no-any-return]
    length = words_BLE.shape[1]
    padded_B = _level(padded_B.clamp(max=length - 1))  # a packed sequence needs at least one word
    most = int(padded_B.max())
    if most == 0:
        return gru(words_BLE)[1][0]  # type: ignore[no-any-return]
    # All questions start with the same padding word, so its states are the same for all of them.
    states_PH = gru(padding_E.expand(most, -1))[0]
    states_PH = torch.cat([states_PH.new_zeros(1, gru.hidden_size), states_PH])
    place_BL = (torch.arange(length) + padded_B[:, None]).clamp(max=length - 1)
    moved_BLE = words_BLE.gather(1, place_BL[:, :, None].expand_as(words_BLE))
    packed = pack_padded_sequence(moved_BLE, length - padded_B, batch_first=True, enforce_sorted=False)
    return gru(packed, states_PH[padded_B][None])[1][0]  # type: ignore[no-any-return]


def _level(padded_B: Tensor) -> Tensor:
    """Return numbers of padding words [B], lowered so that groups of questions start at the same step."""
    fewest_first_B, order_B = padded_B.sort()
    first_B = torch.arange(len(padded_B)) // TOGETHER * TOGETHER
    return torch.empty_like(padded_B).scatter(0, order_B, fewest_first_B[first_B])

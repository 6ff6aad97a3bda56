"""The last state of a recurrent layer, without reading the padding of each question anew."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from vqabench.api import without_autocast

TOGETHER = 32
"""Questions that begin to be read at one word: for each number of rows a matrix product is prepared, and kept."""


def last_state(gru: nn.GRU, words_BLE: Tensor, padding_E: Tensor, padded_B: Tensor) -> Tensor:
    """Return a layer's state [B, H] behind questions whose first `padded_B` words are padding.

    On a CPU the state behind the padding is computed once for all questions, and each goes on from there: more than
    half of a batch of short questions is padding. A GPU reads all of it faster than it would sort.
    """
    if words_BLE.device.type != "cpu" or torch.compiler.is_compiling():
        # On a GPU, autocast computes recurrent layers in float16 whatever it is asked for: small gradients vanish.
        with without_autocast(words_BLE.device) if words_BLE.is_cuda else nullcontext():
            return gru(words_BLE)[1][0]  # type: ignore[no-any-return]
    length = words_BLE.shape[1]
    padded_B = _level(padded_B.clamp(max=length - 1))  # of nothing but padding, the last one is read
    most = int(padded_B.max())
    if most == 0:
        return gru(words_BLE)[1][0]  # type: ignore[no-any-return]
    states_PH = gru(padding_E.expand(most, -1))[0]
    states_PH = torch.cat([states_PH.new_zeros(1, gru.hidden_size), states_PH])
    place_BL = (torch.arange(length) + padded_B[:, None]).clamp(max=length - 1)
    moved_BLE = words_BLE.gather(1, place_BL[:, :, None].expand_as(words_BLE))
    packed = pack_padded_sequence(moved_BLE, length - padded_B, batch_first=True, enforce_sorted=False)
    return gru(packed, states_PH[padded_B][None])[1][0]  # type: ignore[no-any-return]


def _level(padded_B: Tensor) -> Tensor:
    """Let some of the padding be read, so that questions begin many at a time."""
    fewest_first_B, order_B = padded_B.sort()
    first_B = torch.arange(len(padded_B)) // TOGETHER * TOGETHER
    return torch.empty_like(padded_B).scatter(0, order_B, fewest_first_B[first_B])

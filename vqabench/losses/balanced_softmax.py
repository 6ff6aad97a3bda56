"""Balanced softmax: the softmax over priors times exponentials, in training only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vqabench.api import DataSpec
from vqabench.losses.logit_adjust import LogitAdjust


class BalancedSoftmax(LogitAdjust):
    """Balanced softmax (Ren et al. 2020, "Balanced Meta-Softmax for Long-Tailed Visual Recognition"), per type.

    p̂_i = b_i e^{z_i} / Σ_k b_k e^{z_k} in training, and the plain softmax in testing: `logit-adjust`
    under `ce` with τ = 1, to the last bit. The source comes to it from the softmax, and has besides it a
    sampler that is learned; that is no loss, and not here. Not defined for `bce`: a sigmoid has no sum over
    answers for the priors to weigh; `logit-adjust` derives another correction for it.

    Soft targets and answers given fewer than `minimum` times: as in `logit-adjust`.
    """

    capturable = True
    objectives = ("ce",)
    declarations: ClassVar[Mapping[str, str]] = {
        "bce": "its sum over answers is a softmax's; logit-adjust has a form for sigmoids",
    }

    def __init__(self, spec: DataSpec, objective: str, *, minimum: int = 10) -> None:
        super().__init__(spec, objective, tau=1.0, minimum=minimum)

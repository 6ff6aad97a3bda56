"""Balanced softmax: weight the exponentials of the softmax by the prior, in training only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vqabench.api import DataSpec
from vqabench.losses.logit_adjust import LogitAdjust


class BalancedSoftmax(LogitAdjust):
    """Balanced softmax (Ren et al. 2020, "Balanced Meta-Softmax for Long-Tailed Visual Recognition"), per type.

    p̂_i = b_i e^{z_i} / Σ_k b_k e^{z_k} in training, and the plain softmax in testing: `logit-adjust` under `ce`
    with τ = 1, bit for bit. The source derives it from the softmax, and adds a learned sampler, which is not part
    of the loss and not included here.

    Not defined for `bce`: a sigmoid has no sum over answers whose terms the priors could weight. `logit-adjust`
    derives another correction for it.

    Soft targets and answers given fewer than `minimum` times: as in `logit-adjust`.
    """

    capturable = True
    objectives = ("ce",)
    declarations: ClassVar[Mapping[str, str]] = {
        "bce": "it weights the terms of a softmax's sum over answers; logit-adjust has a form for sigmoids",
    }

    def __init__(self, spec: DataSpec, objective: str, *, minimum: int = 10) -> None:
        super().__init__(spec, objective, tau=1.0, minimum=minimum)

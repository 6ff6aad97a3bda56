"""The objective without weights."""

from __future__ import annotations

from torch import Tensor

from vqabench.api import Batch, Loss, plain_loss


class Plain(Loss):
    """The unweighted objective (Eqs. 2 and 3): summed over answers, averaged over the batch."""

    capturable = True

    def forward(self, logits_BA: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of logits [B, A]: a scalar."""
        assert batch.targets_BA is not None
        return plain_loss(self.objective, logits_BA, batch.targets_BA).sum(1).mean()

"""Several processes that train one model together, as `torchrun` starts them: each takes a share of every batch.

Gradients are summed after each loss, not inside a wrapper of the model: a backbone may take several steps a batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from vqabench.errors import InputError, VqabenchError

Item = TypeVar("Item")
_ENVIRONMENT = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LONGEST_WAIT = timedelta(days=1)
"""The others wait while one process prepares data, or scores. A dead process closes its connection at once."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them. With only one, every method is trivial.

    The numbers that they agree on go through the CPU, so that no process waits for its GPU.
    """

    rank: int = 0
    count: int = 1
    local_rank: int | None = None
    """The number of this process on its machine; None if there is only one process."""
    local_count: int = 1

    @property
    def writes(self) -> bool:
        """Return whether this process writes files and reports to the user: only the first one does."""
        return self.rank == 0

    def share(self, questions: Tensor) -> Tensor:
        """Return this process's part of a batch: every `count`-th question."""
        # The batch stays the same whatever the number of processes, and so does the number of steps.
        return questions[self.rank :: self.count]

    def sum_losses(
        self, losses: Iterator[tuple[Tensor, int]], parameters: Sequence[nn.Parameter]
    ) -> Iterator[Tensor]:
        """Yield each loss once the parameters hold its gradients, summed over all processes.

        `losses` yields this process's losses, with their numbers of questions, and leaves their gradients in the
        parameters. A process without a loss takes part in the others' sums with zeros.
        """
        if self.count == 1:
            yield from (loss for loss, _ in losses)
            return
        nothing = torch.zeros((), device=parameters[0].device), 0
        while True:
            loss, questions = next(losses, nothing)
            total = float(self.sum_numbers(torch.tensor([questions], dtype=torch.float64))[0])
            if not total:
                return
            if not questions:
                for parameter in parameters:
                    parameter.grad = None
            # Each loss is a mean over a share, so its gradients weigh as much as the share's part of the batch.
            share = questions / total
            self._sum_gradients(parameters, share)
            yield loss * (share * self.count)  # so that the mean over all processes is the loss of the batch

    def _sum_gradients(self, parameters: Sequence[nn.Parameter], weight: float) -> None:
        """Replace each gradient by the sum over all processes, this one's with a weight.

        A parameter without a gradient in any process stays without.
        """
        # A branch of the model may be unused in one process's share only. All must sum the same tensors.
        found = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        with _others_alive():
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        trained = [parameter for parameter, any_ in zip(parameters, found.tolist(), strict=True) if any_]
        own = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
        for parameter, gradient in zip(trained, self._sum([one * weight for one in own]), strict=True):
            parameter.grad = gradient

    def sum_numbers(self, numbers: Tensor) -> Tensor:
        """Return the sum of all processes' tensors, which are on the CPU."""
        if self.count > 1:
            with _others_alive():
                distributed.all_reduce(numbers)
        return numbers

    def largest(self, number: int) -> int:
        """Return the largest of all processes' numbers."""
        if self.count == 1:
            return number
        numbers = torch.tensor([number])
        with _others_alive():
            distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers[0])

    def average_buffers(self, *modules: nn.Module) -> None:
        """Set the floating-point buffers of modules to their mean over all processes."""
        if self.count == 1:
            return
        buffers = [buffer for module in modules for buffer in module.buffers() if buffer.is_floating_point()]
        for buffer, mean in zip(buffers, self._sum([buffer / self.count for buffer in buffers]), strict=True):
            buffer.copy_(mean)

    def _sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sum tensors over the processes, all in one message."""
        if not tensors:
            return []
        # A message for each of some hundred tensors would mostly wait for the network.
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _others_alive():
            distributed.all_reduce(flat)
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [piece.view_as(tensor).to(tensor.dtype) for piece, tensor in zip(pieces, tensors, strict=True)]

    def seed_gpu(self, seed: int, device: torch.device) -> None:
        """Seed each GPU differently, so that dropout differs between the shares of a batch."""
        # The first process keeps the seed of a run with one process. Seeds of other runs are small numbers.
        if device.type == "cuda" and self.rank > 0:
            with torch.cuda.device(device):
                torch.cuda.manual_seed((seed + (self.rank << 48)) % 2**63)

    def broadcast(self, *modules: nn.Module) -> None:
        """Copy the first process's parameters and buffers to all others."""
        if self.count > 1:
            with _others_alive():
                for module in modules:
                    for tensor in module.state_dict().values():
                        distributed.broadcast(tensor, 0)

    def questions_of(self, count: int) -> Tensor:
        """Return the indices of a split's `count` questions that this process answers: each is answered by one."""
        return torch.arange(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def gather(self, own: Item) -> list[Item]:
        """Return what all processes give, by rank."""
        if self.count == 1:
            return [own]
        gathered: list[Any] = [None] * self.count
        with _others_alive():
            distributed.all_gather_object(gathered, own)
        return gathered

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.largest(0)


@contextmanager
def _others_alive() -> Iterator[None]:
    """Raise VqabenchError if another process has ended: it reports the reason itself."""
    try:
        yield
    except RuntimeError as error:
        if "onnection" in str(error):  # gloo and NCCL have no class of error for it
            raise VqabenchError(
                "another process of this run has ended; see its own message for the reason"
            ) from error
        raise


def read_local_rank() -> int | None:
    """Return the number of this process on its machine; None unless `torchrun` has started several.

    Raises InputError if the environment names several, but not which of them this one is.
    """
    count = os.environ.get("WORLD_SIZE") or "1"
    if count == "1":
        return None
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing or not count.isdecimal():
        what = f"but {', '.join(missing)} is not set" if missing else "which is not a number"
        raise InputError(f"WORLD_SIZE is {count}, {what}: start several processes with torchrun, or unset it")
    return int(os.environ["LOCAL_RANK"])


@contextmanager
def joined(device: torch.device, local_rank: int | None) -> Iterator[Processes]:
    """Join the other processes of the run, if `torchrun` has started several."""
    if local_rank is None:
        yield Processes()
        return
    # Numbers that the processes agree on are on the CPU, gradients on the GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        local = local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        yield Processes(distributed.get_rank(), distributed.get_world_size(), *local)
    finally:
        distributed.destroy_process_group()

"""Several processes that train one model together, as `torchrun` starts them: each takes a share of every batch.

Gradients are summed after each loss, not inside a wrapper of the model: a backbone may take several steps a batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from vqabench.errors import InputError, VqabenchError

_ENVIRONMENT = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LONGEST_WAIT = timedelta(days=1)
"""One process prepares a data set, and scores; that another has died shows at once, by its closed connection."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them. Of one alone, every method is trivial.

    What they agree on goes through the CPU, so that no GPU has to be waited for.
    """

    rank: int = 0
    count: int = 1
    local_rank: int | None = None
    """The number of this process on its machine; None where there is but one process."""
    local_count: int = 1

    @property
    def writes(self) -> bool:
        """Tell whether this process is the one that writes files and speaks to the user."""
        return self.rank == 0

    def share(self, questions: Tensor) -> Tensor:
        """Give this process's part of a batch: every `count`-th question."""
        return questions[self.rank :: self.count]

    def sum_over(self, number: float) -> float:
        """Give the sum of all processes' numbers."""
        return float(self.sum_numbers(torch.tensor([number], dtype=torch.float64))[0])

    def sum_numbers(self, numbers: Tensor) -> Tensor:
        """Give the sum of all processes' tensors, which are on the CPU."""
        if self.count > 1:
            with _others_alive():
                distributed.all_reduce(numbers)
        return numbers

    def largest(self, number: int) -> int:
        """Give the largest of all processes' numbers."""
        if self.count == 1:
            return number
        numbers = torch.tensor([number])
        with _others_alive():
            distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers[0])

    def sum_gradients(self, parameters: Sequence[nn.Parameter], weight: float) -> None:
        """Give each parameter the sum of its gradients, this process's with a weight.

        One that no process has a gradient for stays without.
        """
        if self.count == 1:
            return
        found = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        with _others_alive():
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        trained = [parameter for parameter, any_ in zip(parameters, found.tolist(), strict=True) if any_]
        gradients = self._sum([_gradient_of(parameter) * weight for parameter in trained])
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient

    def average_buffers(self, *modules: nn.Module) -> None:
        """Give every process the mean of what all have in their modules' buffers of real numbers."""
        if self.count == 1:
            return
        buffers = [buffer for module in modules for buffer in module.buffers() if buffer.is_floating_point()]
        for buffer, mean in zip(buffers, self._sum([buffer / self.count for buffer in buffers]), strict=True):
            buffer.copy_(mean)

    def _sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sum tensors over the processes, all in one message."""
        if not tensors:
            return []
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _others_alive():
            distributed.all_reduce(flat)
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [piece.view_as(tensor).to(tensor.dtype) for piece, tensor in zip(pieces, tensors, strict=True)]

    def seed_gpu(self, seed: int, device: torch.device) -> None:
        """Let each process draw other numbers on its GPU, for dropout."""
        if device.type == "cuda" and self.rank > 0:
            with torch.cuda.device(device):
                torch.cuda.manual_seed((seed + (self.rank << 48)) % 2**63)

    def share_out(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.count > 1:
            with _others_alive():
                for tensor in module.state_dict().values():
                    distributed.broadcast(tensor, 0)

    def questions_of(self, count: int, rank: int | None = None) -> Tensor:
        """Give the indices of the questions of a split that a process answers: each is answered by one."""
        rank = self.rank if rank is None else rank
        return torch.arange(count * rank // self.count, count * (rank + 1) // self.count)

    def gather(self, answers: Tensor, count: int) -> Tensor:
        """Put together what the processes have answered to `questions_of` a split of `count` questions."""
        if self.count == 1:
            return answers
        lengths = [len(self.questions_of(count, rank)) for rank in range(self.count)]
        padded = answers.new_zeros(max(lengths))  # all must send as many; what is too much is cut off again
        padded[: len(answers)] = answers
        gathered = [torch.empty_like(padded) for _ in lengths]
        with _others_alive():
            distributed.all_gather(gathered, padded)
        return torch.cat([part[:length] for part, length in zip(gathered, lengths, strict=True)])

    def gather_states(self, state: Any) -> list[Any]:
        """Give all processes' states, by rank."""
        if self.count == 1:
            return [state]
        gathered: list[Any] = [None] * self.count
        with _others_alive():
            distributed.all_gather_object(gathered, state)
        return gathered

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.largest(0)


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@contextmanager
def _others_alive() -> Iterator[None]:
    """Tell that another process has ended, where speaking to it fails: what ended it is told by itself."""
    try:
        yield
    except RuntimeError as error:
        if "onnection" in str(error):
            raise VqabenchError(
                "another process of this run has ended; see its own message for the reason"
            ) from error
        raise


def read_local_rank() -> int | None:
    """Give the number of this process on its machine; None where `torchrun` has not started several.

    Raises InputError where the environment speaks of several, but not of which this one is.
    """
    count = os.environ.get("WORLD_SIZE") or "1"
    if count == "1":
        return None
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing or not count.isdecimal():
        what = f"but not {', '.join(missing)}" if missing else "but no number"
        raise InputError(f"WORLD_SIZE is {count}, {what}: start several processes with torchrun, or unset it")
    return int(os.environ["LOCAL_RANK"])


@contextmanager
def joined(device: torch.device, local_rank: int | None) -> Iterator[Processes]:
    """Join the other processes of the run, where `torchrun` has started several."""
    if local_rank is None:
        yield Processes()
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        local = local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        yield Processes(distributed.get_rank(), distributed.get_world_size(), *local)
    finally:
        distributed.destroy_process_group()

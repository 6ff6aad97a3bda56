from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vqabench.testing.meta import META, MetaDevice, TwoDevicesError, to_meta

Step = Callable[[Tensor], object]
WAITS: dict[str, Step] = {
    "reads a number": lambda tensor: tensor.sum().item(),
    "reads a number ": lambda tensor: bool((tensor > 0).any()),
    "copies to the CPU  ": lambda tensor: tensor[0].tolist(),
    "compares two tensors": lambda tensor: torch.equal(tensor, tensor + 1),
    "asks which elements are not zero": lambda tensor: tensor.nonzero(),
    "asks which elements of a mask are set": lambda tensor: tensor[tensor[:, 0] > 0].sum(),
    "asks which elements of a mask are set ": lambda tensor: tensor.masked_select(tensor > 0),
    "copies to the CPU": lambda tensor: tensor.cpu() + 1,
    "copies to the CPU ": lambda tensor: torch.zeros(4, 3).copy_(tensor),
    "copies from the CPU": lambda tensor: tensor + torch.ones(3).to(tensor.device),
    "copies from the CPU ": lambda tensor: tensor.new_zeros(3).copy_(torch.ones(3)),
    "copies indices from the CPU": lambda tensor: tensor[torch.tensor([0, 2])],
}
HARMLESS: dict[str, Step] = {
    "arithmetic": lambda tensor: (tensor * 2 - tensor.mean(0)).softmax(1),
    "a number of the CPU's": lambda tensor: tensor * torch.tensor(2.0),
    "indices on the device": lambda tensor: tensor[torch.zeros(2, dtype=torch.int64, device=tensor.device)],
    "a mask that fills": lambda tensor: tensor.masked_fill(tensor > 0, 0.0),
    "shapes": lambda tensor: len(tensor) + tensor.numel(),
    "random numbers of the CPU's": lambda tensor: bool(torch.rand(()) < 0.5),
    "a copy that does not block": lambda tensor: torch.ones(3).to(tensor.device, non_blocking=True),
    "other numbers": lambda tensor: tensor.half().double(),
}


@pytest.mark.parametrize(("what", "step"), WAITS.items())
def test_a_wait_for_the_device_is_recorded_with_its_place(what: str, step: Step) -> None:
    tensor = torch.empty(4, 3, device=META)
    with MetaDevice() as device:
        step(tensor)
    ((place, found),) = device.waits.items()
    assert found == what.strip()
    assert place.startswith(Path(__file__).name)


@pytest.mark.parametrize("step", HARMLESS.values(), ids=list(HARMLESS))
def test_what_stays_on_the_device_is_no_wait(step: Step) -> None:
    tensor = torch.empty(4, 3, device=META)
    with MetaDevice() as device:
        step(tensor)
    assert not device.waits


@pytest.mark.parametrize(
    "step",
    [
        lambda tensor: tensor + torch.ones(3),
        lambda tensor: tensor @ torch.ones(3, 2),
        lambda tensor: torch.cat([tensor, torch.ones(1, 3)]),
        lambda tensor: torch.where(tensor > 0, tensor, torch.ones(3)),
        lambda tensor: tensor.index_select(0, torch.tensor([0, 2])),
        lambda tensor: nn.functional.embedding(torch.zeros(2, dtype=torch.int64, device=META), torch.ones(4, 2)),
    ],
)
def test_operands_on_two_devices_are_refused(step: Step) -> None:
    with MetaDevice(), pytest.raises((TwoDevicesError, RuntimeError), match=r"CPU|device"):
        step(torch.empty(4, 3, device=META))


def test_the_backward_pass_is_watched_too() -> None:
    class Peeks(torch.autograd.Function):
        @staticmethod
        def forward(context: object, tensor: Tensor) -> Tensor:
            return tensor.clone()

        @staticmethod
        def backward(context: object, *gradients: Tensor) -> Tensor:
            return gradients[0] * gradients[0].max().item()

    tensor = to_meta(torch.ones(3, requires_grad=True))
    with MetaDevice() as device:
        torch.autograd.backward(Peeks.apply(tensor).sum())  # type: ignore[no-untyped-call]
    assert list(device.waits.values()) == ["reads a number"]


def test_a_copy_of_the_same_kind_is_made_on_the_device() -> None:
    parameter = to_meta(nn.Parameter(torch.ones(2, 3, dtype=torch.float64)))
    assert (parameter.device, parameter.dtype, parameter.shape) == (META, torch.float64, (2, 3))
    assert parameter.requires_grad

"""A substitute for a GPU: PyTorch's `meta` device, whose tensors have shapes but no values.

Running a program on it shows, without a GPU, what would fail or be slow on one: operands on two devices, and steps
that wait for the GPU because the program needs a value.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
TORCH = str(Path(torch.__file__).parent)
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")
"""Operations that accept indices on the CPU, which have to be copied to the GPU."""


class TwoDevicesError(Exception):
    """An operation has operands on the GPU and on the CPU."""


class MetaDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run a program on the meta device, and record where it would wait for a GPU.

    A context manager. If the program reads a value, it gets 1 or True; if it asks which elements of a tensor are
    not zero, all are. Copies between the devices wait unless they are `non_blocking`.

    Raises TwoDevicesError if operands are on both devices. As on a GPU, tensors without dimensions may be on the
    CPU.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: dict[str, str] = {}
        """Line of code -> why it waits."""
        self.operations: list[tuple[str, tuple[tuple[int, ...], ...]]] = []
        """Name of each operation on the device, with the shapes of its tensors."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation."""
        given = dict(kwargs or {})
        name = func._schema.name
        tensors = [value for value in tree_leaves((args, given)) if isinstance(value, Tensor)]
        if not any(tensor.is_meta for tensor in tensors):
            copied = given.get("device") == META and name == "aten::_to_copy"
            if copied and not given.get("non_blocking"):
                self._record("copies from the CPU")
            return func(*args, **given)
        self.operations.append((name, tuple(tuple(tensor.shape) for tensor in tensors)))
        if name in _ANSWERS:
            what, answer = _ANSWERS[name]
            self._record(what)
            return answer(*args, **given)
        if name in ("aten::_to_copy", "aten::copy_") and _is_copy_to_cpu(args, given):
            self._record("copies to the CPU")
            return torch.zeros_like(args[0], **(given | {"device": given.get("device", torch.device("cpu"))}))
        if name in INDEXING:
            args = (args[0], [self._index(index) for index in args[1]], *args[2:])
            tensors = [value for value in tree_leaves((args, given)) if isinstance(value, Tensor)]
        elif name == "aten::copy_" and not args[1].is_meta and args[1].ndim:
            self._record("copies from the CPU")
            return args[0]
        left = [tensor for tensor in tensors if not tensor.is_meta and tensor.ndim]
        if left:
            raise TwoDevicesError(f"{name.removeprefix('aten::')} of a tensor on the CPU, {list(left[0].shape)}")
        return func(*args, **given)

    def _index(self, index: Tensor | None) -> Tensor | None:
        """Return an index on the device, with row numbers instead of a mask of one dimension."""
        if index is None or index.ndim == 0:
            return index
        if index.dtype in (torch.bool, torch.uint8):
            self._record("asks which elements of a mask are set")
            if index.ndim > 1:  # would become one tensor of indices per dimension
                raise NotImplementedError("a mask of several dimensions as an index")
            return torch.empty(len(index), dtype=torch.int64, device=META)
        if not index.is_meta:
            self._record("copies indices from the CPU")
            return torch.empty(index.shape, dtype=index.dtype, device=META)
        return index

    def _record(self, what: str) -> None:
        """Record the last line of code that is neither PyTorch's nor this module's."""
        foreign = (TORCH, "<", __file__)
        frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(foreign)]
        place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "an unknown line"
        self.waits.setdefault(place, what)

    def describe(self) -> str:
        """Return the lines that wait, in one line of text."""
        return "; ".join(f"{place}: {what}" for place, what in self.waits.items())


def _is_copy_to_cpu(args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    """Return whether a copy is from the device to the CPU."""
    device = given.get("device")
    to_cpu = device is not None and torch.device(device).type == "cpu"
    onto_cpu = len(args) > 1 and isinstance(args[1], Tensor) and args[1].is_meta and not args[0].is_meta
    return bool(to_cpu or onto_cpu)


_ANSWERS: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "aten::_local_scalar_dense": (
        "reads a number",
        lambda tensor: tensor.dtype == torch.bool or (1.0 if tensor.is_floating_point() else 1),
    ),
    "aten::equal": ("compares two tensors", lambda *_: True),
    "aten::nonzero": (
        "asks which elements are not zero",
        lambda tensor: torch.empty((tensor.numel(), tensor.ndim), dtype=torch.int64, device=META),
    ),
    "aten::masked_select": (
        "asks which elements of a mask are set",
        lambda row, mask: torch.empty(torch.where(mask, row, row).numel(), dtype=row.dtype, device=META),
    ),
}
"""Operation -> why it waits, and the result used instead."""


def to_meta(tensor: Tensor) -> Tensor:
    """Return a tensor of the same kind on the meta device; requires a gradient if the other does."""
    return torch.empty_like(tensor, device=META, requires_grad=tensor.requires_grad)

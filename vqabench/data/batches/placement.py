"""Where region features are kept while a model is trained or tested, and how they come to its device.

Questions, targets and boxes are small, and always on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqabench.data.features.store import FeatureStore
from vqabench.files.prefetch import work_ahead
from vqabench.files.resources import format_bytes, free_device_memory, free_host_memory

Place = Literal["device", "host", "disk"]
"""The GPU's memory; the machine's memory; a file mapped into memory, of which the system keeps what fits."""

IMAGES_AT_ONCE = 512
LEFT_FREE = 4 * 10**9
"""Bytes left to the model on a GPU, and to everything else in memory."""
SMALL = 1 << 27
"""Bytes of features that are copied into memory wherever a model is: rows are then gathered faster than read."""
THREADS = 4
"""Threads that gather batches for a GPU."""
AHEAD = 4
"""Batches that are read from the disk, or on their way to a GPU, ahead of the one that is wanted."""


class PlacedFeatures:
    """The features of all images, ready to be gathered for batches on a device.

    Regions come as `dtype`, which is float32, or bfloat16 where the model computes in that. In place `device` they
    are gathered there. Else threads gather a few batches ahead, and for a GPU copy them while the model works. No
    more is taken than these batches need.
    """

    def __init__(
        self,
        features: FeatureStore,
        device: torch.device,
        place: Place = "disk",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device, self.place, self.dtype = device, place, dtype
        self.boxes = torch.from_numpy(features.boxes.copy()).to(device)
        self.counts = torch.from_numpy(features.counts).to(device)
        objects = features.object_ids
        self.object_ids = None if objects is None else torch.from_numpy(objects.copy()).to(device)
        self.regions = features.regions
        self.file = features.file
        self.resident = None
        if place == "device":
            self.resident = _load(features, device, _kept_as(features.regions, dtype))
        elif place == "host":
            self.regions = _load(features, torch.device("cpu"), _kept_as(features.regions, None)).numpy()
            self.file = None
        streams = device.type == "cuda" and place != "device"
        self.stream = torch.cuda.Stream(device) if streams else None  # type: ignore[no-untyped-call]

    def gather(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Give the regions [B, R, V] of some images after others.

        `rows` are int64, and on the device where the features are `resident`, else on the CPU.
        """
        if self.resident is not None:
            for some in rows:
                yield self.resident[some].to(self.dtype)
            return
        if self.stream is None:
            for _, read in work_ahead(rows, self._read, 1, AHEAD):
                yield _convert(read.result(), self.dtype)
            return
        for _, fetched in work_ahead(rows, self._fetch, THREADS, AHEAD):
            regions, event = fetched.result()
            current = torch.cuda.current_stream(self.device)
            current.wait_event(event)  # the device waits for the copy, not the program
            regions.record_stream(current)
            yield regions.to(self.dtype)

    def _read(self, rows: Tensor, pinned: bool = False) -> Tensor:
        """Gather some images, from the file or from memory."""
        shape = (len(rows), *self.regions.shape[1:])
        buffer = torch.empty(shape, dtype=_torch_type(self.regions), pin_memory=pinned)
        if self.file is None:
            np.take(self.regions, rows.numpy(), axis=0, out=buffer.numpy(), mode="clip")
        else:
            self.file.read(rows.numpy(), buffer.numpy())
        return buffer

    def _fetch(self, rows: Tensor) -> tuple[Tensor, torch.Event]:
        """Gather into a pinned buffer, and begin to copy it to the GPU."""
        assert self.stream is not None
        buffer = self._read(rows, pinned=True)
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            return buffer.to(self.device, non_blocking=True), self.stream.record_event()


def _convert(regions: Tensor, dtype: torch.dtype) -> Tensor:
    """Round on the CPU, where float16 becomes bfloat16 three times as fast by way of float32."""
    return regions.float().to(dtype) if regions.dtype == torch.float16 else regions.to(dtype)


@dataclass(frozen=True)
class Room:
    """Who needs room for features, and of what kind."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    """As a model computes."""
    on_device: int = 1
    """Processes that keep features on this device, each its own,"""
    on_host: int = 1
    """and how many times as many on this machine."""


def choose_place(name: str, features: FeatureStore, room: Room) -> Place:
    """Give the place of that name; `auto`: the fastest that there is room for."""
    if name == "auto":
        return _find_room(features.regions, room)
    place: Place = name  # type: ignore[assignment]  # the configuration has been checked
    return "host" if place == "device" and room.device.type == "cpu" else place


def _find_room(regions: NDArray[Any], room: Room) -> Place:
    if room.device.type == "cpu":
        # Of a large file, what the system keeps in memory is nearly as near as a copy would be.
        return "host" if regions.nbytes <= SMALL else "disk"
    on_device = room.on_device * regions.size * _kept_as(regions, room.dtype).itemsize
    if on_device + LEFT_FREE < free_device_memory(room.device):
        return "device"
    on_host = room.on_device * room.on_host * regions.nbytes
    return "host" if on_host + LEFT_FREE < free_host_memory() else "disk"


def format_place(placed: PlacedFeatures) -> str:
    """Tell where features are, in one line."""
    regions = placed.regions
    dtype = _torch_type(regions) if placed.resident is None else placed.resident.dtype
    size, kind = regions.size * dtype.itemsize, str(dtype).removeprefix("torch.")
    where = {
        "device": f"on {placed.device}",
        "host": "in memory",
        "disk": "read from the disk, batches ahead",
    }[placed.place]
    return f"features: {format_bytes(size)} of {kind}, {where}"


def _kept_as(regions: NDArray[Any], dtype: torch.dtype | None) -> torch.dtype:
    """Give how regions are kept: rounded as a model computes, but never made larger."""
    return torch.bfloat16 if dtype == torch.bfloat16 else _torch_type(regions)


def _torch_type(regions: NDArray[Any]) -> torch.dtype:
    return torch.float16 if regions.dtype == np.float16 else torch.float32


def _load(features: FeatureStore, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copy all regions, piece by piece."""
    regions = features.regions
    loaded = torch.empty(regions.shape, dtype=dtype, device=device)
    for start in range(0, len(regions), IMAGES_AT_ONCE):
        few = regions[start : start + IMAGES_AT_ONCE]
        if features.file is not None:
            rows, few = np.arange(start, start + len(few)), np.empty_like(few)
            features.file.read(rows, few)
        loaded[start : start + len(few)] = torch.from_numpy(few).to(device).to(dtype)
    return loaded

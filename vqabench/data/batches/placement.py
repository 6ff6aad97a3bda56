"""Keep region features on the device, in memory or on the disk, and gather them for batches.

Questions, targets and boxes are small, and always on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqabench.data.features.store import FeatureStore
from vqabench.files.resources import format_bytes, free_device_memory, free_host_memory, prefetch

Place = Literal["device", "host", "disk"]
"""The GPU's memory; the machine's memory; a file read batch by batch, of which the system caches what fits."""

IMAGES_AT_ONCE = 512
LEFT_FREE = 4 * 10**9
"""Bytes left for the model on a GPU, and for everything else in memory."""
SMALL = 1 << 27
"""Bytes of features that are always copied into memory: rows are then gathered faster than they are read."""
THREADS = 4
"""Threads that gather batches for a GPU."""
PREFETCHED = 4
"""Batches that are read from the disk, or copied to a GPU, ahead of the current one."""


class PlacedFeatures:
    """The features of all images, ready to be gathered for batches on a device.

    Regions are returned as `dtype`, which is float32, or bfloat16 if the model computes in that. In place `device`
    they are gathered there. Otherwise threads gather a few batches ahead, and copy them to a GPU while the model
    computes; memory is used for these batches only.
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
            self.regions = _load(features, torch.device("cpu"), _torch_type(features.regions)).numpy()
            self.file = None
        streams = device.type == "cuda" and place != "device"
        self.stream = torch.cuda.Stream(device) if streams else None  # type: ignore[no-untyped-call]

    def gather(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the regions [B, R, V] of each batch of rows.

        `rows` are int64, on the device if the features are `resident`, else on the CPU.
        """
        if self.resident is not None:
            for some in rows:
                yield self.resident[some].to(self.dtype)
            return
        if self.stream is None:
            for _, read in prefetch(rows, self._read, 1, PREFETCHED):
                regions = read.result()
                # On the CPU, float16 to bfloat16 is three times as fast through float32.
                yield (regions.float() if regions.dtype == torch.float16 else regions).to(self.dtype)
            return
        for _, fetched in prefetch(rows, self._fetch, THREADS, PREFETCHED):
            regions, event = fetched.result()
            current = torch.cuda.current_stream(self.device)
            current.wait_event(event)  # the device waits for the copy, not the program
            regions.record_stream(current)
            yield regions.to(self.dtype)

    def _read(self, rows: Tensor, pinned: bool = False) -> Tensor:
        """Gather rows from the file or from memory."""
        shape = (len(rows), *self.regions.shape[1:])
        buffer = torch.empty(shape, dtype=_torch_type(self.regions), pin_memory=pinned)
        if self.file is None:
            np.take(self.regions, rows.numpy(), axis=0, out=buffer.numpy(), mode="clip")
        else:
            self.file.read(rows.numpy(), buffer.numpy())
        return buffer

    def _fetch(self, rows: Tensor) -> tuple[Tensor, torch.Event]:
        """Gather rows in a pinned buffer, and start to copy it to the GPU."""
        assert self.stream is not None
        buffer = self._read(rows, pinned=True)
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            return buffer.to(self.device, non_blocking=True), self.stream.record_event()


def choose_place(
    name: str,
    features: FeatureStore,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    copies: int = 1,
    devices: int = 1,
) -> Place:
    """Return the place of that name; for `auto`, the fastest one in which the features fit.

    `copies` is the number of processes with features of their own on each of the `devices` of this machine; `dtype`
    is what the model computes in.
    """
    regions = features.regions
    if name != "auto":
        place: Place = name  # type: ignore[assignment]  # the configuration has been checked
        return "host" if place == "device" and device.type == "cpu" else place
    if device.type == "cpu":
        # The system's cache of a large file is nearly as fast as a copy would be.
        return "host" if regions.nbytes <= SMALL else "disk"
    if copies * regions.size * _kept_as(regions, dtype).itemsize + LEFT_FREE < free_device_memory(device):
        return "device"
    return "host" if copies * devices * regions.nbytes + LEFT_FREE < free_host_memory() else "disk"


def format_place(placed: PlacedFeatures) -> str:
    """Describe in one line where features are kept."""
    regions = placed.regions
    dtype = _torch_type(regions) if placed.resident is None else placed.resident.dtype
    size, kind = regions.size * dtype.itemsize, str(dtype).removeprefix("torch.")
    where = {
        "device": f"on {placed.device}",
        "host": "in memory",
        "disk": "read from the disk, some batches ahead",
    }[placed.place]
    return f"features: {format_bytes(size)} of {kind}, {where}"


def _kept_as(regions: NDArray[Any], dtype: torch.dtype) -> torch.dtype:
    """Return the type that regions are kept in: that of the model, unless it is larger than theirs."""
    return torch.bfloat16 if dtype == torch.bfloat16 else _torch_type(regions)


def _torch_type(regions: NDArray[Any]) -> torch.dtype:
    return torch.float16 if regions.dtype == np.float16 else torch.float32


def _load(features: FeatureStore, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copy all regions, a block at a time."""
    regions = features.regions
    loaded = torch.empty(regions.shape, dtype=dtype, device=device)
    for start in range(0, len(regions), IMAGES_AT_ONCE):
        few = regions[start : start + IMAGES_AT_ONCE]
        if features.file is not None:
            rows, few = np.arange(start, start + len(few)), np.empty_like(few)
            features.file.read(rows, few)
        loaded[start : start + len(few)] = torch.from_numpy(few).to(device).to(dtype)
    return loaded

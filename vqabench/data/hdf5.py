"""HDF5 files, made in memory first: HDF5 itself may crash where a disk is full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py

from vqabench.results import write_file


def write_hdf5(path: Path, fill: Callable[[h5py.File], object]) -> None:
    """Let `fill` fill a file that memory has room for, then write it. Raises as `write_file` does."""
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        fill(file)
        file.flush()
        image: bytes = file.id.get_file_image()
    write_file(path, image)

"""`vqabench data extract`."""

from __future__ import annotations

from pathlib import Path

from vqabench.data import extraction
from vqabench.data.extraction import Extraction
from vqabench.errors import InputError
from vqabench.results import find_place
from vqabench.training.device import choose_device
from vqabench.training.progress import Progress, Silence


def extract(
    images: Path, out: Path, asked: Extraction, device_name: str = "auto", progress: Progress | None = None
) -> int:
    """Compute the region features of a folder or zip of images, and give how many they are.

    Raises InputError where the file is there already, or images or model cannot be used.
    """
    if find_place(out).exists():
        raise InputError(f"{out}: exists; delete it to compute it again")
    device = choose_device(device_name)
    return extraction.extract(images, out, asked, device, (progress or Silence()).say)

"""Where to compute, and how precisely."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from vqabench.errors import InputError

SMALL_MODEL = 500_000
"""Parameters up to which one thread trains as fast as two (a recurrent one on `digits-cp`, batches of 128)."""


def choose_device(name: str) -> torch.device:
    """Give the device of that name; `auto`: the GPU where there is one. Raises InputError if there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name!r}: valid: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def choose_threads(parameters: int, device: torch.device) -> None:
    """Train a small model on one thread, unless `OMP_NUM_THREADS` says otherwise.

    Two would wait for each other more than they share, and, spinning as they wait, fall to a tenth of the speed
    beside another busy process.
    """
    if device.type == "cpu" and parameters < SMALL_MODEL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve `auto`: bfloat16 on a GPU that computes in it, else float32."""
    if name == "auto":
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return name


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[object]]:
    """Give what makes the context of a forward pass."""
    if precision == "float32":
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16)

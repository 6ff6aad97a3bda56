"""Choose the device, its precision, and the number of threads."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from vqabench.errors import InputError
from vqabench.files.resources import count_processors

SMALL_MODEL = 500_000
"""Parameters up to which one thread trains as fast as two (a recurrent one on `digits-cp`, batches of 128)."""
GPU_CONTEXT = 600_000_000
"""Bytes of GPU memory that a process uses besides tensors."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""

Autocast = Callable[[], AbstractContextManager[object]]


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """Return the device of a name; `auto` is the GPU if there is one. Raises InputError if it does not exist.

    With several processes on a machine, each gets the GPU of its `local_rank`, so no GPU may be named.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{local_rank or 0}"
    elif name.startswith("cuda:") and local_rank is not None:
        raise InputError(f"--device {name}: each of several processes takes a GPU of its own; write cuda")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name!r}: valid: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def is_small(parameters: int) -> bool:
    """Return whether a model that is trained on a CPU gains nothing from a second thread."""
    # Threads of small models mostly wait for each other. They spin while they wait, so that next to another busy
    # process they fall to a tenth of their speed.
    return parameters < SMALL_MODEL


def choose_threads(parameters: int, device: torch.device, usual: int, sharers: int = 1) -> None:
    """Set the number of threads to suit a model that shares the processors with `sharers` - 1 others.

    It is the `usual` number on a GPU, and if the user has set `OMP_NUM_THREADS`.
    """
    if device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(usual)
    elif is_small(parameters):
        torch.set_num_threads(1)
    else:
        torch.set_num_threads(max(1, count_processors() // sharers) if sharers > 1 else usual)


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision; `auto` is bfloat16 on a device that computes in it, else float32."""
    if name != "auto":
        return name
    return "bfloat16" if computes_bfloat16(device) else "float32"


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies faster in bfloat16 than in float32; others emulate it, slowly."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # PyTorch computes in bfloat16 on any CPU; without these instructions it converts every number.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def number_type(precision: str) -> torch.dtype:
    """Return the type of the features for a precision."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast(device: torch.device, precision: str) -> Autocast:
    """Return the factory of contexts for forward passes."""
    if precision == "float32":
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16)


def threads_of_small() -> int:
    """Return the number of threads for a small model on a CPU."""
    return torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1


def measure_gpu_memory() -> dict[str, int]:
    """Return the memory of the GPU for an epoch's record; nothing if this process uses no GPU."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    # Reserved, not allocated: what PyTorch caches is not free for other processes either.
    taken = torch.cuda.max_memory_reserved() + GPU_CONTEXT
    return {"gpu_bytes": taken, "gpu_free_bytes": torch.cuda.mem_get_info()[0]}


def tune(device: torch.device) -> None:
    """Configure PyTorch and the allocator for training on a device. It affects the whole process."""
    if device.type == "cuda":
        # float32 matrices are multiplied with TF32's 10 bits of mantissa, and summed with 23.
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.cuda.set_device(device)
    elif platform.libc_ver()[0] == "glibc":
        # Each step frees memory that the next one allocates again. If it went back to the system in between, every
        # page would be cleared and mapped anew.
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)

"""Weights as safetensors; and, while a run trains, all that it needs to go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vqabench.errors import InputError, VqabenchError, first_few
from vqabench.results import write_through


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's parameters and buffers."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        write_through(path, lambda part: save_file(state, part))
    except SafetensorError as error:  # for example a full disk
        raise VqabenchError(f"{path}: cannot be written: {error}") from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a model's parameters and buffers. Raises InputError where the file is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: the run has no weights (it has not finished an epoch)") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); train the run again with --force") from error


def restore(model: nn.Module, path: Path) -> None:
    """Put a run's weights into its model. Raises InputError where they do not fit."""
    try:
        model.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise InputError(f"{path}: does not fit the model: {' '.join(str(error).split())}") from error


def adopt(model: nn.Module, path: Path) -> str | None:
    """Start a model from another run's weights; gives a line on the parts that only one of them has.

    Raises InputError where a part has another shape, or they share nothing.
    """
    given, own = load_weights(path), model.state_dict()
    shared = _match(given, own)
    other = [n for n, stored in shared.items() if own[n].shape != given[stored].shape]
    if other or not shared:
        raise InputError(f"{path}: does not fit the model: {first_few(other) or 'they share no part'}")
    model.load_state_dict({n: given[stored] for n, stored in shared.items()}, strict=False)
    fresh = sorted(set(own) - set(shared))
    unused = sorted(set(given) - set(shared.values()))
    told = [f"{len(fresh)} start afresh ({first_few(fresh, 3)})"] if fresh else []
    told += [f"{len(unused)} are not used ({first_few(unused, 3)})"] if unused else []
    return f"parameters: {'; '.join(told)}" if told else None


def _match(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, str]:
    """Match names; a transform puts `base.` in front of the names of what it wraps."""
    shared = {}
    for name in own:
        candidates = [name, f"base.{name}", name.removeprefix("base.")]
        stored = next((candidate for candidate in candidates if candidate in given), None)
        if stored is not None:
            shared[name] = stored
    return shared


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write what a run needs to go on."""
    try:
        write_through(path, lambda part: torch.save(dict(state), part))
    except RuntimeError as error:  # PyTorch's own, where the disk is full
        raise VqabenchError(f"{path}: cannot be written: {' '.join(str(error).split())}") from error


def load_state(path: Path) -> dict[str, Any]:
    """Read what a run needs to go on. Raises InputError where the file is damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; every one of them means a damaged file
        raise InputError(f"{path}: damaged ({type(error).__name__}); train the run again with --force") from error
    return state

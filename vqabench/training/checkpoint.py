"""Weights as safetensors; and, while a run trains, all that it needs to go on."""

from __future__ import annotations

import zipfile
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vqabench.api import Backbone
from vqabench.errors import InputError, VqabenchError, first_few
from vqabench.files.atomic import require_regular, write_through
from vqabench.plugins import one_line

RESTORE = "restore it from a copy, or train the run again with --force"


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's parameters and buffers."""
    state = own_tensors(model)
    try:
        write_through(path, lambda part: _save_file(state, part))
    except SafetensorError as error:  # for example a full disk
        raise VqabenchError(f"{path}: cannot be written: {error}") from error


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Give a model's parameters and buffers on the CPU, as safetensors takes them: tied ones are there twice."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        state[name] = own.clone() if memory in seen else own
        seen.add(memory)
    return state


def _save_file(state: dict[str, Tensor], part: Path) -> None:
    part.touch()  # with the rights of any other file; safetensors would give it to its owner alone
    mode = part.stat().st_mode
    save_file(state, part)
    part.chmod(mode)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a model's parameters and buffers. Raises InputError where the file is missing or damaged."""
    require_regular(path)
    try:
        with path.open("rb"):  # the library calls a file that may not be read missing
            return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: missing: the run has finished no epoch, or they were deleted") from None
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); {RESTORE}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def restore(model: nn.Module, path: Path) -> None:
    """Put a run's weights into its model. Raises InputError where they do not fit."""
    try:
        model.load_state_dict(load_weights(path))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: does not fit the model: {' '.join(str(error).split())}") from error


def restore_begun(model: nn.Module, kept: Mapping[str, Any], path: Path) -> None:
    """Put the model's state out of what a run has kept into it. Raises InputError where that cannot be."""
    try:
        model.load_state_dict(kept["model"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: does not fit this run; train it again with --force") from error


def adopt(model: Backbone, origin: Backbone) -> str | None:
    """Start a model from another's weights, part by part of the same class, from the innermost on.

    Gives a line on the parameters that only one of them has. Raises InputError where a part has another shape,
    or they share none.
    """
    own, given = model.state_dict(), origin.state_dict()
    sources = _match(_parts(model), _parts(origin), own, given)
    if not sources:
        raise InputError("--from: its model does not fit this one: they have no part in common")
    try:
        model.load_state_dict({name: given[source] for name, source in sources.items()}, strict=False)
    except (RuntimeError, ValueError) as error:
        now = model.state_dict()  # loading may have made room already
        other = [name for name, source in sources.items() if now[name].shape != given[source].shape]
        raise InputError(f"--from: its model does not fit this one: {first_few(other)}") from error
    fresh, unused = sorted(own.keys() - sources.keys()), sorted(given.keys() - sources.values())
    message = [f"{len(fresh)} start afresh ({first_few(fresh, 3)})"] if fresh else []
    message += [f"{len(unused)} are not used ({first_few(unused, 3)})"] if unused else []
    return f"parameters: {'; '.join(message)}" if message else None


def _parts(model: Backbone) -> list[tuple[str, type[Backbone]]]:
    """List the backbones that a model is nested of, innermost first: their places in it, and their classes."""
    modules = model.named_modules()
    found = [(f"{place}." if place else "", type(part)) for place, part in modules if isinstance(part, Backbone)]
    return sorted(found, key=lambda part: -len(part[0]))


def _match(
    own_parts: Sequence[tuple[str, type[Backbone]]],
    given_parts: Sequence[tuple[str, type[Backbone]]],
    own: Iterable[str],
    given: Container[str],
) -> dict[str, str]:
    """Give the names of parameters that parts of one class share: the model's own -> the origin's."""
    matched: dict[str, str] = {}
    seen: set[str] = set()
    left = list(given_parts)
    for place, kind in own_parts:
        names = [name for name in own if name.startswith(place) and name not in seen]
        seen.update(names)
        source = next((part for part in left if part[1] is kind), None)
        if source is not None:
            left.remove(source)
            pairs = ((name, source[0] + name[len(place) :]) for name in names)
            matched |= {name: stored for name, stored in pairs if stored in given}
    return matched


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write what a run needs to go on."""
    write_through(path, lambda part: _save_state(dict(state), part))


def _save_state(state: dict[str, Any], part: Path) -> None:
    with part.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # PyTorch stumbles over what a full disk has cut short, and speaks of that
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_state(path: Path) -> dict[str, Any]:
    """Read what a run needs to go on. Raises InputError where the file is damaged."""
    require_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            rotten = archive.testzip()  # torch does not look at the checksums that it writes
        if rotten is not None:
            raise ValueError(f"the checksum of {rotten} differs")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch raises many kinds; every one of them means a damaged file
        raise InputError(f"{path}: damaged ({one_line(error)}); {RESTORE}") from error
    return state

"""Save and load a run's weights, and everything that its next step depends on."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vqabench.api import Backbone, Recipe
from vqabench.errors import InputError, VqabenchError
from vqabench.files.atomic import require_regular, write_through
from vqabench.plugins import one_line
from vqabench.training.criterion import Tally
from vqabench.training.optimizer import make_optimizer
from vqabench.training.processes import Processes

RESTORE = "restore it from a copy, or train the run again with --force"
MISMATCHES = (KeyError, TypeError, RuntimeError, ValueError)
"""Exceptions on loading a state that belongs to something else."""


@dataclass
class Position:
    """The progress of a run. Saved in `resume.pt` under the names of its fields."""

    epochs: int = 0
    """Finished epochs, over all stages."""
    steps: int = 0
    chosen_epoch: int | None = None
    """The epoch whose weights are kept, counted from 1."""
    chosen_accuracy: float = -1.0
    batches: int = 0
    """Finished batches of the current epoch."""
    tally: Tally = field(default_factory=Tally)
    """Sums over the steps of the current epoch."""
    seconds: float = 0.0
    """Time spent on the current epoch."""
    pieces: int = 1
    """Pieces that each batch is split into, if memory is not enough for the whole."""

    def finish_epoch(self) -> None:
        """Move to the first batch of the next epoch."""
        self.epochs += 1
        self.batches, self.tally, self.seconds = 0, Tally(), 0.0


class State:
    """A model in training: weights, losses, optimiser, the order of questions, and the position in it."""

    def __init__(self, model: Backbone, losses: nn.ModuleList, recipe: Recipe, seed: int) -> None:
        self.model, self.losses, self.seed = model, losses, seed
        self.parameters = [*model.parameters(), *losses.parameters()]
        self.optimizer = make_optimizer(recipe, self.parameters)
        self.order = torch.Generator().manual_seed(seed)
        self.position = Position()

    def seed_batch(self, batch: int) -> None:
        """Seed the CPU's random numbers for a batch.

        Several processes then make the same random choices for a batch, and the same as one process would. Without
        this they would drift apart, because shares of different sizes draw different amounts for dropout.
        """
        place = f"{self.seed} {self.position.epochs} {batch}".encode()
        # PyTorch looks at no more than 32 bits of a seed.
        torch.default_generator.manual_seed(int.from_bytes(hashlib.blake2b(place, digest_size=4).digest()))

    def capture(self, processes: Processes, order: Tensor) -> dict[str, Any]:
        """Return what `resume.pt` holds. `order` is the state of the order's generator when the epoch began."""
        device = next(self.model.parameters()).device
        random = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(device)
        return {
            "model": self.model.state_dict(),  # the latest weights; those in model.safetensors are the chosen ones
            "losses": self.losses.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": order,
            "random": processes.gather(random),
            "buffers": processes.gather([_buffers(self.model), _buffers(self.losses)]),
            "position": asdict(self.position),
        }

    def restore(self, saved: Mapping[str, Any], processes: Processes) -> None:
        """Restore what this version, or an earlier one, has saved. Raises one of MISMATCHES if it cannot."""
        self.model.load_state_dict(saved["model"])
        self.losses.load_state_dict(saved["losses"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.order.set_state(saved["order"])
        self.position = _read_position(saved["position"])
        random = saved["random"]
        if isinstance(random, Tensor):  # written before runs could have several processes
            random = [{"cpu": random}]
        if len(random) != processes.count:  # with another number of processes, the run is another one anyway
            return
        own, device = random[processes.rank], next(self.model.parameters()).device
        torch.set_rng_state(own["cpu"])
        if device.type == "cuda" and "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"], device)
        buffers = saved["buffers"][processes.rank] if "buffers" in saved else ()  # earlier versions saved none
        for module, values in zip((self.model, self.losses), buffers, strict=False):
            module.load_state_dict(values, strict=False)


def _read_position(saved: Mapping[str, Any]) -> Position:
    """Return a position saved by this or an earlier version; missing fields have their initial values."""
    names = {one.name for one in fields(Position)} - {"tally"}
    known = {name: value for name, value in saved.items() if name in names}
    tally = saved.get("tally", {})
    if tally.keys() != vars(Tally()).keys():  # counted differently then, so it is counted from here
        tally = {}
    return Position(**known, tally=Tally(**tally))


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the persistent buffers of a module, which may depend on a process's share of the batches."""
    saved = module.state_dict()
    return {name: saved[name].cpu() for name, _ in module.named_buffers() if name in saved}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's parameters and buffers."""
    state = own_tensors(model)

    def save(part: Path) -> None:
        part.touch()  # with the usual permissions; safetensors would make it readable by its owner only
        mode = part.stat().st_mode
        save_file(state, part)
        part.chmod(mode)

    try:
        write_through(path, save)
    except SafetensorError as error:  # for example a full disk
        raise VqabenchError(f"{path}: cannot be written: {error}") from error


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's parameters and buffers on the CPU. Tied ones are copied, as safetensors requires."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        state[name] = own.clone() if memory in seen else own
        seen.add(memory)
    return state


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a model's parameters and buffers. Raises InputError if the file is missing or damaged."""
    require_regular(path)
    try:
        with path.open("rb"):  # safetensors reports a file without read permission as missing
            return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: missing: the run has finished no epoch, or they were deleted") from None
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); {RESTORE}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def restore(model: nn.Module, path: Path) -> None:
    """Load a run's weights into its model. Raises InputError if they do not fit."""
    try:
        model.load_state_dict(load_weights(path))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: does not fit the model: {one_line(error, kind=False)}") from error


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write what a run needs to continue."""

    def save(part: Path) -> None:
        with part.open("wb") as file:
            try:
                torch.save(dict(state), file)
            except RuntimeError as error:  # on a full disk PyTorch hides the OSError behind an error of its own
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    write_through(path, save)


def load_state(path: Path) -> dict[str, Any]:
    """Read what a run needs to continue. Raises InputError if the file is damaged."""
    require_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch writes checksums, but does not check them
        if broken is not None:
            raise ValueError(f"the checksum of {broken} differs")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch raises many kinds; every one of them means a damaged file
        raise InputError(f"{path}: damaged ({one_line(error)}); {RESTORE}") from error
    return state

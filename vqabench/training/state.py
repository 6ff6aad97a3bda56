"""All that the next step of a run depends on, in one piece that can be kept and taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import nn

from vqabench.api import Backbone, Recipe
from vqabench.training.criterion import Tally
from vqabench.training.optimizer import make_optimizer
from vqabench.training.processes import Processes


@dataclass
class Position:
    """How far a run has come."""

    epochs: int = 0
    """Finished epochs, over all stages."""
    steps: int = 0
    chosen_epoch: int | None = None
    """The epoch whose weights are kept, counted from 1."""
    chosen_accuracy: float = -1.0
    batches: int = 0
    """Finished batches of the epoch that is going on,"""
    tally: Tally = field(default_factory=Tally)
    """what they came to,"""
    seconds: float = 0.0
    """and how long they took."""
    pieces: int = 1
    """Pieces that each batch is cut into, where memory is not enough for the whole."""

    def finish_epoch(self) -> None:
        """Begin with the first batch of the next epoch."""
        self.epochs += 1
        self.batches, self.tally, self.seconds = 0, Tally(), 0.0


class State:
    """A model in training: weights, losses, optimiser, the order of questions, the position in it."""

    def __init__(self, model: Backbone, losses: nn.ModuleList, recipe: Recipe, seed: int) -> None:
        self.model, self.losses, self.seed = model, losses, seed
        self.parameters = [*model.parameters(), *losses.parameters()]
        self.optimizer = make_optimizer(recipe, self.parameters)
        self.order = torch.Generator().manual_seed(seed)
        self.position = Position()

    def seed_batch(self, batch: int) -> None:
        """Begin the random numbers of a batch on the CPU anew.

        So several processes decide alike what a procedure draws for a batch, and as one process would: where shares
        differ in size, what is drawn for dropout would let them drift apart.
        """
        place = f"{self.seed} {self.position.epochs} {batch}".encode()
        # PyTorch looks at no more than 32 bits of a seed.
        torch.default_generator.manual_seed(int.from_bytes(hashlib.blake2b(place, digest_size=4).digest()))

    def keep(self, processes: Processes, order: torch.Tensor) -> dict[str, Any]:
        """Give all of it. `order` is the state that the order's generator had when the epoch began."""
        device = next(self.model.parameters()).device
        return {
            "model": self.model.state_dict(),
            "losses": self.losses.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": order,
            "random": processes.gather_states(_random_states(device)),
            "buffers": processes.gather_states([_buffers(self.model), _buffers(self.losses)]),
            "position": asdict(self.position),
        }

    def take_up(self, kept: Mapping[str, Any], processes: Processes) -> None:
        """Go on from what was kept, by this version or an earlier one.

        Raises KeyError, TypeError, RuntimeError or ValueError where it does not fit.
        """
        self.model.load_state_dict(kept["model"])
        self.losses.load_state_dict(kept["losses"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.order.set_state(kept["order"])
        self.position = _read_position(kept["position"])
        random = kept["random"]
        states = [{"cpu": random}] if isinstance(random, torch.Tensor) else random  # one process, before processes
        if len(states) == processes.count:
            _set_random_states(states[processes.rank], next(self.model.parameters()).device)
            own = kept["buffers"][processes.rank] if "buffers" in kept else ()  # as long as they were kept
            for module, buffers in zip((self.model, self.losses), own, strict=False):
                module.load_state_dict(buffers, strict=False)


def _read_position(kept: Mapping[str, Any]) -> Position:
    """Return a position as any version wrote it: what it did not know of yet is as at the beginning.

    What an epoch has come to is counted from here where it was counted in another way.
    """
    known = {one.name for one in fields(Position)} - {"tally"}
    tally = kept.get("tally", {})
    same = tally.keys() == vars(Tally()).keys()
    return Position(
        **{name: value for name, value in kept.items() if name in known}, tally=Tally(**tally) if same else Tally()
    )


def _buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Give the buffers that are saved: what a process has seen of its share of batches may be in them."""
    kept = module.state_dict()
    return {name: kept[name].cpu() for name, _ in module.named_buffers() if name in kept}


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)

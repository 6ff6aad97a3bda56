"""Plans of small models, of every first-party backbone with the library's strategies."""

from __future__ import annotations

from contextlib import suppress

from vqabench.config import make_config
from vqabench.errors import VqabenchError
from vqabench.plugins import BACKBONES, available, load
from vqabench.testing.strategies import list_strategies
from vqabench.training.plan import Plan, make_plan

PLUGINS = {one.name: one for one in available(BACKBONES).plugins if one.distribution.startswith("vqabench-")}
EVERY = [strategy.name for strategy in list_strategies()]
SOME = ["plain", "mask+rescale", "equalized-focal"]
"""For backbones that differ from UpDn in what they do, and not in what the strategies do to it."""


def plans(backbone: str) -> list[Plan]:
    """Return a plan of a small model for every strategy and objective that the backbone is defined for."""
    settings = dict(load(PLUGINS[backbone]).check_options)
    found = []
    for strategy in EVERY if backbone == "updn" else SOME:
        for objective in ("ce", "bce"):
            chosen = {"backbone": backbone, "loss": strategy, "objective": objective, "settings": settings}
            with suppress(VqabenchError):
                found.append(make_plan(make_config(chosen)))
    return found

"""What a recipe may be, and how one is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vqabench.api import Recipe
from vqabench.errors import InputError, unknown
from vqabench.options import convert, fields_of

MOST_EPOCHS = 100_000


def change_recipe(recipe: Recipe, changes: Mapping[str, object], label: str) -> Recipe:
    """Give the recipe with some fields changed. Raises InputError where a name or a value is not possible."""
    fields = fields_of(Recipe)
    for name in changes:
        if name not in fields:
            raise InputError(unknown(f"option of {label}", name, fields))
    values = {name: convert(fields[name], value, f"{label}.{name}") for name, value in changes.items()}
    changed = dataclasses.replace(recipe, **values)
    _check_recipe(changed, label)
    return changed


def _check_recipe(recipe: Recipe, label: str) -> None:
    allowed = {
        "epochs": (1 <= recipe.epochs <= MOST_EPOCHS, f"from 1 to {MOST_EPOCHS}"),
        "finetune_epochs": (1 <= recipe.finetune_epochs <= MOST_EPOCHS, f"from 1 to {MOST_EPOCHS}"),
        "batch_size": (1 <= recipe.batch_size < 2**31, "from 1 to 2147483647"),
        "lr": (recipe.lr > 0, "above 0"),
        "weight_decay": (recipe.weight_decay >= 0, "at least 0"),
        "warmup": (0 <= recipe.warmup < 1, "at least 0 and below 1"),
        "clip": (recipe.clip is None or recipe.clip > 0, "above 0, or none"),
    }
    for name, (right, range_) in allowed.items():
        if not right:
            raise InputError(f"{label}.{name} must be {range_}, not {getattr(recipe, name)}")

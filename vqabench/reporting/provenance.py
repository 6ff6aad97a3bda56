"""How the runs of a row came about: what their manifests say, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from vqabench.reporting.grids import Grid, Text
from vqabench.results import Manifest


@dataclass(frozen=True)
class Provenance:
    """What the seeds of a row share, and what is each one's own."""

    shared: tuple[tuple[str, str], ...]
    own: Grid


def describe_runs(name: str, manifests: Sequence[Manifest]) -> Provenance:
    """Lay out all that manifests say: what all of them share once, the rest in a line for each seed."""
    flat = [dict(_flatten(msgspec.to_builtins(manifest))) for manifest in manifests]
    keys = list(dict.fromkeys(key for one in flat for key in one if key != "seed"))
    shared = [key for key in keys if len({one.get(key) for one in flat}) == 1]
    differ = [key for key in keys if key not in shared]
    brands = "; ".join(dict.fromkeys(brand for manifest in manifests for brand in manifest.brands()))
    lines = tuple(
        (Text(str(manifest.seed)), *(Text(one.get(key, "–")) for key in differ))
        for manifest, one in zip(manifests, flat, strict=True)
    )
    facts = [(key, flat[0][key]) for key in shared]
    facts += [("not comparable with honest runs", brands)] if brands else []
    return Provenance(tuple(facts), Grid(f"{name}: what differs between the seeds", ("seed", *differ), 1, lines))


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, own in value.items():
        if isinstance(own, Mapping) and own:
            yield from _flatten(own, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _spell(own)


def _spell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_spell(own)}" for key, own in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(map(_spell, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None or value == "" else str(value)

"""A matrix of runs: backbones times losses times objectives, data sets and settings, each with its seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from vqabench.config import (
    RESERVED,
    TrainConfig,
    combine,
    flatten,
    make_config,
    parse_settings,
    read_fields,
    read_toml,
)
from vqabench.errors import InputError, NotDefinedError
from vqabench.results import Run
from vqabench.training.plan import Plan, make_plan
from vqabench.workflows.places import Places

LISTS = {"backbones": "backbone", "losses": "loss", "objectives": "objective", "datasets": "dataset"}
"""Key of a list -> the field that each of its values is for."""
WHOLE = ("device", "jobs", "features", "checkpoint-minutes")
"""Keys of the whole matrix: they decide where and how it is trained, not what."""
MATRIX_KEYS = (*LISTS, "grid", "matrix")


@dataclass(frozen=True)
class Block:
    """A product: every combination of its values."""

    lists: Mapping[str, Sequence[str]]
    """A key of LISTS -> its values."""
    grid: Mapping[str, Sequence[object]]
    """Setting -> its values."""
    common: Mapping[str, Any]
    """Fields of TrainConfig that all share."""


@dataclass(frozen=True)
class Cell:
    """One run of the matrix."""

    config: TrainConfig
    """With its one seed."""
    plan: Plan
    run: Run

    @property
    def name(self) -> str:
        """Name it, as tables do."""
        label = f" @{self.plan.label}" if self.plan.label else ""
        strategy = f"{self.plan.objective}-{self.plan.loss}{label}"
        return f"{self.config.dataset} {self.plan.backbone} {strategy} seed {self.config.seeds[0]}"


@dataclass(frozen=True)
class Matrix:
    """Runs, in the order in which they are trained, and what cannot be."""

    cells: tuple[Cell, ...]
    undefined: tuple[str, ...]
    """Why combinations are left out: a part of them is not defined for the others."""


def read_blocks(path: Path | None, line: Mapping[str, Any]) -> list[Block]:
    """Read a matrix from a TOML file and from the command line, which wins.

    The file has the keys of `train`'s, with lists in the place of backbone, loss, objective and dataset, and a
    table `grid`; tables `[[matrix]]` are products of their own, and share what stands above them.

    `line` holds lists, `grid`, `settings` and fields of TrainConfig, as far as they are given.
    Raises InputError where a key or a value is wrong.
    """
    table = read_toml(path) if path is not None else {}
    own = table.pop("matrix", [{}])
    if not isinstance(own, list) or not all(isinstance(one, dict) for one in own):
        raise InputError(f"{path}: write each product as a table [[matrix]]")
    for one in own:
        misplaced = [key for key in (*WHOLE, "matrix") if key in one]
        if misplaced:
            raise InputError(f"{path}: {misplaced[0]} is for the whole matrix: write it above [[matrix]]")
    file = path or Path("matrix")
    return [_make_block(_merge(_read_table(table, file), _read_table(one, file)), line) for one in own]


def _read_table(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Read the keys of one table: lists, `grid`, and fields of TrainConfig."""
    given: dict[str, Any] = {}
    for key in set(table) & {*LISTS, "grid"}:
        given[key] = _read_grid(table[key], path) if key == "grid" else _read_list(key, table[key], path)
    for key in set(table) & set(LISTS.values()):
        plural = next(name for name, field in LISTS.items() if field == key)
        raise InputError(f"{path}: {key}: a matrix has {plural}, a list")
    return given | read_fields({key: value for key, value in table.items() if key not in given}, path, MATRIX_KEYS)


def _read_list(key: str, value: object, path: Path) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: {key} = {value!r}: write a list of names")
    return names


def _read_grid(table: object, path: Path) -> dict[str, list[object]]:
    if not isinstance(table, dict):
        raise InputError(f"{path}: grid: write a table, as in grid = {{'mask.dropout' = [0.0, 0.5]}}")
    flat = dict(flatten(table))
    for key, values in flat.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{path}: grid: {key} = {values!r}: write a list of values")
    return flat


def _merge(above: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    settings = above.get("settings", {}) | own.get("settings", {})
    return {**above, **own, "settings": settings}


def _make_block(file: Mapping[str, Any], line: Mapping[str, Any]) -> Block:
    given = combine(file, line)
    if not given.get("backbones"):
        raise InputError("which backbones? name some, as in: vqabench bench --backbones updn,lmh")
    lists = {key: given[key] for key in LISTS if given.get(key)}
    rest = {key: value for key, value in given.items() if key not in (*LISTS, "grid")}
    return Block(lists, given.get("grid", {}), rest)


def parse_names(key: str, text: str) -> list[str]:
    """Read `updn,lmh`. Raises InputError where a name is empty or comes twice."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"--{key} {text!r}: write names with commas between them, each once")
    return names


def parse_grid(pairs: Iterable[str]) -> dict[str, list[object]]:
    """Read `KEY=VALUE,VALUE,...` pairs. Raises InputError as `parse_settings` does."""
    grid: dict[str, list[object]] = {}
    for key, values in parse_settings(pairs, "--grid").items():
        grid[key] = list(parse_names(f"grid {key}", str(values)))
    return grid


def make_matrix(blocks: Iterable[Block], places: Places) -> Matrix:
    """Make all runs, each once; the first seeds of all configurations stand before the second ones.

    Raises InputError where a name or a setting is wrong, or nothing is left to train.
    """
    found: dict[Path, tuple[int, Cell]] = {}
    undefined: dict[str, None] = {}
    for config in (config for block in blocks for config in _expand(block)):
        try:
            plan = make_plan(config, places.dataset(config.dataset).entry.recipe)
        except NotDefinedError as error:
            undefined[str(error)] = None
            continue
        for number, seed in enumerate(config.seeds):
            run = Run(plan.folder(places.runs, seed))
            found.setdefault(run.folder, (number, Cell(replace(config, seeds=(seed,)), plan, run)))
    if not found:
        raise InputError(f"nothing to train: {'; '.join(undefined)}")
    cells = tuple(cell for _, cell in sorted(found.values(), key=itemgetter(0)))
    return Matrix(cells, tuple(undefined))


def _expand(block: Block) -> Iterator[TrainConfig]:
    """Give every combination of a block; a setting of a part goes to the strategies that have the part."""
    parts = {part for loss in block.lists.get("losses", ["plain"]) for part in _parts(loss)}
    for values in itertools.product(*block.lists.values()):
        fields = dict(zip(map(LISTS.__getitem__, block.lists), values, strict=True))
        foreign = parts - set(_parts(fields.get("loss", "plain"))) - set(RESERVED)
        grid = {key: own for key, own in block.grid.items() if key.partition(".")[0] not in foreign}
        shared = {key: own for key, own in block.common["settings"].items() if key.partition(".")[0] not in foreign}
        for chosen in itertools.product(*grid.values()):
            point = dict(zip(grid, chosen, strict=True))
            labelled = _label(block.common.get("label"), point)
            yield make_config({**block.common, **fields, **labelled, "settings": shared | point})


def _parts(loss: str) -> list[str]:
    return [part.strip().rpartition(":")[2] for part in loss.split("+")]


def _label(label: str | None, point: Mapping[str, object]) -> dict[str, str]:
    """Tell the points of a grid apart where the user has given them one label."""
    if label is None:
        return {}
    return {"label": "-".join([label, *(f"{key}-{value}" for key, value in point.items())])}

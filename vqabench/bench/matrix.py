"""A matrix of runs: backbones times losses times objectives, data sets and settings, each with its seeds."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from vqabench.config import (
    FIELDS,
    OPTIONS,
    TrainConfig,
    combine,
    flatten,
    make_config,
    parse_settings,
    read_fields,
    read_toml,
)
from vqabench.errors import InputError, NotDefinedError
from vqabench.paths import Paths
from vqabench.plugins import BACKBONES, LOSSES, Plugin, find
from vqabench.plugins import names as names_of
from vqabench.results import Run
from vqabench.training.plan import Plan, check_splits, make_plan

LISTS = {"backbones": "backbone", "losses": "loss", "objectives": "objective", "datasets": "dataset"}
"""Key of a list -> the field that each of its values is for."""
WHOLE = tuple(option.key for option in OPTIONS.values() if option.whole_matrix)
"""Keys of the whole matrix: where and how it is trained, not what."""
BLOCK_KEYS = (*LISTS, "grid", *(FIELDS.keys() - {*LISTS.values(), *WHOLE}))
"""Keys that a product may have."""
MOST_RUNS = 10_000
"""Runs of one matrix: more are a mistake, and would take minutes to plan."""


@dataclass(frozen=True)
class Block:
    """A product: every combination of its values."""

    lists: Mapping[str, Sequence[str]]
    """A key of LISTS -> its values."""
    settings: Mapping[str, object]
    """Setting -> its value; for a setting of a grid, a tuple of its values."""
    common: Mapping[str, Any]
    """Other fields of TrainConfig, the same for all."""


@dataclass(frozen=True)
class MatrixCell:
    """One run of the matrix."""

    config: TrainConfig
    """The configuration, with exactly one seed."""
    plan: Plan
    run: Run

    @property
    def seed(self) -> int:
        """Return its seed."""
        return self.config.seeds[0]

    @property
    def name(self) -> str:
        """Return its name, as in tables."""
        plan = self.plan
        label = f" @{plan.label}" if plan.label else ""
        return f"{self.config.dataset} {plan.backbone} {plan.objective}-{plan.loss}{label} seed {self.seed}"


@dataclass(frozen=True)
class Matrix:
    """Runs, in the order in which they are trained, and those that cannot be trained."""

    cells: tuple[MatrixCell, ...]
    undefined: tuple[str, ...]
    """Reasons why combinations are left out: one of their parts is not defined for another."""
    broken: Mapping[str, str]
    """Runs whose plugins cannot be loaded, by name: the reason."""


def read_blocks(path: Path | None, line: Mapping[str, Any]) -> list[Block]:
    """Read a matrix from a TOML file and from the command line, which takes precedence.

    The file has the keys of `train --config`, but lists instead of backbone, loss, objective and dataset, and a
    table `grid`. Each table `[[matrix]]` is a product of its own, with the keys above it as defaults.

    `line` holds lists, `settings` (as `with_grid` gives them) and fields of TrainConfig, as far as they are given.
    Raises InputError if a key or a value is wrong, or the matrix is too large.
    """
    if path is None:
        blocks = [_make_block({}, line)]
    else:
        table = read_toml(path)
        products = table.pop("matrix", [{}])
        if not isinstance(products, list) or not products or not all(isinstance(one, dict) for one in products):
            raise InputError(f"{path}: write each product as a table [[matrix]]")
        above = _read_table(table, path, [*BLOCK_KEYS, *WHOLE, "matrix"])
        blocks = [_make_block(combine(above, _read_table(own, path, BLOCK_KEYS)), line) for own in products]
    count = sum(map(_count_runs, blocks))
    if count > MOST_RUNS:
        raise InputError(
            f"{count:,} runs are too many; a matrix may have at most {MOST_RUNS:,}: shorten lists or grids"
        )
    return blocks


def _read_table(table: Mapping[str, Any], path: Path, valid: Sequence[str]) -> dict[str, Any]:
    """Read the keys of one table: lists, and fields of TrainConfig, with `grid` among the settings."""
    for key in table:
        if key in LISTS.values():
            plural = next(name for name, field in LISTS.items() if field == key)
            raise InputError(f"{path}: {key}: in a matrix, write {plural}, a list")
        if key in {*WHOLE, "matrix"} - set(valid):
            raise InputError(f"{path}: {key} is for the whole matrix: write it above [[matrix]]")
    lists = {key: read_names(f"{path}: {key}", table[key]) for key in LISTS if key in table}
    fields = read_fields({key: table[key] for key in table if key not in (*LISTS, "grid")}, path, valid)
    grid = _read_grid(table.get("grid", {}), path)
    return {**lists, **fields, "settings": with_grid(fields.get("settings", {}), grid, str(path))}


def read_names(where: str, value: object) -> list[str]:
    """Read a list of names, or `ONE,OTHER`. Raises InputError if a name is empty or repeated."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where} = {value!r}: write a list of names")
    names = [name.strip() for name in names]
    if not names or not all(names) or len(set(names)) < len(names):
        raise InputError(f"{where} {value!r}: write one or more, each once")
    return names


def _read_grid(table: object, path: Path) -> dict[str, tuple[object, ...]]:
    if not isinstance(table, dict):
        raise InputError(f"{path}: grid: write a table, as in grid = {{ mask.dropout = [0.0, 0.5] }}")
    grid = {}
    for key, values in flatten(table):
        if not isinstance(values, list) or not values:
            raise InputError(f"{path}: grid: {key} = {values!r}: write a list of values")
        grid[key] = tuple(values)
    return grid


def parse_grid(pairs: Iterable[str]) -> dict[str, tuple[object, ...]]:
    """Read `KEY=VALUE,VALUE,...` pairs. Raises InputError as `parse_settings` does."""
    settings = parse_settings(pairs, "--grid")
    return {key: tuple(read_names(f"--grid {key}", values)) for key, values in settings.items()}


def with_grid(
    settings: Mapping[str, object], grid: Mapping[str, tuple[object, ...]], where: str
) -> dict[str, object]:
    """Merge settings and a grid. Raises InputError if a setting is in both."""
    for key in settings.keys() & grid.keys():
        raise InputError(f"{where}: {key} is set, and has a grid too: choose one")
    return {**settings, **grid}


def _make_block(file: Mapping[str, Any], line: Mapping[str, Any]) -> Block:
    given = combine(file, line)
    if "backbones" not in given:
        raise InputError(
            "no backbones given; name some, as in: vqabench bench --backbones NAME,NAME (list them: vqabench "
            "plugins list)"
        )
    lists = {key: given.pop(key) for key in LISTS if key in given}
    return Block(lists, given.pop("settings"), given)


def _count_runs(block: Block) -> int:
    """Count the runs of a product, before they are made."""
    losses = block.lists.get("losses", ["plain"])
    others = math.prod(len(values) for key, values in block.lists.items() if key != "losses")
    points = sum(math.prod(map(len, _grid_of(_settings_of(block, loss)).values())) for loss in losses)
    return others * points * len(block.common.get("seeds", (0,)))


def find_plugins(blocks: Iterable[Block]) -> list[Plugin]:
    """Return the plugins that a matrix names, each once. Raises InputError if a name is unknown."""
    found: dict[Plugin, None] = {}
    for block in blocks:
        settings = [one if isinstance(one, tuple) else (one,) for one in block.settings.values()]
        backbones, losses = block.lists.get("backbones", ()), block.lists.get("losses", ())
        found |= dict.fromkeys(_find_named(backbones, losses, itertools.chain(*settings)))
    return list(found)


def _find_named(backbones: Iterable[str], losses: Iterable[str], values: Iterable[object]) -> Iterator[Plugin]:
    """Yield the plugins of some backbones, strategies and values of settings."""
    yield from (find(BACKBONES, name) for name in backbones)
    yield from (find(LOSSES, part.strip()) for loss in losses for part in loss.split("+"))
    installed = set(names_of(BACKBONES))
    for value in values:
        if str(value).rpartition(":")[2] in installed:  # a base, most likely
            with suppress(InputError):
                yield find(BACKBONES, str(value))


def make_matrix(blocks: Sequence[Block], paths: Paths, broken: Mapping[str, str] = {}) -> Matrix:
    """Make all runs, each once; the first seeds of all configurations come before the second ones.

    `broken` says why plugins, by their qualified names, must not be loaded.

    Raises InputError if a name or a setting is wrong, two configurations share a name, or nothing is left to
    train.
    """
    found: dict[Path, tuple[int, MatrixCell]] = {}
    undefined: dict[str, None] = {}
    failed: dict[str, str] = {}
    for block, config in ((one, config) for one in blocks for config in _expand(one)):
        dataset = paths.dataset(config.dataset)
        named = _find_named([config.backbone], [config.loss], config.settings.values()) if broken else ()
        reason = next((broken[one.qualified] for one in named if one.qualified in broken), None)
        if reason is not None:
            strategy = f"{config.objective or ''}-{config.loss}".lstrip("-")
            label = f" @{config.label}" if config.label else ""
            names = [f"{config.dataset} {config.backbone} {strategy}{label} seed {seed}" for seed in config.seeds]
            failed |= dict.fromkeys(names, reason)
            continue
        try:
            plan = make_plan(config, dataset.entry.recipe)
        except NotDefinedError as error:
            undefined[str(error)] = None
            continue
        except InputError as error:
            key = str(error).removeprefix("--set ").partition(":")[0]
            if key in _grid_of(block.settings):
                raise InputError(str(error).replace("--set", "--grid", 1)) from error
            raise
        check_splits(config, dataset)
        for number, seed in enumerate(config.seeds):
            run = Run(plan.folder(paths.runs, seed))
            cell = MatrixCell(replace(config, seeds=(seed,)), plan, run)
            _, first = found.setdefault(run.folder, (number, cell))
            # Runs of one folder must agree in what its name leaves out too, such as the whole path of --from.
            ours, theirs = (
                (one.plan.identity(), one.config.precision, one.config.start_from) for one in (cell, first)
            )
            if ours != theirs:
                raise InputError(f"{cell.name}: two configurations share this name; give each a distinct label")
    if not found:
        reasons = dict.fromkeys((*undefined, *failed.values()))
        raise InputError(f"nothing to train: {'; '.join(reasons)}")
    cells = tuple(cell for _, cell in sorted(found.values(), key=itemgetter(0)))
    return Matrix(cells, tuple(undefined), failed)


def _expand(block: Block) -> Iterator[TrainConfig]:
    """Yield every combination of a block; a setting of a part goes to the strategies that have the part."""
    for names in itertools.product(*block.lists.values()):
        fields = dict(zip(map(LISTS.__getitem__, block.lists), names, strict=True))
        own = _settings_of(block, fields.get("loss", "plain"))
        grid = _grid_of(own)
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            label = _label(block.common.get("label"), point)
            yield make_config({**block.common, **fields, "label": label, "settings": own | point})


def _settings_of(block: Block, loss: str) -> dict[str, object]:
    """Return the settings of a block that apply to a strategy, without those of parts that it does not have."""
    parts = {part for other in block.lists.get("losses", ["plain"]) for part in _parts(other)}
    foreign = parts - set(_parts(loss))
    return {key: value for key, value in block.settings.items() if key.rpartition(".")[0] not in foreign}


def _grid_of(settings: Mapping[str, object]) -> dict[str, tuple[object, ...]]:
    return {key: values for key, values in settings.items() if isinstance(values, tuple)}


def _parts(loss: str) -> list[str]:
    return [part.strip().rpartition(":")[2] for part in loss.split("+")]


def _label(label: str | None, point: Mapping[str, object]) -> str | None:
    """Make the labels of a grid's points distinct if the user gave one label for all."""
    if label is None or not point:
        return label
    spelled = "-".join([label, *(f"{key}-{value}" for key, value in point.items())])
    if re.fullmatch(r"[A-Za-z0-9._+-]{1,80}", spelled):
        return spelled
    return f"{label[:71]}-{hashlib.sha256(spelled.encode()).hexdigest()[:8]}"

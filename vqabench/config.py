"""What a user asks of a training run, read from the command line and from a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from vqabench.errors import InputError, unknown

Objective = Literal["ce", "bce"]
Select = Literal["last", "val", "test"]
Precision = Literal["auto", "float32", "bfloat16"]
Features = Literal["auto", "device", "host", "disk"]
LogName = Literal["tensorboard", "wandb"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One configuration, to be trained with one or several seeds."""

    backbone: str
    loss: str = "plain"
    """Parts joined by `+`: any number of transforms and at most one loss."""
    objective: str | None = None
    """`bce` or `ce`; by default `ce`, or `bce` where a part is defined for that alone."""
    dataset: str = "digits-cp"
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None
    """Epochs of the first (or only) stage; None: the recipe's."""
    finetune_epochs: int | None = None
    """Epochs of the second stage, or of a run that starts from another; None: the recipe's."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Options: `KEY` is the backbone's, `PART.KEY` a part's, `recipe.KEY` the recipe's."""
    start_from: Path | None = None
    """A finished run, whose weights this one starts from."""
    label: str | None = None
    """What folders and tables call the settings; None: those that differ from the defaults, spelled out."""
    select: Select = "last"
    track_test: bool = False
    device: str = "auto"
    precision: Precision = "auto"
    features: Features = "auto"
    """Where region features are kept while a model is trained."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints within an epoch."""
    log: tuple[LogName, ...] = ()
    """Logs that are written beside the run's own; nothing here bears on what is trained."""
    jobs: int | None = None
    """Seeds that are trained at the same time; None: as many as are faster so."""


RESERVED = ("recipe", "backbone")
"""What no part of a run may be called: settings of these names are the run's own."""

FILE_KEYS = {
    "backbone": "backbone",
    "loss": "loss",
    "objective": "objective",
    "dataset": "dataset",
    "seeds": "seeds",
    "epochs": "epochs",
    "finetune-epochs": "finetune_epochs",
    "set": "settings",
    "from": "start_from",
    "label": "label",
    "select": "select",
    "track-test": "track_test",
    "device": "device",
    "precision": "precision",
    "features": "features",
    "checkpoint-minutes": "checkpoint_minutes",
    "log": "log",
    "jobs": "jobs",
}
"""Key of a configuration file -> field of TrainConfig; the keys are those of the command line."""

_FILE_TYPES: dict[str, type | tuple[type, ...]] = {
    "seeds": (str, int, list),
    "epochs": int,
    "finetune-epochs": int,
    "set": dict,
    "track-test": bool,
    "checkpoint-minutes": (int, float),
    "log": (str, list),
    "jobs": int,
}


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a TOML file with the command line's keys: fields of TrainConfig.

    Raises InputError where the file is not TOML, or a key is unknown or of the wrong kind.
    """
    return read_fields(read_toml(path), path)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises InputError where there is none, or it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such configuration file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a configuration in TOML: {error}") from error


def read_fields(table: Mapping[str, Any], path: Path, valid: Iterable[str] = FILE_KEYS) -> dict[str, Any]:
    """Turn a table with the command line's keys into fields of TrainConfig.

    `valid` are the keys that a user is told of where one is unknown. Raises InputError where a key is unknown or of
    the wrong kind.
    """
    for key, value in table.items():
        if key not in FILE_KEYS:
            raise InputError(f"{path}: {unknown('key', key, valid)}")
        kind = _FILE_TYPES.get(key, str)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{path}: {key} = {value!r} is of the wrong kind")
    given: dict[str, Any] = {FILE_KEYS[key]: value for key, value in table.items()}
    if "seeds" in given:
        seeds = given["seeds"]
        given["seeds"] = parse_seeds(",".join(map(str, seeds)) if isinstance(seeds, list) else str(seeds))
    if "log" in given:
        given["log"] = (given["log"],) if isinstance(given["log"], str) else tuple(given["log"])
    if "start_from" in given:
        given["start_from"] = Path(given["start_from"])
    if "settings" in given:
        given["settings"] = dict(flatten(given["settings"]))
    return given


def combine(file: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """Combine the fields that a file and the command line give; the line wins, in either spelling of an option."""
    doubled = {f"recipe.{name}" for name in line}
    settings = {key: value for key, value in file.get("settings", {}).items() if key not in doubled}
    kept = {name: value for name, value in file.items() if f"recipe.{name}" not in line["settings"]}
    return {**kept, **line, "settings": settings | line["settings"]}


def make_config(given: Mapping[str, Any]) -> TrainConfig:
    """Check the values of a configuration's fields. Raises InputError, saying what is allowed."""
    if not given.get("backbone"):
        raise InputError("which backbone? name one, as in: vqabench train NAME (see: vqabench plugins list)")
    _check_choice("--select", given.get("select"), get_args(Select))
    _check_choice("--precision", given.get("precision"), get_args(Precision))
    _check_choice("--features", given.get("features"), get_args(Features))
    logs = given.get("log", ())
    for name in logs:
        _check_choice("--log", name, get_args(LogName))
        if logs.count(name) > 1:
            raise InputError(f"--log {name}: given twice")
    if not given.get("checkpoint_minutes", 1) > 0:
        raise InputError(f"--checkpoint-minutes must be above 0, not {given['checkpoint_minutes']}")
    _check_choice("--objective", given.get("objective"), get_args(Objective))
    label = given.get("label")
    if label is not None and not re.fullmatch(r"[A-Za-z0-9._+-]{1,80}", label):
        raise InputError(f"--label {label!r}: write 1 to 80 letters, digits or . _ + -")
    for name in ("epochs", "finetune_epochs", "jobs"):
        value = given.get(name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if given.get("start_from") is not None and given.get("epochs") is not None:
        raise InputError("a run --from another has one stage; set its length with --finetune-epochs")
    known = {field.name for field in fields(TrainConfig)}
    assert set(given) <= known, set(given) - known
    return TrainConfig(**given)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `0`, `0,1,2` or `0-4`. Raises InputError where it is something else, or names a seed twice."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if match is None:
            raise InputError(f"seeds {text!r}: write 0, or 0,1,2, or 0-4")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= 1000:
            raise InputError(f"seeds {text!r}: {part.strip()!r} is not a range of at most 1000 increasing numbers")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {text!r}: a seed is named twice")
    if max(seeds) >= 2**63:
        raise InputError(f"seeds {text!r}: a seed must be below 2**63")
    return tuple(seeds)


def parse_settings(pairs: Iterable[str], option: str = "--set") -> dict[str, object]:
    """Read the `KEY=VALUE` pairs of an option. Raises InputError where a pair has no `=` or a key comes twice."""
    settings: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError(f"{option} {pair!r}: write KEY=VALUE, as in {option} rescale.variant=released")
        if key in settings:
            raise InputError(f"{option} {key}: given twice")
        settings[key] = value.strip()
    return settings


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Turn nested tables into dotted keys."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_choice(option: str, value: object, allowed: Iterable[str]) -> None:
    if value is not None and value not in tuple(allowed):
        raise InputError(f"{option}: {unknown('value', str(value), allowed)}")

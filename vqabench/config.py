"""The options of a training run: their one declaration, read from the command line and from TOML files.

A field of TrainConfig is an option. The flag of `vqabench train`, the key in TOML files, the line in the help, the
checks, the arguments of a child process, and the record in `run.json` all follow from its declaration.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from vqabench.errors import InputError, unknown

Objective = Literal["ce", "bce"]
Select = Literal["last", "val", "test"]
Precision = Literal["auto", "float32", "bfloat16"]
Features = Literal["auto", "device", "host", "disk"]
LogName = Literal["tensorboard", "wandb"]
Seeds = tuple[int, ...]
Settings = Mapping[str, object]

WHAT, HOW = "What to train", "How to run it"
"""Headings of the help."""
FROM_RECIPE = "set by the data set or the backbone"


@dataclass(frozen=True)
class TrainOption:
    """An option of `vqabench train`, declared in the annotation of a field of TrainConfig."""

    panel: str
    """Heading of the help under which it stands; empty for the argument."""
    metavar: str
    """Empty: its choices."""
    help: str
    unset: str = ""
    """What None stands for, in words."""
    positive: bool = False
    whole_matrix: bool = False
    """Whether a matrix has one value for all its runs: where and how to train, not what."""
    key: str = ""
    """Name in TOML files, and after two dashes on the command line; empty: the field's, with dashes."""
    kind: Any = str
    """Type of the field, without None."""
    default: Any = None

    @property
    def is_list(self) -> bool:
        """Return whether it holds several values, each given by a flag of its own."""
        return get_origin(self.kind) is tuple and self.kind != Seeds

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the values of a Literal, or of a tuple of them."""
        kind = get_args(self.kind)[0] if self.is_list else self.kind
        return get_args(kind) if get_origin(kind) is Literal else ()

    def describe(self) -> str:
        """Return the help text, with the default."""
        has_none = isinstance(self.default, bool) or self.default in (None, (), {})
        default = self.unset if has_none else _format(self.default)
        return f"{self.help} [default: {default}]" if default else self.help

    def read(self, value: Any) -> Any:
        """Convert a value from a TOML file or the command line. Raises InputError if it is of the wrong type."""
        accepted, expected = _ACCEPTED.get(self.kind, ((str, list), "text") if self.is_list else (str, "text"))
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            raise InputError(f"{self.key} = {value!r}: must be {expected}")
        if self.kind == Settings:
            return dict(flatten(value))
        if self.kind == Seeds:
            return parse_seeds(_format(value))
        if self.is_list:
            return (value,) if isinstance(value, str) else tuple(value)
        return Path(value) if self.kind is Path else value

    def check(self, value: Any) -> None:
        """Raise InputError if a value is not among the choices, or not positive."""
        if value is None:
            return
        values = value if self.is_list else (value,)
        for one in values:
            if self.choices and one not in self.choices:
                raise InputError(f"--{self.key}: {unknown('value', str(one), self.choices)}")
            if values.count(one) > 1:
                raise InputError(f"--{self.key} {one}: given twice")
        if self.positive and not value > 0:
            least = "above 0" if self.kind is float else "at least 1"
            raise InputError(f"--{self.key} must be {least}, not {value}")

    def to_arguments(self, value: Any) -> list[str]:
        """Return the arguments of a command line that give a value."""
        if isinstance(value, bool):
            return [f"--{'' if value else 'no-'}{self.key}"]
        if isinstance(value, Mapping):
            return [f"--{self.key}={key}={'none' if one is None else one}" for key, one in value.items()]
        return [f"--{self.key}={_format(one)}" for one in (value if self.is_list else [value])]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One configuration, to be trained with one or several seeds.

    Raises InputError if a value is not allowed.
    """

    backbone: Annotated[
        str,
        TrainOption(
            "",
            "BACKBONE",
            "An installed backbone (list them: vqabench plugins list). Required unless --config names one.",
        ),
    ] = ""
    loss: Annotated[
        str,
        TrainOption(WHAT, "STRATEGY", "A loss, transforms such as mask, or both joined by +, as in mask+rescale."),
    ] = "plain"
    objective: Annotated[
        Objective | None,
        TrainOption(WHAT, "", "Softmax or binary cross-entropy.", "ce, unless the backbone supports only bce"),
    ] = None
    dataset: Annotated[str, TrainOption(WHAT, "DATASET", "A data set (list them: vqabench data list).")] = (
        "digits-cp"
    )
    seeds: Annotated[Seeds, TrainOption(WHAT, "SEEDS", "One seed (0), a list (0,1,2) or a range (0-4).")] = (0,)
    epochs: Annotated[
        int | None,
        TrainOption(WHAT, "N", "Epochs of the first (or only) stage.", FROM_RECIPE, positive=True),
    ] = None
    finetune_epochs: Annotated[
        int | None,
        TrainOption(
            WHAT,
            "N",
            "Epochs of the second stage, or of a run started with --from.",
            FROM_RECIPE,
            positive=True,
        ),
    ] = None
    settings: Annotated[
        Settings,
        TrainOption(
            WHAT,
            "KEY=VALUE",
            "Set an option of the backbone (hidden=512), of a part of the strategy (rescale.variant=released) or "
            "of the recipe (recipe.lr=0.001); repeatable. List them: vqabench plugins show NAME.",
            key="set",
        ),
    ] = field(default_factory=dict)
    start_from: Annotated[
        Path | None, TrainOption(WHAT, "RUN", "Start from the weights of a finished run.", key="from")
    ] = None
    label: Annotated[
        str | None,
        TrainOption(
            WHAT,
            "NAME",
            "Name these settings in folders and tables.",
            "the settings that differ from the defaults",
        ),
    ] = None
    select: Annotated[
        Select,
        TrainOption(
            HOW,
            "",
            "Which epoch to keep: the last, or the best one on val (or test) in the last stage. Choosing on test "
            "marks every table made from the run.",
        ),
    ] = "last"
    track_test: Annotated[
        bool, TrainOption(HOW, "", "Record test accuracy after every epoch, without using it to choose one.")
    ] = False
    device: Annotated[
        str,
        TrainOption(
            HOW, "auto|cpu|cuda|cuda:N", "Where to compute; auto is the GPU if there is one.", whole_matrix=True
        ),
    ] = "auto"
    precision: Annotated[
        Precision, TrainOption(HOW, "", "auto is bfloat16 where the hardware supports it, else float32.")
    ] = "auto"
    features: Annotated[
        Features,
        TrainOption(
            HOW,
            "",
            "Where to keep region features: GPU memory, main memory, or the disk. auto uses the first with "
            "enough room.",
            whole_matrix=True,
        ),
    ] = "auto"
    checkpoint_minutes: Annotated[
        float,
        TrainOption(HOW, "MINUTES", "Time between checkpoints within an epoch.", positive=True, whole_matrix=True),
    ] = 10.0
    log: Annotated[
        tuple[LogName, ...], TrainOption(HOW, "", "Also log to TensorBoard or Weights & Biases; repeatable.")
    ] = ()
    jobs: Annotated[
        int | None,
        TrainOption(
            HOW,
            "N",
            "Seeds to train at the same time, each in its own process.",
            "1; small models on a CPU: one per core",
            positive=True,
            whole_matrix=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        if not self.backbone:
            raise InputError(
                "no backbone given; name one, as in: vqabench train NAME (list them: vqabench plugins list)"
            )
        for name, option in OPTIONS.items():
            option.check(getattr(self, name))
        if self.label is not None and not re.fullmatch(r"[A-Za-z0-9._+-]{1,80}", self.label):
            raise InputError(f"--label {self.label!r}: write 1 to 80 letters, digits or . _ + -")
        if self.start_from is not None and self.epochs is not None:
            raise InputError("a run started with --from has one stage; set its length with --finetune-epochs")


_ACCEPTED: dict[Any, tuple[Any, str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    bool: (bool, "true or false"),
    Path: ((str, Path), "text"),
    Seeds: ((int, str, list), "a number, a list of numbers, or text such as '0-4'"),
    Settings: (dict, "a table"),
}
"""Type of a field -> the types of its values in files and on the command line, and their name. Else text."""


def _complete(declared: Field[Any]) -> TrainOption:
    """Return the option of a field, with its type, default and key."""
    kind, option = get_args(declared.type)
    if type(None) in get_args(kind):
        kind = get_args(kind)[0]
    default = declared.default if declared.default_factory is MISSING else declared.default_factory()
    completed: TrainOption = replace(
        option, kind=kind, default=default, key=option.key or declared.name.replace("_", "-")
    )
    return completed


OPTIONS = {declared.name: _complete(declared) for declared in fields(TrainConfig)}
"""Field of TrainConfig -> its option."""
FIELDS = {option.key: name for name, option in OPTIONS.items()}
"""Key of a TOML file -> field of TrainConfig."""
RESERVED = ("recipe", "backbone")
"""Names that no part of a run may have: settings of these names belong to the run itself."""


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a TOML file into fields of TrainConfig. Raises InputError as `read_toml` and `read_fields` do."""
    return read_fields(read_toml(path), path)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises InputError if there is none, or it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such configuration file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a configuration in TOML: {error}") from error


def read_fields(table: Mapping[str, Any], path: Path, valid: Iterable[str] = FIELDS) -> dict[str, Any]:
    """Convert the table of a TOML file into fields of TrainConfig.

    Raises InputError, which lists the keys `valid`, if a key is unknown, or if a value is of the wrong type.
    """
    for key in table:
        if key not in FIELDS:
            raise InputError(f"{path}: {unknown('key', key, valid)}")
    try:
        return {FIELDS[key]: OPTIONS[FIELDS[key]].read(value) for key, value in table.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_line(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the values of the command line into fields of TrainConfig; None is an option that is not given."""
    return {
        name: parse_settings(value) if OPTIONS[name].kind == Settings else OPTIONS[name].read(value)
        for name, value in given.items()
        if value is not None
    }


def combine(file: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """Combine the fields of a file and of the command line, which takes precedence.

    An option and the setting `recipe.OPTION` are two names of the same value.
    """
    settings = line.get("settings", {})
    doubled = {f"recipe.{name}" for name in line}
    kept = {name: value for name, value in file.items() if f"recipe.{name}" not in settings}
    kept_settings = {key: value for key, value in file.get("settings", {}).items() if key not in doubled}
    return {**kept, **line, "settings": {**kept_settings, **settings}}


def to_arguments(config: TrainConfig) -> list[str]:
    """Return the options of `vqabench train` that differ from the defaults, and the backbone."""
    values = [(option, getattr(config, name)) for name, option in OPTIONS.items() if option.panel]
    words = [word for option, value in values if value != option.default for word in option.to_arguments(value)]
    return [*words, "--", config.backbone]


def to_table(config: TrainConfig) -> dict[str, object]:
    """Return the options that differ from the defaults, by their keys in TOML files, without seeds and jobs."""
    table: dict[str, object] = {}
    for name, option in OPTIONS.items():
        value = getattr(config, name)
        if value != option.default and name not in ("seeds", "jobs"):
            table[option.key] = str(value) if isinstance(value, Path) else value
    return table


def make_config(given: Mapping[str, Any]) -> TrainConfig:
    """Return a configuration with these fields. Raises InputError if a value is not allowed."""
    return TrainConfig(**given)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `0`, `0,1,2` or `0-4`. Raises InputError if it is something else, or names a seed twice."""
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
    """Read the `KEY=VALUE` pairs of an option. Raises InputError if a pair has no `=` or a key comes twice."""
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


def _format(value: Any) -> str:
    """Format a value as on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

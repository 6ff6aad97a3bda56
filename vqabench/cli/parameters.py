"""Parameters that several commands share."""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from vqabench.cli.completion import (
    complete_backbones,
    complete_choices,
    complete_datasets,
    complete_devices,
    complete_losses,
    complete_settings,
)
from vqabench.cli.help import PLACES
from vqabench.config import HOW, OPTIONS, Settings, TrainOption
from vqabench.events import Emit, Warn


@contextmanager
def reporting_signals(emit: Emit, kept: str | Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C and other watched signals into a message about what is kept, and an exit code."""
    try:
        yield
    except KeyboardInterrupt as stop:
        from vqabench.training import interruption

        interruption.raised = None
        message, code = interruption.describe_stop(stop)
        emit(Warn(f"{message}; {kept if isinstance(kept, str) else kept()}"))
        raise typer.Exit(code) from None


def rank() -> int | None:
    """Return the number of this process among several that train together; None if it is alone."""
    several = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    return int(os.environ["RANK"]) if several else None


def one_of(kind: Any, **declared: Any) -> Any:
    """Declare an option whose values are those of a Literal: help shows them and the shell completes them.

    Typer checks the value if the option's type is the Literal, too; else the workflow does.
    """
    return typer.Option(
        metavar="|".join(get_args(kind)), autocompletion=complete_choices(get_args(kind)), **declared
    )


COMPLETERS = {
    "backbone": complete_backbones,
    "loss": complete_losses,
    "dataset": complete_datasets,
    "settings": complete_settings,
    "device": complete_devices,
}
"""Field of TrainConfig -> what the shell completes, if not its choices."""


def with_options(*names: str, **helps: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options of TrainConfig to a command, which receives them as `**given`: None if not given.

    `names` are fields of TrainConfig; `helps` are others, with a help text of the command's own. In the help, what
    to train stands before `--config`, and how to run it at the end.
    """
    options = [_to_parameter(name, OPTIONS[name], helps.get(name)) for name in (*names, *helps)]
    how = [option for option in options if OPTIONS[option.name].panel == HOW]
    what = [option for option in options if option not in how]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command).parameters
        before = list(own.values())[: list(own).index("config")]
        after = [one for one in own.values() if one not in before and one.kind is not one.VAR_KEYWORD]
        keywords = [one.replace(kind=one.KEYWORD_ONLY) for one in (*before, *what, *after, *how)]
        command.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]  # what Typer reads
        return command

    return add


def _to_parameter(name: str, option: TrainOption, text: str | None) -> inspect.Parameter:
    """Return an option as Typer reads it. TrainConfig checks choices and bounds, as for a configuration file."""
    completer = COMPLETERS.get(name) or (complete_choices(option.choices) if option.choices else None)
    shown: dict[str, Any] = {
        "help": text or option.describe(),
        "metavar": option.metavar or "|".join(option.choices) or None,
        "rich_help_panel": option.panel or None,
        "autocompletion": completer,
    }
    flag = f"--{option.key}/--no-{option.key}" if option.kind is bool else f"--{option.key}"
    declared = typer.Option(None, flag, **shown) if option.panel else typer.Argument(None, **shown)
    is_list = option.is_list or option.kind == Settings
    kind: Any = list[str] if is_list else option.kind if option.kind in (int, float, bool, Path) else str
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=declared, annotation=kind | None)


SplitName = Literal["train", "val", "test"]

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder of all data sets. [default: the user's data folder]",
        envvar="VQABENCH_DATA",
        rich_help_panel=PLACES,
    ),
]
Catalog = Annotated[
    list[Path] | None,
    typer.Option(
        "--catalog",
        metavar="FILE",
        help="Your own catalogue of data sets, in TOML; repeatable.",
        envvar="VQABENCH_CATALOG",
        rich_help_panel=PLACES,
    ),
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of all runs.", rich_help_panel=PLACES)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N",
        help="Where to compute; auto is the GPU if there is one.",
        autocompletion=complete_devices,
    ),
]
DatasetName = Annotated[
    str,
    typer.Argument(metavar="DATASET", help="A data set, such as digits-cp.", autocompletion=complete_datasets),
]

"""Parameters that several commands share."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from vqabench.cli.completion import complete_choices, complete_datasets, complete_devices
from vqabench.cli.help import PLACES
from vqabench.events import Emit, Warn


@contextmanager
def telling_of_signals(emit: Emit, kept: str | Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C, and other signals that are watched, into a line that says what is kept, and an exit code."""
    try:
        yield
    except KeyboardInterrupt as stop:
        from vqabench.training.interruption import acknowledge, describe_stop

        acknowledge()
        message, code = describe_stop(stop)
        emit(Warn(f"{message}; {kept if isinstance(kept, str) else kept()}"))
        raise typer.Exit(code) from None


def rank() -> int | None:
    """Return the number of this process among several that train together; None if it is alone."""
    several = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    return int(os.environ["RANK"]) if several else None


def one_of(kind: Any, **declared: Any) -> Any:
    """Declare an option whose values are those of a Literal: help shows them and the shell completes them.

    Whoever takes the value checks it, so that a configuration file meets the same rule.
    """
    return typer.Option(metavar="|".join(get_args(kind)), autocompletion=complete_choices(kind), **declared)


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

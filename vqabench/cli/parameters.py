"""Parameters that several commands share, and what the shell offers for them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, get_args

import typer


@contextmanager
def telling_of_signals(warn: Callable[[str], None], kept: str | Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C, and other signals that are watched, into a line on what is kept, and an exit code."""
    try:
        yield
    except KeyboardInterrupt as stop:
        from vqabench.training.interruption import describe_stop

        message, code = describe_stop(stop)
        warn(f"{message}; {kept if isinstance(kept, str) else kept()}")
        raise typer.Exit(code) from None


def rank() -> int | None:
    """Give the number of this process among several that train together; None where it is alone."""
    several = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    return int(os.environ["RANK"]) if several else None


def complete_backbones(incomplete: str) -> list[str]:
    """Offer the installed backbones."""
    from vqabench import plugins

    return [name for name in plugins.names(plugins.BACKBONES) if name.startswith(incomplete)]


def complete_losses(incomplete: str) -> list[str]:
    """Offer the installed losses, behind the parts that are spelled already."""
    from vqabench import plugins

    spelled, plus, last = incomplete.rpartition("+")
    return [f"{spelled}{plus}{name}" for name in plugins.names(plugins.LOSSES) if name.startswith(last)]


def complete_plugins(incomplete: str) -> list[str]:
    """Offer all installed plugins."""
    return [*complete_backbones(incomplete), *complete_losses(incomplete)]


def complete_datasets(incomplete: str) -> list[str]:
    """Offer the catalogue's data sets."""
    from vqabench.data.catalog import read_catalog

    return [name for name in read_catalog(None) if name.startswith(incomplete)]


def complete_logs(incomplete: str) -> list[str]:
    """Offer the logs that a run can write."""
    from vqabench.config import LogName

    return [name for name in get_args(LogName) if name.startswith(incomplete)]


DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where data lives.", envvar="VQABENCH_DATA", show_default="user data folder"),
]
Catalog = Annotated[
    Path | None,
    typer.Option("--catalog", help="A catalogue of data sets of your own, in TOML.", envvar="VQABENCH_CATALOG"),
]
Runs = Annotated[Path, typer.Option("--runs", help="The folder of all runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:0, ...")]
DatasetName = Annotated[str, typer.Argument(help="A data set of the catalogue.", autocompletion=complete_datasets)]

"""Shell completion of names, lists of names, choices, and the keys of `--set`.

Nothing here imports torch or runs a plugin's code. After an error nothing is offered, because a traceback would
spoil the command line.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import typer

Complete = Callable[[typer.Context, str], list[str]]


def _offer(find: Complete) -> Complete:
    """Return a completer that offers what `find` returns, or nothing if it fails."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [found for found in find(ctx, incomplete) if found.startswith(incomplete)]
        except Exception:  # a broken catalogue or plugin: a traceback would spoil the line that is being typed
            return []

    return complete


def complete_choices(choices: Iterable[str]) -> Complete:
    """Return a completer of these values."""
    return _offer(lambda _, incomplete: list(choices))


@_offer
def complete_devices(_: typer.Context, incomplete: str) -> list[str]:
    """Offer the kinds of devices."""
    return ["auto", "cpu", "cuda", "cuda:0"]


@_offer
def complete_backbones(_: typer.Context, incomplete: str) -> list[str]:
    """Offer the installed backbones."""
    return _backbones()


@_offer
def complete_losses(_: typer.Context, incomplete: str) -> list[str]:
    """Offer the installed losses, also as further parts of a strategy: `mask+`."""
    return _continue_list(incomplete, "+", _losses())


@_offer
def complete_plugins(_: typer.Context, incomplete: str) -> list[str]:
    """Offer all installed plugins."""
    return [*_backbones(), *_losses()]


@_offer
def complete_datasets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the catalogue's data sets, with those of a `--catalog` named before."""
    return _datasets(ctx)


@_offer
def complete_backbone_list(_: typer.Context, incomplete: str) -> list[str]:
    """Offer backbones after those that are typed, as in `updn,l`."""
    return _continue_list(incomplete, ",", _backbones())


@_offer
def complete_loss_list(_: typer.Context, incomplete: str) -> list[str]:
    """Offer losses after the strategies that are typed, as in `plain,mask+r`."""
    strategies, comma, last = incomplete.rpartition(",")
    return [f"{strategies}{comma}{offered}" for offered in _continue_list(last, "+", _losses())]


@_offer
def complete_dataset_list(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer data sets after those that are typed."""
    return _continue_list(incomplete, ",", _datasets(ctx))


@_offer
def complete_objective_list(_: typer.Context, incomplete: str) -> list[str]:
    """Offer `ce` and `bce`, also after the other."""
    from vqabench.config import Objective

    return _continue_list(incomplete, ",", get_args(Objective))


@_offer
def complete_rows(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the rows of tables, by the folders in `--runs`."""
    folders = sorted(Path(ctx.params.get("runs") or "runs").glob("*/*/*/"))
    return list(dict.fromkeys(f"{folder.parent.name}/{folder.name}" for folder in folders))


@_offer
def complete_columns(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer columns of the tables after those that are typed, by words without spaces."""
    from vqabench.reporting.grids import SHORT, list_columns

    heads = list_columns("prior" if ctx.params.get("by") == "prior" else "answer-type")
    words = [*heads, *(word for word, head in SHORT.items() if " " in head and head in heads)]
    return _continue_list(incomplete, ",", [word for word in words if " " not in word])


@_offer
def complete_settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the keys of `--set` and `--grid` for the parts named before, and after `=` the values of a choice."""
    # Arguments stay in `args` while the line ends in an option without its value.
    named = [*ctx.args, *(ctx.params.get(name) for name in ("backbone", "backbones", "loss", "losses", "name"))]
    keys = find_settings(word for value in named if value for word in split_names(str(value)))
    key, equals, values = incomplete.partition("=")
    if not equals:
        return [f"{key}=" for key in keys]
    return [f"{key}={value}" for value in _continue_list(values, ",", keys.get(key, ()))]


def find_settings(named: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the keys of `--set` for the recipe and for these backbones and losses, each with its choices if any.

    Plugins that are not installed, or whose source cannot be read, have none.
    """
    from vqabench.plugin_source import read_fields

    keys: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(named):
        keys |= _backbone_settings(name, "") | _loss_settings(name)
    return keys | {f"recipe.{key}": choices for key, choices in read_fields("vqabench.api", "Recipe").items()}


def split_names(text: str) -> list[str]:
    """Return the names of backbones and losses in a list such as `plain,mask+rescale`."""
    return text.replace("+", ",").split(",")


def _backbone_settings(name: str, prefix: str) -> dict[str, tuple[str, ...]]:
    """Return the keys of a backbone, and of the base that it is built over by default."""
    from vqabench import plugins
    from vqabench.errors import PluginError
    from vqabench.plugin_source import SourceError, read_class

    try:
        source = read_class(plugins.find(plugins.BACKBONES, name).target)
    except (PluginError, SourceError):
        return {}
    keys = {f"{prefix}{key}": choices for key, choices in source.options.items()}
    if source.base_parameter and prefix.count(".") < 5:
        base = f"{prefix}{source.base_parameter}"
        keys[base] = tuple(_backbones())
        if source.default_base is not None:
            keys |= _backbone_settings(source.default_base, f"{base}.")
    return keys


def _loss_settings(name: str) -> dict[str, tuple[str, ...]]:
    from vqabench import plugins
    from vqabench.errors import PluginError
    from vqabench.plugin_source import SourceError, read_class

    try:
        plugin = plugins.find(plugins.LOSSES, name)
        return {f"{plugin.name}.{key}": choices for key, choices in read_class(plugin.target).options.items()}
    except (PluginError, SourceError):
        return {}


def _continue_list(incomplete: str, separator: str, names: Iterable[str]) -> list[str]:
    """Return each name after the list that is typed, without names that are in it already."""
    before, found, _ = incomplete.rpartition(separator)
    present = before.split(separator)
    return [f"{before}{found}{name}" for name in names if name not in present]


def _backbones() -> list[str]:
    from vqabench import plugins

    return plugins.names(plugins.BACKBONES)


def _losses() -> list[str]:
    from vqabench import plugins

    return plugins.names(plugins.LOSSES)


def _datasets(ctx: typer.Context) -> list[str]:
    from vqabench.data.catalog.entries import read_catalog

    return list(read_catalog(ctx.params.get("catalog")))

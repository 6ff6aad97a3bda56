"""What can go wrong, told to the user: each message says what, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VqabenchError(Exception):
    """The run failed for a reason that the message explains. Exit code 1."""

    exit_code = 1


class InputError(VqabenchError):
    """A mistake in what the user gave: an argument, a file, a setting. Exit code 2."""

    exit_code = 2


class NotDefinedError(InputError):
    """A combination that one of its parts is not defined for."""


class PluginError(InputError):
    """A plugin that cannot be used: unknown, broken, or offered by two distributions."""


class TrainingError(VqabenchError):
    """Training cannot go on, for example because the loss is no longer finite. Exit code 1."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Tell that `name` is no valid `kind`: the nearest valid name first, then all of them."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f" did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {name!r}:{hint} valid: {first_few(names, 100) or 'none'}"


def first_few(items: Iterable[object], shown: int = 5) -> str:
    """List the first few items, and say how many more there are."""
    everything = list(items)
    listed = ", ".join(str(item) for item in everything[:shown])
    more = len(everything) - shown
    return f"{listed}, and {more} more" if more > 0 else listed

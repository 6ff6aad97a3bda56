"""Errors that the user sees. Each message names what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import signal
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


class OutputError(PluginError):
    """What a plugin returned is not what the plugin API promises."""

    def __init__(self, message: str, culprit: object = None) -> None:
        super().__init__(message)
        self.culprit = culprit
        """The model or loss that returned it; None: the backbone of the run."""


class PluginCrashError(VqabenchError):
    """A plugin's own code has failed, or has tried to end the program. Exit code 1."""


class TrainingError(VqabenchError):
    """Training cannot continue, for example because the loss is no longer finite. Exit code 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: end at once and save nothing more."""


def is_interruption(error: BaseException) -> bool:
    """Return whether an exception is Ctrl-C or another signal, rather than raised by somebody's code.

    Our own signal handlers raise subclasses of KeyboardInterrupt. Where one is installed, a bare KeyboardInterrupt
    comes from a `raise` statement.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    return type(error) is not KeyboardInterrupt or signal.getsignal(signal.SIGINT) is signal.default_int_handler


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return the message that `name` is no valid `kind`: the nearest valid name, then all of them."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f" did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {name!r}:{hint} valid: {first_few(names, 100) or 'none'}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as in `1 file` and `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_few(items: Iterable[object], shown: int = 5) -> str:
    """Return the first few items, and how many more there are."""
    everything = list(items)
    listed = ", ".join(str(item) for item in everything[:shown])
    more = len(everything) - shown
    return f"{listed}, and {more} more" if more > 0 else listed

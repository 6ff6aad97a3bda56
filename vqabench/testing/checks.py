"""Run checks and describe their failures."""

from __future__ import annotations

import re
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

import vqabench
from vqabench.errors import VqabenchError, is_interruption
from vqabench.plugins import contained

FOREIGN = tuple(str(Path(package.__file__ or "").parent) for package in (torch, vqabench))
STANDARD = sysconfig.get_path("stdlib")
"""Folders of code that is not the plugin's."""


class FailedCheckError(Exception):
    """A check fails; the message says what was found."""


class SkippedCheckError(Exception):
    """A check does not apply; the message says why."""


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    status: Literal["passed", "failed", "declared", "skipped"]
    message: str
    """What was found; if the check is declared not to hold, the author's reason."""


@dataclass(frozen=True)
class Trial:
    """One check that has not run yet."""

    name: str
    run: Callable[[], str]
    """Returns a line on what holds, or raises FailedCheckError or SkippedCheckError."""
    essential: bool = False
    """If it fails, later checks cannot run."""


def list_trials(checks: object, essential: Collection[str] = ()) -> list[Trial]:
    """Return the methods `check_NAME` of an object, in the order in which its class defines them."""
    names = [name.removeprefix("check_") for name in vars(type(checks)) if name.startswith("check_")]
    return [Trial(name, getattr(checks, f"check_{name}"), name in essential) for name in names]


def run_checks(trials: Iterable[Trial], declarations: Mapping[str, str]) -> Iterator[Check]:
    """Run checks one by one, up to the first essential one that fails.

    A check that is declared not to hold runs all the same, to report declarations that are out of date.
    """
    for trial in trials:
        check = _run(trial)
        reason = declarations.get(trial.name)
        if reason is not None:
            holds = " (but here it holds)" if check.status == "passed" else ""
            check = Check(trial.name, "declared", f"{reason}{holds}")
        yield check
        if trial.essential and check.status == "failed":
            return


def require(holds: bool | Tensor, message: str) -> None:
    """Raise FailedCheckError with the message unless a condition holds."""
    if not holds:
        raise FailedCheckError(message)


def require_registered(module: nn.Module) -> None:
    """Raise FailedCheckError if a tensor is neither a parameter nor a buffer."""
    stray = [
        f"{name}.{attribute}".lstrip(".")
        for name, part in module.named_modules()
        for attribute, value in vars(part).items()
        if isinstance(value, Tensor)
    ]
    names = ", ".join(stray)
    require(not stray, f"neither parameters nor buffers, so they are not moved to a GPU and not saved: {names}")


def require_no_waits(waits: str) -> str:
    """Raise FailedCheckError if there are lines that wait for a GPU, else return what holds."""
    require(
        not waits, f"a step waits for the GPU at {waits}; if this cannot be avoided, declare it with the reason"
    )
    return "no step waits for the GPU"


def describe_error(error: BaseException) -> str:
    """Format an error in one line, with the last line of the plugin's own code in its traceback."""
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, VqabenchError) else f"{type(error).__name__}: "
    origin = error if error.__cause__ is None else error.__cause__
    paths = [(one.filename, one.lineno) for one in traceback.extract_tb(origin.__traceback__)]
    paths += [(name, int(line)) for name, line in re.findall(r'File "(.+)", line (\d+)', str(error))]
    paths = [one for one in paths if not one[0].startswith((*FOREIGN, "<"))]
    own = [one for one in paths if not one[0].startswith(STANDARD) or "site-packages" in one[0]]
    return f"{kind}{lines[0]}" + (f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else "")


def _run(trial: Trial) -> Check:
    """Run a check on one thread: such small models are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contained(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the check itself reports what is wrong
            return Check(trial.name, "passed", trial.run())
    except SkippedCheckError as reason:
        return Check(trial.name, "skipped", str(reason))
    except FailedCheckError as failure:
        return Check(trial.name, "failed", str(failure))
    except BaseException as error:  # a plugin may raise anything, or end the program
        if is_interruption(error):
            raise
        return Check(trial.name, "failed", describe_error(error))
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)

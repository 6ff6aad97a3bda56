"""What a check is: a name, something to try, and what came of it."""

from __future__ import annotations

import re
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

import vqabench
from vqabench.errors import VqabenchError, is_interruption
from vqabench.plugins import contained

Status = Literal["passed", "failed", "declared", "skipped"]
FOREIGN = tuple(str(Path(package.__file__ or "").parent) for package in (torch, vqabench))
STANDARD = sysconfig.get_path("stdlib")
"""Where code is no plugin's own."""


class FailedCheckError(Exception):
    """A check does not hold; says what was found, and what the API promises."""


class SkippedCheckError(Exception):
    """A check has no subject here; says why."""


@dataclass(frozen=True)
class Check:
    """What came of one check."""

    name: str
    status: Status
    message: str
    """What was found; of one that is declared not to hold, the author's reason."""


@dataclass(frozen=True)
class Trial:
    """One check, not carried out yet."""

    name: str
    carry_out: Callable[[], str]
    """Return a line on what holds, or raises."""
    essential: bool = False
    """Without it nothing behind it can be tried."""


def run_checks(trials: Iterable[Trial], declarations: Mapping[str, str]) -> Iterator[Check]:
    """Carry out checks one by one, up to the first essential one that fails.

    A check that is declared not to hold is tried all the same, so that a reason which is out of date is told.
    """
    for trial in trials:
        check = _carry_out(trial)
        reason = declarations.get(trial.name)
        if reason is not None:
            holds = " (but here it holds)" if check.status == "passed" else ""
            check = Check(trial.name, "declared", f"{reason}{holds}")
        yield check
        if trial.essential and check.status == "failed":
            return


def require(holds: bool | Tensor, message: str) -> None:
    """Raise FailedCheckError with the message unless something holds."""
    if not holds:
        raise FailedCheckError(message)


def find_stray_tensors(module: nn.Module) -> list[str]:
    """Name the tensors that are neither parameters nor buffers: they are not saved, and not moved to a GPU."""
    return [
        f"{name}.{attribute}".lstrip(".")
        for name, part in module.named_modules()
        for attribute, value in vars(part).items()
        if isinstance(value, Tensor)
    ]


def describe_error(error: BaseException) -> str:
    """Format an error in a line, with the last place in a plugin's own code that it came through."""
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, VqabenchError) else f"{type(error).__name__}: "
    origin = error if error.__cause__ is None else error.__cause__
    paths = [(one.filename, one.lineno) for one in traceback.extract_tb(origin.__traceback__)]
    paths += [(name, int(line)) for name, line in re.findall(r'File "(.+)", line (\d+)', str(error))]
    own = [(Path(name).name, line) for name, line in paths if not _is_foreign(name)]
    return f"{kind}{lines[0]}" + (f" ({own[-1][0]}, line {own[-1][1]})" if own else "")


def _is_foreign(name: str) -> bool:
    standard = name.startswith(STANDARD) and "site-packages" not in name
    return standard or name.startswith((*FOREIGN, "<"))


def _carry_out(trial: Trial) -> Check:
    """Try on one thread: models so small are slower on several, and much slower beside another process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contained(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is told by the check
            return Check(trial.name, "passed", trial.carry_out())
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

"""What a check is: a name, a question, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

Status = Literal["passed", "failed", "declared", "skipped"]


class FailedCheckError(Exception):
    """A check does not hold; says what was found, and what the API promises."""


class SkippedCheckError(Exception):
    """A check has no subject here; says why."""


@dataclass(frozen=True)
class Check:
    """What came of one check."""

    name: str
    status: Status
    told: str
    """What was found; of one that is declared not to hold, the author's reason."""


Question = tuple[str, Callable[[], str]]
"""A check's name, and what gives a line on what holds, or raises."""


def ask(questions: Iterable[Question], declarations: Mapping[str, str]) -> Iterator[Check]:
    """Carry out checks one by one, apart from those that are declared not to hold.

    On one thread: models so small are slower on several, and much slower beside another process.
    """
    for name, question in questions:
        if name in declarations:
            yield Check(name, "declared", declarations[name])
        else:
            yield _carry_out(name, question)


def _carry_out(name: str, question: Callable[[], str]) -> Check:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Check(name, "passed", question())
    except SkippedCheckError as reason:
        return Check(name, "skipped", str(reason))
    except FailedCheckError as failure:
        return Check(name, "failed", str(failure))
    except Exception as error:  # a plugin may raise anything
        lines = str(error).strip().splitlines() or [""]
        return Check(name, "failed", f"{type(error).__name__}: {lines[0]}")
    finally:
        torch.set_num_threads(threads)

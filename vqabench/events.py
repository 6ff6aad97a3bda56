"""What a command reports while it works: one stream of events, for the terminal, the log writers and tests.

A consumer is any function of one event. A plain `str` is a line of information, so a function that reports nothing
but such lines can declare `say: Callable[[str], None]` and take the same consumer; `print` is one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Warn:
    """A line that the user should not miss."""

    text: str


@dataclass(frozen=True)
class RunStarted:
    """A run starts, or continues after `epochs_done` epochs and `questions_done` questions of the next one."""

    name: str
    epochs: int
    questions: int
    """In an epoch."""
    epochs_done: int = 0
    questions_done: int = 0
    steps_done: int = 0


@dataclass(frozen=True)
class BatchTrained:
    """A batch is done."""

    questions: int


@dataclass(frozen=True)
class StepsMeasured:
    """Means over the latest steps; `step` is the last of them, counted from 1 over all epochs."""

    step: int
    numbers: Mapping[str, float]
    """Loss, learning rate, and training accuracy in percent if it is known."""


@dataclass(frozen=True)
class EpochFinished:
    """An epoch is finished, and will be saved next; `step` was its last step."""

    step: int
    record: Mapping[str, Any]
    """The epoch's line in `epochs.jsonl`."""


@dataclass(frozen=True)
class RunScored:
    """The weights of the chosen epoch are scored."""

    epoch: int
    numbers: Mapping[str, float]
    """Such as `test/accuracy/all`."""


@dataclass(frozen=True)
class RunEnded:
    """A run has ended; `status` is that of its manifest."""

    status: str


@dataclass(frozen=True)
class DownloadStarted:
    """A transfer starts, or continues after `done` bytes; `total` is None if the size is unknown."""

    name: str
    done: int
    total: int | None


@dataclass(frozen=True)
class BytesReceived:
    """More bytes of the current download have arrived."""

    size: int


@dataclass(frozen=True)
class DownloadEnded:
    """The current transfer has ended, successfully or not."""


@dataclass(frozen=True)
class MatrixStarted:
    """The runs of a matrix are about to be trained, so many at a time."""

    runs: int
    at_a_time: int
    seconds: float | None
    """Expected duration; None if nothing is known."""
    or_more: bool = False
    """Whether more may be trained at a time once the memory of the first ones is known."""


@dataclass(frozen=True)
class CellAdvanced:
    """A run of a matrix has started, or finished another epoch."""

    name: str
    epochs: int
    records: Sequence[Mapping[str, Any]]
    """The lines of its `epochs.jsonl` so far."""


@dataclass(frozen=True)
class CellEnded:
    """A run of a matrix has ended by itself."""

    name: str
    message: str
    """Its scores, or why it failed."""
    failed: bool
    seconds_left: float | None
    """Expected duration of the remaining runs."""


@dataclass(frozen=True)
class MatrixEnded:
    """No run of the matrix is being trained any more."""


Event = (
    str
    | Warn
    | RunStarted
    | BatchTrained
    | StepsMeasured
    | EpochFinished
    | RunScored
    | RunEnded
    | DownloadStarted
    | BytesReceived
    | DownloadEnded
    | MatrixStarted
    | CellAdvanced
    | CellEnded
    | MatrixEnded
)
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing with an event."""

"""What a training run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Progress(Protocol):
    """Hears of a run as it goes."""

    def say(self, message: str) -> None:
        """Hear a line of information."""

    def warn(self, message: str) -> None:
        """Hear a line that the user should not miss."""

    def start(self, name: str, epochs: int, done: int, samples: int, seen: int) -> None:
        """Hear that a run begins (behind `done` epochs and `seen` samples), with so many samples an epoch."""

    def advance(self, samples: int) -> None:
        """Hear that a batch is done."""

    def measure(self, loss: float, accuracy: float | None) -> None:
        """Hear the mean loss and soft accuracy (percent, where it is known) of the latest batches."""

    def finish_epoch(self, record: Mapping[str, Any]) -> None:
        """Hear what was recorded of an epoch."""

    def stop(self) -> None:
        """Hear that the run has ended, in whatever way."""


class Silence:
    """Hears everything, says nothing."""

    def say(self, message: str) -> None:
        """Ignore it."""

    warn = say

    def start(self, name: str, epochs: int, done: int, samples: int, seen: int) -> None:
        """Ignore it."""

    def advance(self, samples: int) -> None:
        """Ignore it."""

    def measure(self, loss: float, accuracy: float | None) -> None:
        """Ignore it."""

    def finish_epoch(self, record: Mapping[str, Any]) -> None:
        """Ignore it."""

    def stop(self) -> None:
        """Ignore it."""

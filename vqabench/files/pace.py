"""Lines about the progress of a long computation."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 10


class Pace:
    """Reports every ten seconds how much is done, the rate, and the time left."""

    def __init__(self, total: int, things: str, say: Callable[[str], None]) -> None:
        self.total, self.things, self.say = total, things, say
        self._began = self._reported = time.perf_counter()
        self._first: int | None = None

    def update(self, done: int) -> None:
        """Record that so many are done, including those of an interrupted run, and report it if it is time."""
        now = time.perf_counter()
        if self._first is None:  # what an interrupted run has done does not count for the rate
            self._first, self._began = done, now
        if now - self._reported < SECONDS_BETWEEN_LINES:
            return
        self._reported = now
        speed = (done - self._first) / max(now - self._began, 1e-9)
        left = f", {(self.total - done) / speed:,.0f} s left" if speed else ""
        self.say(f"{done:,} of {self.total:,} {self.things}, {speed:,.1f} a second{left}")

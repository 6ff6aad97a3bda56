"""How fast a long computation goes, told now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 10


class Pace:
    """Says every ten seconds how much is done, how fast it goes and how long the rest will take."""

    def __init__(self, total: int, things: str, say: Callable[[str], None]) -> None:
        self.total, self.things, self.say = total, things, say
        self._began = self._told = time.perf_counter()
        self._first: int | None = None

    def go_on(self, done: int) -> None:
        """Hear that so many of all are done, with those of an earlier call."""
        now = time.perf_counter()
        if self._first is None:
            self._first, self._began = done, now
        if now - self._told < SECONDS_BETWEEN_LINES:
            return
        self._told = now
        speed = (done - self._first) / max(now - self._began, 1e-9)
        left = f", {(self.total - done) / speed:,.0f} s left" if speed else ""
        self.say(f"{done:,} of {self.total:,} {self.things}, {speed:,.1f} a second{left}")

"""Signals that ask a run to end: it saves what it has, and says that it can go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vqabench.errors import Interrupted

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
"""Ctrl-C; what ends a job; what Slurm may send some time before that; a terminal that is closed."""


def known_signals() -> list[signal.Signals]:
    """Give those of the signals that this system has."""
    return [signal.Signals[name] for name in SIGNALS if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal has ended the run. Passes through everything that lets Ctrl-C pass."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.signal = name
        self.exit_code = 130 if name == "SIGINT" else 75


class Interruption:
    """Takes note of signals: they end the program, or where that is put off, what is going on is ended first.

    Ctrl-C a second time ends it at once.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._put_off = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals from now on, but those that whoever started the program has had ignored.

        Only the main thread may.
        """
        heeded = [one for one in known_signals() if signal.getsignal(one) != signal.SIG_IGN]
        before = {one: signal.signal(one, self._take) for one in heeded}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Only take note of signals; whoever asks for this asks `received` now and then.

        An error that ends this stays the last word: what comes while it is on its way to the user is noted only.
        """
        before, self._put_off = self._put_off, True
        try:
            yield
        except Exception:
            before = True
            raise
        finally:
            self._put_off = before

    def check(self) -> None:
        """Raise Stopped where a signal has come."""
        if self.received is not None:
            raise Stopped(self.received)

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise Interrupted  # in the middle of a step, so nothing of it may be saved
        self.received = signal.Signals(number).name
        if not self._put_off:
            raise Stopped(self.received)

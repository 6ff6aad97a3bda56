"""Handle signals that ask a run to stop: it saves its state, and can be resumed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from vqabench.errors import Interrupted

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
SIGNALS = [signal.Signals[name] for name in NAMES if hasattr(signal, name)]
"""Ctrl-C; the end of a job; a warning that Slurm can send some time before it; a closed terminal."""
GRACE = 10.0
"""Seconds that a run has to react to a signal, plus three times its slowest batch."""
SAVING = 300.0
"""Seconds that a run has to save and end once it has reacted."""
SECOND_GRACE = 2.0
"""Seconds after a second Ctrl-C."""


class Stopped(KeyboardInterrupt):
    """A signal has stopped the run. Code that lets Ctrl-C pass lets this pass too."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.signal = name
        self.exit_code = 130 if name == "SIGINT" else 75


class Interruption:
    """Records signals: they end the program at once, or after the current step while they are put off.

    A second Ctrl-C always ends it at once. A process that does not react in time, because a plugin hangs, is ended
    by a thread; nothing else could.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.acknowledges = False
        """Whether to answer the first signal with a line on stderr, for the process that sent it."""
        self._put_off = self._has_begun = False
        self._timer: threading.Timer | None = None
        self._last_step = time.monotonic()
        self._slowest_step = 0.0
        self._is_saving = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals from now on, except those that were ignored when the program started.

        Only the main thread may call this.
        """
        heeded = [one for one in SIGNALS if signal.getsignal(one) != signal.SIG_IGN]
        before = {one: signal.signal(one, self._take) for one in heeded}
        try:
            yield
        except Exception as error:
            # An import that was interrupted may have turned Stopped into another exception.
            if self.received is not None and not self._has_begun:
                raise Stopped(self.received) from error
            raise
        finally:
            self.cancel_limit()
            for one, handler in before.items():
                signal.signal(one, handler)

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Only record signals; the caller checks `received` now and then.

        When an error leaves this block, signals stay put off, because the user must see the error.
        """
        before, self._put_off, self._has_begun = self._put_off, True, True
        self._last_step = time.monotonic()
        try:
            yield
        except Exception:
            before = True
            raise
        finally:
            self._put_off = before

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Allow the time that saving takes: a signal before or in this block does not end the process early."""
        self._is_saving = True
        if self._timer is not None:
            self._end_in(SAVING)
        try:
            yield
        finally:
            self._is_saving = False

    def step(self) -> None:
        """Record that a batch is done: a signal allows a multiple of the slowest batch."""
        now = time.monotonic()
        self._slowest_step, self._last_step = max(self._slowest_step, now - self._last_step), now

    def check(self) -> None:
        """Raise Stopped if a signal has come. Call it after every batch."""
        self.step()
        if self.received is not None:
            self.stop()

    def stop(self) -> NoReturn:
        """Raise Stopped; allow the time that saving takes from now on."""
        if self._timer is not None:
            self._end_in(SAVING)
        raise Stopped(self.received or "SIGTERM")

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            self._end_in(SECOND_GRACE)
            raise Interrupted  # in the middle of a step, so nothing of it may be saved
        if self.received is None:
            self._end_in(SAVING if self._is_saving else GRACE + 3 * self._slowest_step)
            if self.acknowledges:
                os.write(2, b"stopping\n")
        self.received = signal.Signals(number).name
        if not self._put_off:
            raise Stopped(self.received)

    def _end_in(self, seconds: float) -> None:
        self.cancel_limit()
        self._timer = threading.Timer(seconds, self._end, (seconds,))
        self._timer.daemon = True
        self._timer.start()

    def cancel_limit(self) -> None:
        """Cancel the time limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, seconds: float) -> None:
        name = "Ctrl-C" if self.received == "SIGINT" else self.received
        end_hard(
            f"error: did not stop within {seconds:.0f} s of {name}, so it was ended without saving: a plugin may "
            "hang; --resume continues from the latest checkpoint, if there is one",
            130 if seconds == SECOND_GRACE else 1,
        )


def end_hard(message: str, code: int) -> NoReturn:
    """End this process now, with a line on stderr, without waiting for its other threads."""
    if "multiprocessing" in sys.modules:
        import multiprocessing

        for child in multiprocessing.active_children():
            child.kill()
    os.write(2, f"\n{message}\n".encode())
    os._exit(code)


def leave_on_signals() -> None:
    """End the process when a signal comes while the program is loaded: there is nothing to save yet."""
    # No exception: in the middle of an import it might be turned into another one.
    for one in SIGNALS:
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, _leave)


def raise_on_signals() -> None:
    """Raise Stopped when a signal comes, if it would otherwise end the process without cleaning up."""
    for one in SIGNALS:
        if signal.getsignal(one) is _leave:
            signal.signal(one, _raise)


def describe_stop(stop: KeyboardInterrupt) -> tuple[str, int]:
    """Return a message about what stopped the program, and the exit code."""
    name = getattr(stop, "signal", "SIGINT")
    return f"stopped by {'Ctrl-C' if name == 'SIGINT' else name}", getattr(stop, "exit_code", 130)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    message, code = describe_stop(Stopped(signal.Signals(number).name))
    os.write(2, f"warning: {message}\n".encode())
    os._exit(code)


def _raise(number: int, _: FrameType | None) -> NoReturn:
    global raised
    raised = Stopped(signal.Signals(number).name)
    raise raised


raised: Stopped | None = None
"""What a signal has raised, until it is reported: other code may have turned it into another exception."""


def stop_without_parent() -> None:
    """Send SIGTERM to this process when its standard input ends, because its parent process has then ended."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()

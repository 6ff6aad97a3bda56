"""Where the command `vqabench` begins."""

import sys
import threading
from typing import NoReturn

PATIENCE = 10.0
"""Seconds that threads and processes which a plugin has left behind have to end."""


def main() -> NoReturn:
    """Run the command line. A signal that comes while it is loaded is reported like any later one."""
    from vqabench.training import interruption

    interruption.leave_on_signals()
    from vqabench import cli
    from vqabench.cli import streams
    from vqabench.reporting.output import say_on_stderr

    code: object
    try:
        streams.protect()
        cli.main()
    except KeyboardInterrupt as stop:
        message, code = interruption.describe_stop(stop)
        say_on_stderr(f"warning: {message}")
    except SystemExit as end:
        code = end.code
        if interruption.raised and code in (1, 130):  # typer, or an import, has made something else of it
            message, code = interruption.describe_stop(interruption.raised)
            say_on_stderr(f"warning: {message}")
    _exit_within(PATIENCE, code if isinstance(code, int) else 0)
    sys.exit(code)  # type: ignore[arg-type]


def _exit_within(seconds: float, code: int) -> None:
    """End the process after some time, if something that a plugin has left behind does not let it."""
    from vqabench.training.interruption import end_hard

    def end() -> None:
        sys.stdout.flush()
        end_hard(
            "warning: a thread or process that a plugin started did not end; it was left behind or killed", code
        )

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    main()

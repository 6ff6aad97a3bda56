"""Where the command `vqabench` begins."""

import signal
import sys


def main() -> None:
    """Run the command line, of which Ctrl-C may find nothing but the imports."""
    try:
        from vqabench.errors import Interrupted

        def interrupt(*_: object) -> None:
            raise Interrupted  # a bare KeyboardInterrupt is then known to be raised by a plugin

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt)

        from vqabench import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

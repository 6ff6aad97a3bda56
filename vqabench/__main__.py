"""Where the command `vqabench` begins."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C may come while it is still being imported."""
    try:
        from vqabench import cli
        from vqabench.cli import streams

        streams.protect()
        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

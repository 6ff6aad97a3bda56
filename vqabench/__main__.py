"""Where the command `vqabench` begins."""

import sys


def main() -> None:
    """Run the command line, of which Ctrl-C may find nothing but the imports."""
    try:
        from vqabench import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

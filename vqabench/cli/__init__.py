"""The command line: each command parses, calls one workflow, and renders what it gives.

Nothing here may load torch, numpy, h5py or scikit-learn at import: `--help`, `plugins list` and the shell's
completion answer at once.
"""

import os
import signal
import sys
import traceback
from typing import Annotated

import typer

from vqabench import __version__
from vqabench.cli import bench, compare, data, evaluate, plugins, predict, report, train
from vqabench.cli.parameters import rank
from vqabench.errors import VqabenchError
from vqabench.reporting.output import clean_line, say, say_on_stderr

MISPLACED = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""What a path raises that a user has chosen badly; others are the machine's trouble."""
UNFORESEEN: dict[type[BaseException], str] = {
    MemoryError: "there is not enough memory",
    RecursionError: "something is nested too deeply",
    OverflowError: "a number is too large: {}",
    KeyError: "{} is missing",
}
"""What errors mean that are a fault of vqabench or of a plugin, in words."""

app = typer.Typer(
    name="vqabench",
    help="Benchmark VQA backbones and loss strategies under language-prior shift.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("compare")(compare.compare)
app.command("bench")(bench.bench)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("report")(report.report)
app.add_typer(data.app, name="data")
app.add_typer(plugins.app, name="plugins")


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"vqabench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Take the options that stand before any command; `main` has acted on `--debug` already."""


def main() -> None:
    """Run the command line; every error is one line on stderr."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        code = app(arguments, prog_name="vqabench", standalone_mode=False)
        sys.stdout.flush()  # a full disk must not end with the interpreter's own words and code
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # what a plugin raises may be of any kind
        if debug or (rank() is not None and _is_unforeseen(error)):  # how one of several has died must be seen
            say_on_stderr(traceback.format_exc())
        code = _report(error, arguments)
    code = code if isinstance(code, int) else 0
    if rank() is not None:
        # As the interpreter ends, threads of PyTorch's that hear other processes may ask for its lock, and are then
        # ended in a way that aborts the process: one time in fifteen.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _is_unforeseen(error: BaseException) -> bool:
    return not isinstance(error, VqabenchError | typer.exceptions.TyperException | OSError)


def _report(error: BaseException, arguments: list[str]) -> int:
    """Print an error in one line; return the exit code."""
    if isinstance(error, VqabenchError | typer.exceptions.TyperException):
        message = str(error) if isinstance(error, VqabenchError) else error.format_message()
        # Typer has nothing to say of a group without its command: it has printed the group's help.
        return _print_error(message, error.exit_code) if message else error.exit_code
    command = _name_command(arguments)
    if isinstance(error, OSError):
        where = error.filename if error.filename is not None else command
        return _print_error(f"{where}: {error.strerror or error}", 2 if isinstance(error, MISPLACED) else 1)
    cause = UNFORESEEN.get(type(error), f"{type(error).__name__}: {error}").format(error)
    return _print_error(f"{command}: {cause} (vqabench --debug ... shows where)", 1)


def _name_command(arguments: list[str]) -> str:
    """Return the command as one calls it, without what it was given."""
    words = [word for word in arguments if not word.startswith("-")]
    group = words[:1] in (["data"], ["plugins"])
    return " ".join(["vqabench", *words[: 2 if group else 1]])


def _print_error(message: str, code: int) -> int:
    if rank() is not None:  # where one has died, torchrun ends the others at once: each says first what it has met
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from rich.text import Text

    from vqabench.reporting.terminal import stderr_console

    who = "" if rank() is None else f"rank {rank()}: "
    stderr_console().print(Text.assemble((f"{who}error:", "bold red"), f" {clean_line(message)}"))
    return code

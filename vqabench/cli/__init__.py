"""The command line: each command parses, calls one workflow, and renders the result.

Nothing here may import torch, numpy, h5py or scikit-learn at import time, so that `--help`, `plugins list` and
shell completion respond at once.
"""

import os
import signal
import sys
import traceback
from typing import Annotated

import typer

from vqabench import __version__
from vqabench.cli import bench, compare, data, doctor, evaluate, mistakes, plugins, predict, report, train
from vqabench.cli.help import SETTINGS, Command, Group, examples
from vqabench.cli.parameters import rank
from vqabench.errors import VqabenchError
from vqabench.reporting.output import clean_line, say, say_on_stderr

MISPLACED = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""Errors caused by a path that the user chose; other OSErrors are caused by the machine."""
UNFORESEEN: dict[type[BaseException], str] = {
    MemoryError: "there is not enough memory",
    RecursionError: "lists or objects are nested too deeply",
    OverflowError: "a number is too large: {}",
    KeyError: "{} is missing",
}
"""What errors that are a fault of vqabench or of a plugin mean, in words."""

app = typer.Typer(
    name="vqabench",
    help="Train, score and compare VQA models under changing answer priors.",
    epilog=examples("doctor", "train updn --loss rescale", "compare"),
    cls=Group,
    context_settings=SETTINGS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train", cls=Command, epilog=train.EXAMPLES)(train.train)
app.command("bench", cls=Command, epilog=bench.EXAMPLES)(bench.bench)
app.command("compare", cls=Command, epilog=compare.EXAMPLES)(compare.compare)
app.command("report", cls=Command, epilog=report.EXAMPLES)(report.report)
app.command("evaluate", cls=Command, epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("predict", cls=Command, epilog=predict.EXAMPLES)(predict.predict)
app.add_typer(data.app, name="data")
app.add_typer(plugins.app, name="plugins")
app.command("doctor", cls=Command, epilog=doctor.EXAMPLES)(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"vqabench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Handle the options before any command; `main` has read `--debug` already."""
    if context.invoked_subcommand not in ("train", "bench"):  # these save when a signal comes, once they are loaded
        from vqabench.training.interruption import raise_on_signals

        raise_on_signals()


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
        # As the interpreter ends, PyTorch threads that listen to other processes may ask for its lock, and are then
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
        message = str(error) if isinstance(error, VqabenchError) else mistakes.explain(error, arguments)
        if message.startswith("Usage: "):  # a group without its command: Typer's message is the group's help
            say_on_stderr(message)
            return error.exit_code
        return _print_error(message, error.exit_code) if message else error.exit_code
    command = _name_command(arguments)
    if isinstance(error, OSError):
        where = error.filename if error.filename is not None else command
        return _print_error(f"{where}: {error.strerror or error}", 2 if isinstance(error, MISPLACED) else 1)
    known = UNFORESEEN.get(type(error))
    cause = f"{type(error).__name__}: {error}" if known is None else known.format(error)
    return _print_error(f"{command}: {cause} (for the traceback: vqabench --debug ...)", 1)


def _name_command(arguments: list[str]) -> str:
    """Return the command as typed, without its arguments."""
    words = [word for word in arguments if not word.startswith("-")]
    group = words[:1] in (["data"], ["plugins"])
    return " ".join(["vqabench", *words[: 2 if group else 1]])


def _print_error(message: str, code: int) -> int:
    if rank() is not None:  # when one process dies, torchrun ends the others at once: report the error first
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from rich.text import Text

    from vqabench.reporting.terminal import stderr_console

    who = "" if rank() is None else f"rank {rank()}: "
    stderr_console().print(Text.assemble((f"{who}error:", "bold red"), f" {clean_line(message)}"))
    return code

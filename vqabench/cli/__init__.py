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

MISPLACED = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""Errors of a path that the user chose badly; others are the machine's."""

app = typer.Typer(
    name="vqabench",
    help="Train, score and compare VQA models when answer priors change.",
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
        typer.echo(f"vqabench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Take the options that stand before any command; `main` has read `--debug` already."""
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
    except (VqabenchError, typer.exceptions.TyperException) as error:
        if debug:
            traceback.print_exc()
        code = _report(error)
    except BrokenPipeError:
        # The reader of our output is gone: print nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = error.filename or "cannot write the output"
        code = _say_error(f"{where}: {error.strerror or error}", 2 if isinstance(error, MISPLACED) else 1)
    except Exception as error:  # of a plugin, or our own mistake
        if debug or rank() is not None:  # of several processes, each must show how it died
            traceback.print_exc()
        code = _say_error(f"{type(error).__name__}: {error} (for the traceback: vqabench --debug ...)", 1)
    code = code if isinstance(code, int) else 0
    if rank() is not None:
        # As the interpreter ends, PyTorch threads that listen to other processes may ask for its lock, and are then
        # ended in a way that aborts the process: one time in fifteen.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _report(error: VqabenchError | typer.exceptions.TyperException) -> int:
    message = str(error) if isinstance(error, VqabenchError) else mistakes.explain(error, sys.argv[1:])
    if message.startswith("Usage: "):  # a group without its command: Typer's message is the group's help
        typer.echo(message, err=True)
        return error.exit_code
    return _say_error(message, error.exit_code)


def _say_error(message: str, code: int) -> int:
    if rank() is not None:  # when one process dies, torchrun ends the others at once: report the error first
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from rich.console import Console
    from rich.text import Text

    who = "" if rank() is None else f"rank {rank()}: "
    line = Text.assemble((f"{who}error: ", "bold red"), " ".join(message.split()))
    Console(stderr=True, soft_wrap=True).print(line, highlight=False)
    return code

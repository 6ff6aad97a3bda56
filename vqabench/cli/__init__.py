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

MISPLACED = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""What a path raises that a user has chosen badly; others are the machine's trouble."""

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
        typer.echo(f"vqabench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Take the options that stand before any command; `main` has acted on `--debug` already."""
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
        # The reader of our output has gone; say nothing more, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = error.filename or "the output cannot be written"
        code = _say_error(f"{where}: {error.strerror or error}", 2 if isinstance(error, MISPLACED) else 1)
    except Exception as error:  # of a plugin, or our own mistake
        if debug or rank() is not None:  # how one of several has died must be seen
            traceback.print_exc()
        code = _say_error(f"{type(error).__name__}: {error} (vqabench --debug ... shows where)", 1)
    code = code if isinstance(code, int) else 0
    if rank() is not None:
        # As the interpreter ends, threads of PyTorch's that hear other processes may ask for its lock, and are then
        # ended in a way that aborts the process: one time in fifteen.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _report(error: VqabenchError | typer.exceptions.TyperException) -> int:
    message = str(error) if isinstance(error, VqabenchError) else error.format_message()
    # Typer has nothing to say of a group without its command: it has printed the group's help.
    return _say_error(message, error.exit_code) if message else error.exit_code


def _say_error(message: str, code: int) -> int:
    if rank() is not None:  # where one has died, torchrun ends the others at once: each says first what it has met
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from rich.console import Console
    from rich.text import Text

    who = "" if rank() is None else f"rank {rank()}: "
    told = Text.assemble((f"{who}error: ", "bold red"), " ".join(message.split()))
    Console(stderr=True, soft_wrap=True).print(told, highlight=False)
    return code

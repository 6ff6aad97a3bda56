"""`vqabench train`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from vqabench.cli.formats import METRIC, Out, choose_form, print_comparison, writing
from vqabench.cli.help import examples
from vqabench.cli.parameters import AsJson, Catalog, DataDir, Runs, rank, reporting_signals, with_options
from vqabench.config import HOW, OPTIONS, WHAT, combine, make_config, read_config_file, read_line
from vqabench.errors import InputError

EXAMPLES = examples(
    "train updn",
    "train updn --loss rescale --seeds 0-4 --resume",
    "train updn --loss mask+rescale --set mask.dropout=0.3 --set recipe.lr=0.001",
)


@with_options(*OPTIONS)
def train(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read options from a TOML file: the same names without dashes, and --set as a table named set. "
            "The command line takes precedence.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue interrupted runs; keep finished ones.", rich_help_panel=HOW),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing runs.", rich_help_panel=HOW)] = False,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: Out = None,
    **given: Any,
) -> None:
    """Train a backbone with a loss strategy and score it.

    The test split (out of domain) and the validation split (in domain) are scored once, with the same weights.
    Interrupt a run at any time; rerun with --resume to continue from the same step.
    """
    if resume and force:
        raise InputError("--resume continues runs, --force replaces them: choose one")
    form = choose_form(out, as_json)
    made = make_config(combine(read_config_file(config) if config else {}, read_line(given)))

    from vqabench.bench.child_runs import CHILD
    from vqabench.events import Emit, ignore
    from vqabench.paths import Paths
    from vqabench.reporting.progress import Display
    from vqabench.training.interruption import Interruption
    from vqabench.workflows import comparison, training

    paths = Paths(runs, data_dir, catalog)
    emit: Emit = ignore if rank() else Display()  # of several processes, only the first reports
    if_exists: training.IfExists = "resume" if resume else "force" if force else "refuse"
    interruption = Interruption()
    with reporting_signals(emit, "rerun the same command with --resume to continue"), interruption.watching():
        trained = training.train(made, paths, if_exists, emit, interruption)
    if not trained or CHILD in os.environ:  # the process that started this one compares all runs
        return
    compared = comparison.compare([run.folder for run in trained], None, paths)
    with writing(out):
        print_comparison(compared, form, METRIC.get(form))

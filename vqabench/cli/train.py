"""`vqabench train`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from vqabench.cli.completion import (
    complete_backbones,
    complete_datasets,
    complete_devices,
    complete_losses,
    complete_settings,
)
from vqabench.cli.help import examples
from vqabench.cli.output import METRIC, Out, choose_form, print_comparison, writing
from vqabench.cli.parameters import AsJson, Catalog, DataDir, Runs, one_of, rank, telling_of_signals
from vqabench.config import Features, LogName, Objective, Precision, Select

EXAMPLES = examples(
    "train updn",
    "train updn --loss rescale --seeds 0-4 --resume",
    "train updn --loss mask+rescale --set mask.dropout=0.3 --set recipe.lr=0.001",
)
WHAT, HOW = "What to train", "How to run it"


def train(
    backbone: Annotated[
        str | None,
        typer.Argument(
            metavar="BACKBONE",
            help="An installed backbone, such as updn (list them: vqabench plugins list). Required unless --config "
            "names one.",
            autocompletion=complete_backbones,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="STRATEGY",
            help="A loss, transforms such as mask, or both joined by +, as in mask+rescale. [default: plain]",
            autocompletion=complete_losses,
            rich_help_panel=WHAT,
        ),
    ] = None,
    objective: Annotated[
        str | None,
        one_of(
            Objective,
            help="Softmax or binary cross-entropy. [default: ce, unless the backbone supports only bce]",
            rich_help_panel=WHAT,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="A data set (list them: vqabench data list). [default: digits-cp]",
            autocompletion=complete_datasets,
            rich_help_panel=WHAT,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="SEEDS", help="0, 0,1,2 or 0-4. [default: 0]", rich_help_panel=WHAT),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Epochs of the first (or only) stage. [default: set by the data set or the backbone]",
            rich_help_panel=WHAT,
        ),
    ] = None,
    finetune_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Epochs of the second stage, or of a run started with --from. [default: set by the data set or "
            "the backbone]",
            rich_help_panel=WHAT,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set an option of the backbone (hidden=512), of a part of the strategy (rescale.variant=released) "
            "or of the recipe (recipe.lr=0.001); repeatable. List them: vqabench plugins show NAME.",
            autocompletion=complete_settings,
            rich_help_panel=WHAT,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read options from a TOML file: the same names without dashes, and --set as a table named set. "
            "The command line takes precedence.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN", help="Start from the weights of a finished run.", rich_help_panel=WHAT
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name these settings in folders and tables. [default: the settings that differ from the defaults]",
            rich_help_panel=WHAT,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue interrupted runs; keep finished ones.", rich_help_panel=HOW),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing runs.", rich_help_panel=HOW)] = False,
    select: Annotated[
        str | None,
        one_of(
            Select,
            help="Which epoch to keep: the last, or the best one on val (or test) in the last stage. Choosing on "
            "test marks every table made from the run. [default: last]",
            rich_help_panel=HOW,
        ),
    ] = None,
    track_test: Annotated[
        bool | None,
        typer.Option(
            "--track-test/--no-track-test",
            help="Record test accuracy after every epoch, without using it to choose one.",
            rich_help_panel=HOW,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="auto|cpu|cuda|cuda:N",
            help="Where to compute; auto is the GPU if there is one. [default: auto]",
            autocompletion=complete_devices,
            rich_help_panel=HOW,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        one_of(
            Precision,
            help="auto is bfloat16 where the hardware supports it, else float32. [default: auto]",
            rich_help_panel=HOW,
        ),
    ] = None,
    features: Annotated[
        str | None,
        one_of(
            Features,
            help="Where to keep region features: GPU memory, main memory, or the disk. auto takes the first that "
            "has room. [default: auto]",
            rich_help_panel=HOW,
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES", help="Time between checkpoints within an epoch. [default: 10]", rich_help_panel=HOW
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        one_of(LogName, help="Also log to TensorBoard or Weights & Biases; repeatable.", rich_help_panel=HOW),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Seeds to train at the same time, each in its own process. [default: 1; small models on a CPU: "
            "one per core]",
            rich_help_panel=HOW,
        ),
    ] = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Train a backbone with a loss strategy and score it.

    The test split (out of domain) and the validation split (in domain) are scored once, with the same weights.
    Interrupt a run at any time; rerun with --resume to continue from the same step.
    """
    from vqabench.config import combine, make_config, parse_seeds, parse_settings, read_config_file
    from vqabench.errors import InputError

    if resume and force:
        raise InputError("--resume continues runs, --force replaces them: choose one")
    form = choose_form(out, as_json)
    given: dict[str, Any] = read_config_file(config) if config else {}
    spelled: dict[str, Any] = {
        "backbone": backbone,
        "loss": loss,
        "objective": objective,
        "dataset": dataset,
        "seeds": parse_seeds(seeds) if seeds is not None else None,
        "epochs": epochs,
        "finetune_epochs": finetune_epochs,
        "start_from": start_from,
        "label": label,
        "select": select,
        "track_test": track_test,
        "device": device,
        "precision": precision,
        "features": features,
        "checkpoint_minutes": checkpoint_minutes,
        "log": tuple(log) if log else None,
        "jobs": jobs,
    }
    line = {name: value for name, value in spelled.items() if value is not None}
    made = make_config(combine(given, line | {"settings": parse_settings(settings or [])}))

    from vqabench.bench.commands import CHILD
    from vqabench.events import Emit, ignore
    from vqabench.paths import Paths
    from vqabench.reporting.progress import Display
    from vqabench.training.interruption import Interruption
    from vqabench.workflows import comparison, training

    paths = Paths(runs, data_dir, catalog)
    emit: Emit = ignore if rank() else Display()  # of several processes, only the first reports
    if_exists: training.IfExists = "resume" if resume else "force" if force else "refuse"
    interruption = Interruption()
    with telling_of_signals(emit, "rerun the same command with --resume to continue"), interruption.watching():
        trained = training.train(made, paths, if_exists, emit, interruption)
    if not trained or CHILD in os.environ:  # whoever started this one compares all runs
        return
    compared = comparison.compare([run.folder for run in trained], None, paths)
    with writing(out):
        print_comparison(compared, form, METRIC.get(form))

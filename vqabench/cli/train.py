"""`vqabench train`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from vqabench.cli.parameters import (
    AsJson,
    Catalog,
    DataDir,
    Runs,
    complete_backbones,
    complete_datasets,
    complete_logs,
    complete_losses,
    rank,
    telling_of_signals,
)


def train(
    backbone: Annotated[
        str | None, typer.Argument(help="An installed backbone.", autocompletion=complete_backbones)
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="A strategy: parts joined by +, such as mask+rescale.",
            show_default="plain",
            autocompletion=complete_losses,
        ),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="bce or ce.", show_default="ce, or what the backbone is defined for")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="A data set of the catalogue.", show_default="digits-cp", autocompletion=complete_datasets
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="0, or 0,1,2, or 0-4.", show_default="0")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of the first (or only) stage.", show_default="the data set's or the backbone's"),
    ] = None,
    finetune_epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of the second stage, or of a run --from another.", show_default="likewise"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option: KEY is the backbone's, PART.KEY a part's (rescale.variant=released), "
            "recipe.KEY the recipe's (recipe.lr=0.001).",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with these keys (backbone, loss, seeds, from, ..., options in a table set), but for "
            "folders, --resume and --force. What the command line says wins."
        ),
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Start from the weights of a finished run.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What folders and tables call these settings.",
            show_default="each that differs from the defaults",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with runs that exist; keep finished ones.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace runs that exist.")] = False,
    select: Annotated[
        str | None,
        typer.Option(
            help="The epoch that is kept: last, val (best in the last stage), or test.", show_default="last"
        ),
    ] = None,
    track_test: Annotated[
        bool | None,
        typer.Option("--track-test/--no-track-test", help="Record test accuracy by epoch; never selects on it."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:0, ...", show_default="auto")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="auto, float32 or bfloat16. auto: bfloat16 where the processor or GPU has it.", show_default="auto"
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Where region features are kept: device (the GPU; without one, as host), host (memory), disk "
            "(read as they are needed), or auto: the first of these that has room, on a CPU disk.",
            show_default="auto",
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float | None,
        typer.Option(help="Minutes between checkpoints within an epoch.", show_default="10"),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Write the run's numbers for tensorboard or wandb (Weights & Biases), too; for both, twice.",
            autocompletion=complete_logs,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Seeds that are trained at the same time, each in a process of its own.",
            show_default="1, or on a CPU, for a small model, one a core",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
) -> None:
    """Train a backbone with a loss strategy, then score it out of domain and in domain."""
    from vqabench.config import combine, make_config, parse_seeds, parse_settings, read_config_file
    from vqabench.errors import InputError

    if resume and force:
        raise InputError("--resume goes on with a run, --force replaces it: choose one")
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

    from vqabench.reporting.progress import WatchedProgress
    from vqabench.training.interruption import Interruption
    from vqabench.workflows import comparison, training
    from vqabench.workflows.commands import CHILD
    from vqabench.workflows.places import Places

    places = Places(runs, data_dir, catalog)
    progress = WatchedProgress()
    if_exists: training.IfExists = "resume" if resume else "force" if force else "refuse"
    interruption = Interruption()
    warn = (lambda _: None) if rank() else progress.warn  # of several processes, the first one speaks
    with telling_of_signals(warn, "the same command with --resume goes on"), interruption.watching():
        trained = training.train(made, places, if_exists, progress, interruption)
    if not trained or CHILD in os.environ:  # whoever started this one compares all runs
        return
    compared = comparison.compare([run.folder for run in trained], None, places)

    from vqabench.reporting import exports, tables

    if as_json:
        typer.echo(exports.comparison_to_json(compared))
    else:
        tables.print_comparison(compared, "accuracy", "answer-type")

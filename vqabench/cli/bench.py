"""`vqabench bench`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vqabench.cli.completion import (
    complete_backbone_list,
    complete_dataset_list,
    complete_devices,
    complete_loss_list,
    complete_objective_list,
    complete_settings,
)
from vqabench.cli.help import examples
from vqabench.cli.output import METRIC, TEXT, Format, Out, choose_form, print_comparison, writing
from vqabench.cli.parameters import AsJson, Catalog, DataDir, Runs, telling_of_signals
from vqabench.events import Warn
from vqabench.reporting.output import say, say_json

EXAMPLES = examples(
    "bench --backbones updn,css --losses plain,rescale --seeds 0-4",
    "bench --backbones updn --losses mask --grid mask.dropout=0,0.5 --dry-run",
    "bench --config matrix.toml --jobs 2",
)
WHAT, HOW = "What to train", "How to run it"


def bench(
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Backbones, as in updn,lmh.",
            autocompletion=complete_backbone_list,
            rich_help_panel=WHAT,
        ),
    ] = None,
    losses: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Strategies, as in plain,rescale,mask+rescale. [default: plain]",
            autocompletion=complete_loss_list,
            rich_help_panel=WHAT,
        ),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="ce, bce or ce,bce. Combinations that a backbone or a loss does not support are skipped. "
            "[default: each backbone's own]",
            autocompletion=complete_objective_list,
            rich_help_panel=WHAT,
        ),
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Data sets. [default: digits-cp]",
            autocompletion=complete_dataset_list,
            rich_help_panel=WHAT,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="SEEDS", help="0, 0,1,2 or 0-4. [default: 0]", rich_help_panel=WHAT),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Try every value of a setting, as in mask.dropout=0,0.5; repeat it for all combinations. Settings "
            "of a part apply only to strategies that have the part.",
            autocompletion=complete_settings,
            rich_help_panel=WHAT,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set an option of all runs, as in vqabench train; repeatable.",
            autocompletion=complete_settings,
            rich_help_panel=WHAT,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the matrix from a TOML file: the same names without dashes, lists as lists, and one "
            "[[matrix]] table for each product. The command line takes precedence.",
            rich_help_panel=WHAT,
        ),
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
            help="Epochs of the second stage. [default: set by the data set or the backbone]",
            rich_help_panel=WHAT,
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
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Runs to train at the same time. [default: as many as the cores or the GPUs' memory allow]",
            rich_help_panel=HOW,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="auto|cpu|cuda|cuda:N",
            help="Where to compute; cuda is all GPUs. [default: auto]",
            autocompletion=complete_devices,
            rich_help_panel=HOW,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan without training.", rich_help_panel=HOW)
    ] = False,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Train every combination of backbones and strategies.

    Finished runs are kept, interrupted ones continue, and a run that fails does not stop the others. Rerun the same
    command to train the runs that are left. At the end all runs are compared.
    """
    from vqabench.bench.matrix import parse_grid, parse_names, read_blocks, with_grid
    from vqabench.config import parse_seeds, parse_settings
    from vqabench.errors import InputError

    form = choose_form(out, as_json, TEXT if dry_run else tuple(Format))
    if dry_run and out is not None and form is not Format.json:
        raise InputError(f"--out {out}: with --dry-run only JSON is written to a file; add --json")
    lists = {"backbones": backbones, "losses": losses, "objectives": objectives, "datasets": datasets}
    spelled: dict[str, Any] = {
        **{key: parse_names(key, text) for key, text in lists.items() if text is not None},
        "seeds": parse_seeds(seeds) if seeds is not None else None,
        "settings": with_grid(parse_settings(settings or []), parse_grid(grid or []), "the command line"),
        "epochs": epochs,
        "finetune_epochs": finetune_epochs,
        "track_test": track_test,
        "jobs": jobs,
        "device": device,
    }
    blocks = read_blocks(config, {name: value for name, value in spelled.items() if value is not None})

    from vqabench.paths import Paths
    from vqabench.reporting import exports
    from vqabench.reporting.matrix import describe_plan, plan_to_json
    from vqabench.reporting.progress import Display
    from vqabench.training.interruption import Interruption
    from vqabench.workflows import bench as workflow
    from vqabench.workflows import comparison

    paths = Paths(runs, data_dir, catalog)
    display, interruption = Display(), Interruption()
    plan = workflow.plan_matrix(blocks, paths)
    for line in describe_plan(plan):
        if dry_run and form is not Format.json and isinstance(line, str):
            say(line)  # the plan is the output
        else:
            display(line)
    if dry_run:
        if form is Format.json:
            with writing(out):
                say_json(exports.to_json(plan_to_json(plan)))
        return
    run = workflow.MatrixRun(plan, display)
    with telling_of_signals(display, run.describe_saved), interruption.watching():
        run.train(paths, interruption)
    failures = run.failures
    finished = [cell.run.folder for cell in plan.cells if cell.name not in failures]
    compared = comparison.compare(finished, None, paths) if finished else None
    if form is Format.json:
        with writing(out):
            say_json(exports.to_json({"failed": failures} | exports.lay_flat(compared)))
    elif compared is not None:
        with writing(out):
            print_comparison(compared, form, METRIC.get(form))
    for name, reason in failures.items():
        display(Warn(f"{name}: {reason}"))
    display(run.summary())
    if failures:
        raise typer.Exit(1)

"""`vqabench bench`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vqabench.cli.completion import (
    complete_backbone_list,
    complete_dataset_list,
    complete_loss_list,
    complete_objective_list,
    complete_settings,
)
from vqabench.cli.formats import METRIC, TEXT, Format, Out, choose_form, print_comparison, writing
from vqabench.cli.help import examples
from vqabench.cli.parameters import AsJson, Catalog, DataDir, Runs, reporting_signals, with_options
from vqabench.config import HOW, WHAT, read_line
from vqabench.errors import InputError
from vqabench.events import Warn
from vqabench.reporting.output import say, say_json

EXAMPLES = examples(
    "bench --backbones updn,css --losses plain,rescale --seeds 0-4",
    "bench --backbones updn --losses mask --grid mask.dropout=0,0.5 --dry-run",
    "bench --config matrix.toml --jobs 2",
)


def _list(text: str, complete: Callable[..., list[str]]) -> Any:
    return typer.Option(metavar="LIST", help=text, autocompletion=complete, rich_help_panel=WHAT)


@with_options(
    "seeds",
    "epochs",
    "track_test",
    finetune_epochs="Epochs of the second stage. [default: set by the data set or the backbone]",
    settings="Set an option of all runs, as in vqabench train; repeatable.",
    jobs="Runs to train at the same time. [default: as many as the cores or the GPUs' memory allow]",
    device="Where to compute; cuda is all GPUs. [default: auto]",
)
def bench(
    backbones: Annotated[str | None, _list("Backbones, as in updn,lmh.", complete_backbone_list)] = None,
    losses: Annotated[
        str | None, _list("Strategies, as in plain,rescale,mask+rescale. [default: plain]", complete_loss_list)
    ] = None,
    objectives: Annotated[
        str | None,
        _list(
            "ce, bce or ce,bce. Combinations that a backbone or a loss does not support are skipped. "
            "[default: each backbone's own]",
            complete_objective_list,
        ),
    ] = None,
    datasets: Annotated[str | None, _list("Data sets. [default: digits-cp]", complete_dataset_list)] = None,
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
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the matrix from a TOML file: the same names without dashes, lists as lists, and one "
            "[[matrix]] table for each product. The command line takes precedence.",
            rich_help_panel=WHAT,
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
    **given: Any,
) -> None:
    """Train every combination of backbones and strategies.

    Finished runs are kept, interrupted ones continue, and a run that fails does not stop the others. Rerun the same
    command to train the runs that are left. At the end all runs are compared.
    """
    from vqabench.bench.matrix import parse_grid, read_blocks, read_names, with_grid

    form = choose_form(out, as_json, TEXT if dry_run else tuple(Format))
    if dry_run and out is not None and form is not Format.json:
        raise InputError(f"--out {out}: with --dry-run only JSON is written to a file; add --json")
    line = read_line(given)
    line["settings"] = with_grid(line.get("settings", {}), parse_grid(grid or []), "the command line")
    lists = {"backbones": backbones, "losses": losses, "objectives": objectives, "datasets": datasets}
    line |= {key: read_names(f"--{key}", text) for key, text in lists.items() if text is not None}
    blocks = read_blocks(config, line)

    from vqabench.paths import Paths
    from vqabench.reporting import exports
    from vqabench.reporting.plans import describe_plan, plan_to_json
    from vqabench.reporting.progress import Display
    from vqabench.training.interruption import Interruption
    from vqabench.workflows import bench as workflow
    from vqabench.workflows import comparison

    paths = Paths(runs, data_dir, catalog)
    display, interruption = Display(), Interruption()
    plan = workflow.plan_matrix(blocks, paths)
    for report in describe_plan(plan):
        if dry_run and form is not Format.json and isinstance(report, str):
            say(report)  # the plan is the output
        else:
            display(report)
    if dry_run:
        if form is Format.json:
            with writing(out):
                say_json(exports.to_json(plan_to_json(plan)))
        return
    run = workflow.MatrixRun(plan, display)
    with reporting_signals(display, run.describe_saved), interruption.watching():
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
    for name, reason in failures.items() if len(plan.cells) > 1 else ():  # they scrolled away long ago
        display(Warn(f"{name}: {reason}"))
    display(run.summary())
    if failures:
        raise typer.Exit(1)

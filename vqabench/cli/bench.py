"""`vqabench bench`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vqabench.cli.parameters import AsJson, Catalog, DataDir, Runs, telling_of_signals


def bench(
    backbones: Annotated[str | None, typer.Option(help="Backbones, with commas between them.")] = None,
    losses: Annotated[
        str | None, typer.Option(help="Strategies, as in plain,rescale,mask+rescale.", show_default="plain")
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            help="ce, bce or both. What a backbone is not defined for is left out.",
            show_default="each backbone's own",
        ),
    ] = None,
    datasets: Annotated[str | None, typer.Option(help="Data sets.", show_default="digits-cp")] = None,
    seeds: Annotated[str | None, typer.Option(help="0, or 0,1,2, or 0-4.", show_default="0")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Every one of a setting's values, as in mask.dropout=0,0.5; several grids make all combinations. "
            "Settings of a part go to the strategies that have it.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of all runs, as in train."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with these keys and those of train's; tables named matrix, in double brackets, are "
            "products of their own. What the command line says wins."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="As in train.", show_default="likewise")] = None,
    finetune_epochs: Annotated[int | None, typer.Option(help="As in train.", show_default="likewise")] = None,
    track_test: Annotated[
        bool | None,
        typer.Option("--track-test/--no-track-test", help="Record test accuracy by epoch; never selects on it."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs that are trained at the same time.",
            show_default="as many as there are cores for, or memory on the GPUs",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda (all GPUs).", show_default="auto")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; train nothing.")] = False,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
) -> None:
    """Train every combination of backbones, strategies and settings that is not trained yet, then compare them.

    Runs that are finished are left alone, those that have begun go on, and one that fails does not stop the others:
    the same command again does what is left.
    """
    from vqabench.config import parse_seeds, parse_settings
    from vqabench.workflows.matrix import parse_grid, parse_names, read_blocks, with_grid

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

    from vqabench.reporting import exports, tables
    from vqabench.reporting.matrix import WatchedMatrix, plan_to_json
    from vqabench.training.interruption import Interruption
    from vqabench.workflows import bench as workflow
    from vqabench.workflows import comparison
    from vqabench.workflows.places import Places

    places = Places(runs, data_dir, catalog)
    progress, interruption = WatchedMatrix(), Interruption()
    matrix = workflow.plan(blocks, places)
    outlook = workflow.look_out(matrix, places)
    progress.plan(outlook)
    if dry_run:
        if as_json:
            typer.echo(exports.to_json(plan_to_json(outlook)))
        return
    course = workflow.Course(outlook, progress)
    with telling_of_signals(progress.warn, course.saved), interruption.watching():
        workflow.bench(course, places, interruption)
    failures = course.failures
    finished = [cell.run.folder for cell in matrix.cells if cell.name not in failures]
    compared = comparison.compare(finished, None, places) if finished else None
    if as_json:
        typer.echo(exports.to_json({"failed": failures} | exports.lay_flat(compared)))
    elif compared is not None:
        tables.print_comparison(compared, "accuracy", "answer-type")
    for name, reason in failures.items():
        progress.warn(f"{name}: {reason}")
    progress.say(course.summary())
    if failures:
        raise typer.Exit(1)

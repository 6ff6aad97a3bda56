"""`vqabench data`."""

import typer

from vqabench.cli.parameters import AsJson, Catalog, DataDir, DatasetName

app = typer.Typer(no_args_is_help=True, help="Data sets: the catalogue, and what is prepared of it.")


@app.command("list")
def list_datasets(data_dir: DataDir = None, catalog: Catalog = None, as_json: AsJson = False) -> None:
    """List the data sets of the catalogue."""
    from vqabench.reporting import exports, lists
    from vqabench.workflows import datasets
    from vqabench.workflows.places import Places

    listed = datasets.list_datasets(Places(data=data_dir, catalog=catalog))
    if as_json:
        typer.echo(exports.to_json(listed))
        return
    rows = [(one.name, "yes" if one.prepared else "no", one.title) for one in listed]
    lists.stdout_console().print(lists.draw_list(("name", "prepared", "title"), rows))


@app.command("info")
def info(name: DatasetName, data_dir: DataDir = None, catalog: Catalog = None, as_json: AsJson = False) -> None:
    """Show what the catalogue says of a data set and, where it is prepared, what it holds."""
    from vqabench.reporting import exports, lists
    from vqabench.workflows import datasets
    from vqabench.workflows.places import Places

    facts = datasets.describe_dataset(name, Places(data=data_dir, catalog=catalog))
    if as_json:
        typer.echo(exports.to_json(facts))
        return
    spelled = {key: f"{value:,}" if isinstance(value, int) else str(value) for key, value in facts.items()}
    lists.stdout_console().print(lists.draw_facts(spelled))


@app.command("prepare")
def prepare(name: DatasetName, data_dir: DataDir = None, catalog: Catalog = None) -> None:
    """Make a data set ready for training: vocabulary, tokens, targets, counts, features."""
    from vqabench.reporting.progress import WatchedProgress
    from vqabench.workflows import datasets
    from vqabench.workflows.places import Places

    dataset, summary = datasets.prepare_dataset(name, Places(data=data_dir, catalog=catalog), WatchedProgress())
    sizes = ", ".join(f"{split} {count:,}" for split, count in summary.questions.items())
    typer.echo(f"{dataset.folder}: {sizes} questions; {summary.answers:,} answers; ready")

"""`vqabench compare`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqabench.cli.output import ANY, TEXT, Format, Out, choose_form, print_comparison, writing
from vqabench.cli.parameters import AsJson, Catalog, DataDir, Runs, complete_datasets

if TYPE_CHECKING:
    from vqabench.workflows.places import Places


class Metric(StrEnum):
    """What is compared."""

    accuracy = "accuracy"
    kappa = "kappa"


class By(StrEnum):
    """What the questions are grouped by."""

    answer_type = "answer-type"
    question_type = "question-type"
    prior = "prior"


class Split(StrEnum):
    """Which split's numbers."""

    val = "val"
    test = "test"


def complete_rows(incomplete: str) -> list[str]:
    """Offer the rows of `runs`, by the names of their folders."""
    found = sorted(Path("runs").glob("*/*/*"))
    names = dict.fromkeys(f"{folder.parent.name}/{folder.name}" for folder in found if folder.is_dir())
    return [name for name in names if name.startswith(incomplete)]


def compare(
    run: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders of runs.", show_default="all runs")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Only runs on this data set.", autocompletion=complete_datasets)
    ] = None,
    metric: Annotated[Metric | None, typer.Option(help="Only this metric.")] = None,
    by: Annotated[
        By,
        typer.Option(
            help="What the questions are grouped by. prior: how far the answers go along with the training prior, "
            "from stored answers and the data."
        ),
    ] = By.answer_type,
    split: Annotated[Split | None, typer.Option(help="Only this split.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="ROW",
            help="Compare every row with this one, across backbones, not with plain. As tables name it: "
            "BACKBONE/STRATEGY.",
            autocompletion=complete_rows,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Only these columns, as they are headed: Y/N,Num.,Other,All,in-domain,gain."
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="csv and json hold every number.", show_default="table, or by --out"),
    ] = None,
    as_json: AsJson = False,
    out: Out = None,
    published: Annotated[
        bool,
        typer.Option("--published", help="Show the paper's results (Tables II to V) next to ours."),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Say in words what can be concluded from two configurations, each given as its folder, and list "
            "the questions that changed.",
        ),
    ] = False,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Compare finished runs: mean and deviation over seeds, out of domain and in domain."""
    from vqabench.errors import InputError
    from vqabench.workflows.places import Places

    form = choose_form(out, as_json, TEXT if explain else ANY, form)
    if explain and (dataset or metric or published or split or against or columns or by is not By.answer_type):
        raise InputError(
            "--explain: compares all of two folders of runs; drop the other options but --json and --out"
        )
    if explain:
        _explain(run or [], form, out, Places(runs, data_dir, catalog))
        return
    if by is not By.answer_type and metric is Metric.kappa:
        raise InputError(f"--by {by.value}: kappa is defined by answer type; drop --metric kappa")
    if published and by is not By.answer_type:
        raise InputError(f"--published: the paper's numbers are by answer type; drop --by {by.value}")
    everything = form in (Format.csv, Format.json)
    if everything and (by is By.question_type or columns):
        raise InputError(f"--format {form.value} holds every column and group; drop --by and --columns")

    from vqabench.reporting.grids import parse_columns
    from vqabench.workflows import comparison as workflow

    chosen = parse_columns(columns, by.value) if columns is not None else ()
    places = Places(runs, data_dir, catalog)
    break_down = None
    if by is By.prior:
        from vqabench.reporting.progress import WatchedLines
        from vqabench.workflows.stored import Stored

        break_down = Stored(places, WatchedLines().say).break_down
    compared = workflow.compare(
        run or [],
        dataset,
        places,
        by_type=by is By.question_type or everything,
        published=published,
        break_down=break_down,
        against=against,
    )
    with writing(out):
        print_comparison(
            compared, form, metric.value if metric else None, by.value, split.value if split else None, chosen
        )


def _explain(folders: list[Path], form: Format, out: Path | None, places: "Places") -> None:
    """Print what can be concluded from two configurations."""
    from vqabench.errors import InputError

    if len(folders) != 2:
        raise InputError("--explain: name two folders of runs, as in: vqabench compare A B --explain")
    from vqabench.reporting import explanation, exports
    from vqabench.reporting.progress import WatchedLines
    from vqabench.workflows import explanation as workflow

    before, after = folders
    pair, questions, notes = workflow.explain(before, after, places, WatchedLines().say)
    with writing(out):
        if form is Format.json:
            typer.echo(exports.to_json(explanation.explanation_to_json(pair, questions, notes)))
        else:
            typer.echo(explanation.explain(pair, questions, notes))

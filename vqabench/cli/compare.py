"""`vqabench compare`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vqabench.cli.parameters import Runs, complete_datasets


class Metric(StrEnum):
    """What is compared."""

    accuracy = "accuracy"
    kappa = "kappa"


class By(StrEnum):
    """What the questions are grouped by."""

    answer_type = "answer-type"
    question_type = "question-type"


class Format(StrEnum):
    """The form of the output."""

    table = "table"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


def compare(
    run: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders of runs.", show_default="all runs")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Only runs on this data set.", autocompletion=complete_datasets)
    ] = None,
    metric: Annotated[Metric | None, typer.Option(help="Only this metric.")] = None,
    by: Annotated[By, typer.Option(help="What the questions are grouped by.")] = By.answer_type,
    form: Annotated[Format, typer.Option("--format", help="csv and json hold everything.")] = Format.table,
    published: Annotated[
        bool,
        typer.Option("--published", help="Add what the paper has printed on the same (Tables II to V) beside it."),
    ] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Compare finished runs: mean and deviation over seeds, out of domain and in domain."""
    from vqabench.errors import InputError

    if by is By.question_type and metric is Metric.kappa:
        raise InputError("--by question-type: kappa is defined by answer type; drop --metric kappa")
    if form in (Format.csv, Format.json) and (metric is not None or by is By.question_type):
        raise InputError(f"--format {form.value} holds every metric and group; drop --metric and --by")

    from vqabench.reporting import exports, grids, lists, tables
    from vqabench.workflows import comparison as workflow
    from vqabench.workflows.places import Places

    comparison = workflow.compare(run or [], dataset, Places(runs), published=published)
    if form is Format.json:
        typer.echo(exports.comparison_to_json(comparison))
    elif form is Format.csv:
        typer.echo(exports.to_csv(comparison), nl=False)
    elif form in (Format.markdown, Format.latex):
        laid_out = grids.lay_out(comparison, metric, by.value)
        write = exports.to_markdown if form is Format.markdown else exports.to_latex
        typer.echo(write(laid_out, comparison.notes))
    else:
        console = lists.stdout_console()
        for grid in grids.lay_out(comparison, metric, by.value):
            console.print(*tables.draw(grid, console.width))
        for note in comparison.notes:
            console.print(note, markup=False)
        return
    for note in comparison.notes if form is Format.csv else ():
        lists.warn(note)

"""`vqabench compare`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqabench.cli.completion import complete_datasets
from vqabench.cli.help import examples
from vqabench.cli.parameters import Catalog, DataDir, Runs

if TYPE_CHECKING:
    from vqabench.evaluation.comparison import Comparison
    from vqabench.workflows.places import Places


EXAMPLES = examples(
    "compare",
    "compare runs/digits-cp --metric accuracy --format markdown",
    "compare runs/digits-cp/updn/ce-plain runs/digits-cp/updn/ce-rescale --explain",
)


class Metric(StrEnum):
    """Metrics to compare."""

    accuracy = "accuracy"
    kappa = "kappa"


class By(StrEnum):
    """Groups of questions."""

    answer_type = "answer-type"
    question_type = "question-type"
    prior = "prior"


class Format(StrEnum):
    """Output formats."""

    table = "table"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


def compare(
    run: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Runs, or folders of runs. [default: all finished runs in --runs]"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Only runs on this data set.", autocompletion=complete_datasets),
    ] = None,
    metric: Annotated[
        Metric | None, typer.Option(metavar="|".join(Metric), help="Show only this metric. [default: both]")
    ] = None,
    by: Annotated[
        By,
        typer.Option(
            metavar="|".join(By),
            help="How to group the questions. prior shows how often the answers follow the training prior; it "
            "needs the data.",
        ),
    ] = By.answer_type,
    form: Annotated[
        Format,
        typer.Option(
            "--format", metavar="|".join(Format), help="Output format; csv and json hold every metric and group."
        ),
    ] = Format.table,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Show the paper's results next to ours, or alone if there are no runs.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Explain what can be concluded from two configurations, given by their folders, and list the "
            "questions whose answers changed.",
        ),
    ] = False,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Compare finished runs.

    Tables show the mean and standard deviation over seeds, out of domain and in domain, and the gain over the plain
    loss with its confidence interval and p-value.
    """
    from vqabench.errors import InputError
    from vqabench.workflows.places import Places

    if explain and (dataset or metric or published or by is not By.answer_type):
        raise InputError("--explain compares two configurations as a whole: drop the other options except --format")
    if explain:
        _explain(run or [], form, Places(runs, data_dir, catalog))
        return
    if by is not By.answer_type and metric is Metric.kappa:
        raise InputError(f"--by {by.value}: kappa is defined by answer type; drop --metric kappa")
    if published and by is not By.answer_type:
        raise InputError(f"--published: the paper's results are by answer type; drop --by {by.value}")
    if form in (Format.csv, Format.json) and (metric is not None or by is By.question_type):
        raise InputError(f"--format {form.value} always holds every metric and group; drop --metric and --by")

    from vqabench.workflows import comparison as workflow

    places = Places(runs, data_dir, catalog)
    break_down = None
    if by is By.prior:
        from vqabench.reporting.progress import WatchedLines
        from vqabench.workflows.stored import Stored

        break_down = Stored(places, WatchedLines().say).break_down
    by_type = by is By.question_type or form in (Format.csv, Format.json)
    compared = workflow.compare(
        run or [], dataset, places, by_type=by_type, published=published, break_down=break_down
    )
    _render(compared, form, metric, by)


def _render(compared: "Comparison", form: Format, metric: Metric | None, by: By) -> None:
    """Print a comparison in one of the formats."""
    from vqabench.reporting import exports, grids, lists, tables

    if form is Format.json:
        typer.echo(exports.comparison_to_json(compared))
    elif form is Format.csv:
        typer.echo(exports.to_csv(compared), nl=False)
        for note in grids.choose_notes(compared, by.value):
            lists.warn(note)
    elif form in (Format.markdown, Format.latex):
        laid_out = grids.lay_out(compared, metric, by.value)
        write = exports.to_markdown if form is Format.markdown else exports.to_latex
        typer.echo(write(laid_out, grids.choose_notes(compared, by.value)))
    else:
        tables.print_comparison(compared, metric, by.value)


def _explain(folders: list[Path], form: Format, places: "Places") -> None:
    """Print what can be concluded from two configurations."""
    from vqabench.errors import InputError

    if len(folders) != 2:
        raise InputError("--explain: name two folders of runs, as in: vqabench compare A B --explain")
    if form not in (Format.table, Format.json):
        raise InputError(f"--explain prints text, or JSON with --format json; drop --format {form.value}")
    from vqabench.reporting import explanation, exports
    from vqabench.reporting.progress import WatchedLines
    from vqabench.workflows import explanation as workflow

    before, after = folders
    pair, questions, notes = workflow.explain(before, after, places, WatchedLines().say)
    if form is Format.json:
        typer.echo(exports.to_json(explanation.explanation_to_json(pair, questions, notes)))
    else:
        typer.echo(explanation.explain(pair, questions, notes))

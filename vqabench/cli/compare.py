"""`vqabench compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vqabench.cli.completion import complete_columns, complete_datasets, complete_rows
from vqabench.cli.formats import ANY, TEXT, Format, Out, choose_form, print_comparison, writing
from vqabench.cli.help import examples
from vqabench.cli.parameters import AsJson, Catalog, DataDir, Runs, one_of
from vqabench.errors import InputError
from vqabench.reporting.output import say, say_json

if TYPE_CHECKING:
    from vqabench.evaluation.comparison import Comparison
    from vqabench.paths import Paths

EXAMPLES = examples(
    "compare runs/digits-cp --against lmh/bce-plain",
    "compare --metric accuracy --split test --columns All,in-domain,gain --out table.tex",
    "compare runs/digits-cp/updn/ce-plain runs/digits-cp/updn/ce-rescale --explain",
)
WHAT = "What to show"


Metric = Literal["accuracy", "kappa"]
By = Literal["answer-type", "question-type", "prior", "subset"]
Split = Literal["val", "test"]


def compare(
    run: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Runs, or folders of runs. [default: all finished runs in --runs]"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Only runs on this data set.",
            autocompletion=complete_datasets,
            rich_help_panel=WHAT,
        ),
    ] = None,
    metric: Annotated[
        Metric | None, one_of(Metric, help="Show only this metric. [default: both]", rich_help_panel=WHAT)
    ] = None,
    by: Annotated[
        By,
        one_of(
            By,
            help="How to group the questions. prior shows how closely the answers follow the training prior, "
            "subset the accuracy on the data set's named subsets; both need the data.",
            rich_help_panel=WHAT,
        ),
    ] = "answer-type",
    split: Annotated[
        Split | None, one_of(Split, help="Show only this split. [default: both]", rich_help_panel=WHAT)
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="ROW",
            help="Compare every row with this one, also across backbones, instead of with plain. Written as in "
            "tables: BACKBONE/STRATEGY.",
            autocompletion=complete_rows,
            rich_help_panel=WHAT,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Show only these columns, as in Y/N,Num.,Other,All,in-domain,gain.",
            autocompletion=complete_columns,
            rich_help_panel=WHAT,
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Show the paper's results next to yours, or alone if there are no runs.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Explain what can be concluded from two configurations, given by their folders, and list the "
            "questions whose answers changed.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            metavar="|".join(Format),
            help="Output format; csv and json hold every column and group. [default: table, or chosen by --out]",
        ),
    ] = None,
    as_json: AsJson = False,
    out: Out = None,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Compare finished runs.

    Tables show the mean and standard deviation over seeds, out of domain and in domain, and the gain over the plain
    loss with its confidence interval and p-value.
    """
    from vqabench.paths import Paths

    form = choose_form(out, as_json, TEXT if explain else ANY, form)
    paths = Paths(runs, data_dir, catalog)
    if explain:
        if dataset or metric or published or split or against or columns or by != "answer-type":
            raise InputError(
                "--explain compares two configurations as a whole: drop the other options except --format, --json "
                "and --out"
            )
        _explain(run or [], form, out, paths)
        return
    if by != "answer-type" and metric == "kappa":
        raise InputError(f"--by {by}: kappa is defined by answer type; drop --metric kappa")
    if published and by != "answer-type":
        raise InputError(f"--published: the paper's results are by answer type; drop --by {by}")
    everything = form in (Format.csv, Format.json)
    if everything and (by == "question-type" or columns):
        chosen_by = "--columns" if columns else "--by question-type"
        raise InputError(f"{chosen_by}: {form} output always holds every column and question type; drop it")

    from vqabench.reporting.grids import parse_columns
    from vqabench.workflows import comparison as workflow

    break_down = None
    if by in ("prior", "subset"):
        from vqabench.reporting.progress import Display
        from vqabench.workflows.stored import StoredAnswers  # loads torch

        stored = StoredAnswers(paths, Display())
        break_down = stored.break_down if by == "prior" else stored.break_down_by_subset
    chosen = parse_columns(columns, by) if columns is not None else ()
    compared = workflow.compare(
        run or [],
        dataset,
        paths,
        by_type=by == "question-type" or everything,
        published=published,
        break_down=break_down,
        against=against,
    )
    if by == "subset" and not any(key[2] == by for row in compared.rows for key in row.cells):
        raise InputError("; ".join(compared.notes))
    if chosen:
        _check_columns(compared, chosen, metric, by, split)
    with writing(out):
        print_comparison(compared, form, metric, by, split, chosen)


def _check_columns(
    compared: "Comparison", chosen: Sequence[str], metric: str | None, by: By, split: str | None
) -> None:
    """Warn of requested columns that no table has; raise InputError if that leaves none."""
    from vqabench.reporting import grids, lists

    heads = {head for grid in grids.lay_out(compared, metric, by, split) for head in grid.head}
    missing = [column for column in chosen if column not in heads]
    message = f"--columns: no table has {', '.join(missing)}"
    if len(missing) == len(chosen):
        shown = [head for head in grids.list_columns(by) if head in heads]
        raise InputError(f"{message}; these tables have {', '.join(shown)}")
    if missing:
        lists.warn(message)


def _explain(folders: list[Path], form: Format, out: Path | None, paths: "Paths") -> None:
    """Print what can be concluded from two configurations."""
    if len(folders) != 2:
        raise InputError("--explain: name two folders of runs, as in: vqabench compare A B --explain")
    from vqabench.reporting import exports, verdicts
    from vqabench.reporting.progress import Display
    from vqabench.workflows import comparison as workflow

    before, after = folders
    pair, questions, notes = workflow.explain(before, after, paths, Display())
    with writing(out):
        if form is Format.json:
            say_json(exports.to_json(verdicts.explanation_to_json(pair, questions, notes)))
        else:
            say(verdicts.explain(pair, questions, notes))

"""`vqabench evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from vqabench.cli.output import LISTS, Format, Out, choose_form, print_list, writing
from vqabench.cli.parameters import AsJson, Catalog, DataDir, complete_datasets


def evaluate(
    predictions: Annotated[Path, typer.Argument(help='A results file: [{"question_id": 1, "answer": "2"}, ...]')],
    dataset: Annotated[
        str | None, typer.Option(help="A data set of the catalogue.", autocompletion=complete_datasets)
    ] = None,
    split: Annotated[str | None, typer.Option(help="Its split.", show_default="test")] = None,
    questions: Annotated[Path | None, typer.Option(help="A questions file, instead of a data set.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Its annotations file.")] = None,
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Score any model's results file: official VQA accuracy and Cohen's kappa."""
    from vqabench.errors import InputError

    from_files = questions is not None or annotations is not None
    if from_files == (dataset is not None) or (split is not None and dataset is None):
        raise InputError("say what was asked: either --dataset D [--split S], or --questions F --annotations F")

    form = choose_form(out, as_json, LISTS)

    from vqabench.reporting.progress import WatchedProgress
    from vqabench.workflows import evaluation
    from vqabench.workflows.places import Places

    if dataset is not None:
        places = Places(data=data_dir, catalog=catalog)
        scores = evaluation.evaluate_on_dataset(predictions, dataset, split or "test", places, WatchedProgress())
    elif questions is not None and annotations is not None:
        scores = evaluation.evaluate(predictions, questions, annotations)
    else:
        raise InputError("--questions and --annotations go together")

    from vqabench.reporting import exports, lists, tables

    with writing(out):
        if form is Format.json:
            typer.echo(exports.to_json(scores))
        elif form is not Format.table:
            print_list(*tables.list_scores(scores), form)
        else:
            console = lists.stdout_console()
            console.print(f"{predictions}: {scores.questions:,} questions", markup=False, soft_wrap=True)
            for table in tables.draw_scores(scores):
                console.print(table)

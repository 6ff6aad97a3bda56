"""`vqabench evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vqabench.cli.completion import complete_datasets
from vqabench.cli.formats import LISTS, Format, Out, choose_form, print_list, writing
from vqabench.cli.help import examples
from vqabench.cli.parameters import AsJson, Catalog, DataDir, SplitName, one_of
from vqabench.errors import InputError, counted
from vqabench.reporting.output import say_json

EXAMPLES = examples(
    "evaluate results.json --dataset vqa-cp-v2",
    "evaluate results.json --questions questions.json --annotations annotations.json --out scores.csv",
)


Missing = Literal["refuse", "wrong"]


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help='A results file, or - for stdin: [{"question_id": 1, "answer": "2"}, ...], one such object per '
            'line, or {"1": "2", ...}.',
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET", help="The data set whose questions were answered.", autocompletion=complete_datasets
        ),
    ] = None,
    split: Annotated[str | None, one_of(SplitName, help="The split that was answered. [default: test]")] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A questions file, instead of --dataset.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The annotations of --questions.")
    ] = None,
    missing: Annotated[
        Missing, one_of(Missing, help="Refuse a file that lacks answers, or count the missing ones as wrong.")
    ] = "refuse",
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Score a results file of any model.

    Prints the official VQA accuracy and Cohen's kappa, by answer type.
    """
    from_files = questions is not None or annotations is not None
    if from_files == (dataset is not None) or (split is not None and dataset is None):
        raise InputError(
            "name the questions: either --dataset DATASET [--split SPLIT], or --questions FILE --annotations FILE"
        )

    form = choose_form(out, as_json, LISTS)

    from vqabench.paths import Paths
    from vqabench.reporting.progress import Display
    from vqabench.workflows import evaluation

    predictions = Path("/dev/stdin") if predictions == Path("-") else predictions
    display, as_wrong = Display(), missing == "wrong"
    if dataset is not None:
        paths = Paths(data=data_dir, catalog=catalog)
        scores = evaluation.evaluate_on_dataset(
            predictions, dataset, split or "test", paths, display, missing_is_wrong=as_wrong
        )
    elif questions is not None and annotations is not None:
        scores = evaluation.evaluate(predictions, questions, annotations, display, missing_is_wrong=as_wrong)
    else:
        raise InputError("--questions and --annotations go together: name both")

    from vqabench.reporting import exports, lists, tables

    with writing(out):
        if form is Format.json:
            say_json(exports.to_json(scores))
        elif form is not Format.table:
            print_list(*tables.list_scores(scores, exact=form is Format.csv), form, tables.describe_gaps(scores))
        else:
            console = lists.stdout_console()
            console.print(f"{predictions}: {counted(scores.questions, 'question')}", soft_wrap=True)
            console.print(*tables.draw_scores(scores))
            for note in tables.describe_gaps(scores):
                console.print(note, soft_wrap=True)

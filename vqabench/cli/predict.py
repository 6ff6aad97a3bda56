"""`vqabench predict`."""

from pathlib import Path
from typing import Annotated

import typer

from vqabench.cli.formats import check_ending
from vqabench.cli.help import examples
from vqabench.cli.parameters import Catalog, DataDir, Device, SplitName, one_of
from vqabench.errors import counted
from vqabench.reporting.output import say

EXAMPLES = examples(
    "predict runs/digits-cp/updn/ce-plain/seed-0",
    "predict runs/digits-cp/updn/ce-plain/seed-0 --split val --out answers.json",
    "predict runs/digits-cp/updn/ce-plain/seed-0 --shuffle-images 1",
)


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    split: Annotated[str, one_of(SplitName, help="The split to answer.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The results file to write, such as answers.json. [default: in the run's folder]"
        ),
    ] = None,
    shuffle_images: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            min=0,
            help="Pair every question with another image, to see how much the right image matters.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run's stored answers and scores if the new ones differ.")
    ] = False,
    device: Device = "auto",
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Answer a split's questions with a trained run.

    Writes a file in the official results format and prints its accuracy.
    """
    if out is not None:
        check_ending(out, [".json"])
    from vqabench.paths import Paths
    from vqabench.reporting import tables
    from vqabench.reporting.progress import Display
    from vqabench.workflows import prediction

    paths = Paths(data=data_dir, catalog=catalog)
    path, scores = prediction.predict_run(run, split, out, paths, device, Display(), shuffle_images, force=force)
    if scores is None:
        say(f"{path}: answers to {split} are not scored, because it has no annotations")
    else:
        accuracy = tables.format_number(scores.accuracy["all"])
        say(f"{path}: {counted(scores.questions, 'answer')}, accuracy {accuracy}")

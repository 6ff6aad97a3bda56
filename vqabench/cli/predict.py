"""`vqabench predict`."""

from pathlib import Path
from typing import Annotated

import typer

from vqabench.cli.parameters import Catalog, DataDir, Device
from vqabench.reporting.output import say


def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder: runs/DATASET/BACKBONE/STRATEGY/seed-N.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Where to write the answers.", show_default="into the run's folder")
    ] = None,
    shuffle_images: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            min=0,
            help="Ask every question about another image: how much does the right one matter?",
        ),
    ] = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Answer a split's questions with a run's weights, in the official results format."""
    from vqabench.reporting import tables
    from vqabench.reporting.progress import WatchedProgress
    from vqabench.workflows import prediction
    from vqabench.workflows.places import Places

    places = Places(data=data_dir, catalog=catalog)
    path, scores = prediction.predict_run(run, split, out, places, device, WatchedProgress(), shuffle_images)
    say(f"{path}: {scores.questions} answers, accuracy {tables.spell_number(scores.accuracy['all'])}")

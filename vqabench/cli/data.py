"""`vqabench data`."""

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqabench.cli.output import LISTS, TEXT, Format, choose_form, print_list, writing
from vqabench.cli.output import Out as OutFile
from vqabench.cli.parameters import AsJson, Catalog, DataDir, DatasetName, Device, telling_of_signals

if TYPE_CHECKING:
    from vqabench.data.changing_priors import Shift
    from vqabench.workflows.fetching import Outcome
    from vqabench.workflows.splits import Derived

app = typer.Typer(no_args_is_help=True, help="Data sets: the catalogue, and what is prepared of it.")


@app.command("list")
def list_datasets(
    data_dir: DataDir = None, catalog: Catalog = None, as_json: AsJson = False, out: OutFile = None
) -> None:
    """List the data sets of the catalogue."""
    form = choose_form(out, as_json, LISTS)
    from vqabench.reporting import exports
    from vqabench.workflows import datasets
    from vqabench.workflows.places import Places

    listed = datasets.list_datasets(Places(data=data_dir, catalog=catalog))
    spelled = {True: "yes", False: "no", None: "-"}
    rows = [(one.name, spelled[one.fetched], one.prepared, one.title) for one in listed]
    with writing(out):
        if form is Format.json:
            typer.echo(exports.to_json(listed))
        else:
            print_list(("name", "fetched", "prepared", "title"), rows, form)


@app.command("info")
def info(
    name: DatasetName,
    types: Annotated[int, typer.Option(min=0, help="Question types whose answers are shown.")] = 4,
    answers: Annotated[int, typer.Option(min=1, help="Answers shown of each.")] = 5,
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: OutFile = None,
) -> None:
    """Show what the catalogue says of a data set and, where it is prepared, what it holds.

    The answers of its most frequent question types are drawn, in train beside the test.
    """
    form = choose_form(out, as_json, TEXT)
    from vqabench.reporting import charts, exports, lists
    from vqabench.workflows import datasets
    from vqabench.workflows.places import Places

    places = Places(data=data_dir, catalog=catalog)
    facts = datasets.describe_dataset(name, places)
    shares = datasets.compare_answers(name, places, types, answers)
    with writing(out):
        if form is Format.json:
            typer.echo(exports.to_json(facts | {"answers by question type": shares}))
            return
        spelled = {key: f"{value:,}" if isinstance(value, int) else str(value) for key, value in facts.items()}
        console = lists.stdout_console()
        console.print(lists.draw_facts(spelled))
        for drawn in charts.draw_answer_shares(shares, console):
            console.print(drawn)


GOES_ON = "the features made so far are kept: the same command goes on"
Out = Annotated[Path, typer.Option("--out", help="A new folder for the files and their catalogue.")]


@app.command("rebuild-cp")
def rebuild_cp(
    name: DatasetName,
    test_ids: Annotated[
        Path, typer.Option(help="Ids of the test questions: keys of a JSON object, a JSON list, or lines.")
    ],
    out: Out,
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Split all questions of a data set by a published list of test questions: VQA and its list make VQA-CP."""
    from vqabench.reporting.progress import WatchedProgress
    from vqabench.workflows import splits
    from vqabench.workflows.places import Places

    places = Places(data=data_dir, catalog=catalog)
    _tell(splits.rebuild_cp(name, test_ids, out, places, WatchedProgress().say), data_dir)


@app.command("resplit")
def resplit(
    name: DatasetName,
    out: Out,
    share: Annotated[float, typer.Option(help="Of all questions, for the test split.")] = 1 / 3,
    seed: Annotated[int, typer.Option(help="Decides which groups of questions come first.")] = 0,
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Split all questions of a data set anew, so that the answers of a type change. Makes no VQA-CP."""
    from vqabench.reporting.progress import WatchedProgress
    from vqabench.workflows import splits
    from vqabench.workflows.places import Places

    places = Places(data=data_dir, catalog=catalog)
    _tell(splits.resplit(name, share, seed, out, places, WatchedProgress().say), data_dir)


def _tell(derived: "Derived", data_dir: Path | None) -> None:
    typer.echo(f"{derived.name}: train {derived.train_questions:,}, test {derived.test_questions:,} questions")
    _tell_shift(derived.shift)
    typer.echo(f"next: {_spell_preparation(derived.name, derived.has_features, data_dir, derived.catalog)}")


def _tell_shift(shift: "Shift") -> None:
    distance, covered = f"{shift.distance:.3f}", f"{shift.concepts_covered:.1%}"
    typer.echo(f"most common answers of a type, train against test: total variation distance {distance}")
    typer.echo(f"words of types and answers in the test that train has, too: {covered}")


@app.command("fetch")
def fetch(
    name: DatasetName,
    own_folder: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Take files from here that you have already.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only what is there.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there.")] = False,
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Fetch a data set's questions and annotations; stopped, it goes on with the next call."""
    from vqabench.data.raw_files import Way
    from vqabench.reporting.downloads import WatchedDownloads
    from vqabench.workflows import fetching
    from vqabench.workflows.places import Places

    watcher = WatchedDownloads()
    places = Places(data=data_dir, catalog=catalog)
    goes_on = "files that are not fetched again are as before" if force else "the same command goes on"
    with telling_of_signals(watcher.warn, f"what has come is kept: {goes_on}"):
        outcome = fetching.fetch_dataset(name, places, Way(own_folder, offline, force), watcher)
    _tell_fetched(outcome, data_dir, catalog)


def _tell_fetched(outcome: "Outcome", data_dir: Path | None, catalog: Path | None) -> None:
    dataset = outcome.dataset
    next_command = _spell_preparation(dataset.name, dataset.has_features(), data_dir, catalog)
    if not outcome.counts:
        typer.echo(f"{dataset.name}: nothing to fetch; next: {next_command}")
        return
    sizes = ", ".join(f"{split} {counts.questions:,}" for split, counts in outcome.counts.items())
    there = "" if outcome.news else "everything was there already: "
    typer.echo(f"{dataset.source}: {there}{sizes} questions")
    if outcome.shift:
        _tell_shift(outcome.shift)
    typer.echo(f"next: {next_command}")


def _spell_preparation(name: str, has_features: bool, data_dir: Path | None, catalog: Path | None) -> str:
    """Spell a command so that it can be pasted."""
    options = [("--data-dir", data_dir, "VQABENCH_DATA"), ("--catalog", catalog, "VQABENCH_CATALOG")]
    named = [
        (option, str(value)) for option, value, name in options if value and os.environ.get(name) != str(value)
    ]
    given = [word for pair in named for word in pair]
    features = [] if has_features else ["--features", "FILE"]
    return shlex.join(["vqabench", "data", "prepare", name, *given, *features])


@app.command("prepare")
def prepare(
    name: DatasetName,
    features: Annotated[
        list[Path] | None,
        typer.Option(
            "--features", metavar="FILE", help="Region features, where the catalogue names none; repeatable."
        ),
    ] = None,
    word_vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="GloVe's word vectors, text, .gz or .zip; without them words start random."
        ),
    ] = None,
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Make a data set ready for training: vocabulary, tokens, targets, counts, features."""
    from vqabench.reporting.progress import WatchedProgress
    from vqabench.workflows import datasets
    from vqabench.workflows.places import Places

    places = Places(data=data_dir, catalog=catalog)
    progress = WatchedProgress()
    with telling_of_signals(progress.warn, GOES_ON):
        dataset, summary = datasets.prepare_dataset(name, places, progress, features or (), word_vectors)
    sizes = ", ".join(f"{split} {count:,}" for split, count in summary.questions.items())
    typer.echo(f"{dataset.folder}: {sizes} questions; {summary.answers:,} answers; ready")


class Broken(StrEnum):
    """What becomes of an image that cannot be decoded."""

    refuse = "refuse"
    skip = "skip"


@app.command("extract")
def extract(
    images: Annotated[Path, typer.Argument(help="A folder of images (.jpg, .png), or a zip of them.")],
    model: Annotated[
        str, typer.Option(help="A vision model of transformers: a folder, or a name at the Hugging Face hub.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The file of features to write, such as features.h5.")],
    regions: Annotated[
        str, typer.Option(help="Regions of an image: a number, rows x columns (4x9), or patches.")
    ] = "36",
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at once.")] = 32,
    revision: Annotated[str | None, typer.Option(help="Revision of the model at the hub.")] = None,
    broken: Annotated[
        Broken, typer.Option(help="What becomes of an image that cannot be decoded.")
    ] = Broken.refuse,
    device: Device = "auto",
) -> None:
    """Compute region features of images with a vision model, as a grid; needs the extra `extract`.

    Run again after it was stopped, it goes on where it came to.
    """
    from vqabench.data.extraction import Extraction
    from vqabench.reporting.progress import WatchedProgress
    from vqabench.workflows import extraction

    asked = Extraction(model, revision, regions, batch_size, broken.value)
    progress = WatchedProgress()
    with telling_of_signals(progress.warn, GOES_ON):
        count = extraction.extract(images, out, asked, device, progress)
    typer.echo(f"{out}: features of {count:,} images; next: vqabench data prepare DATASET --features {out}")


@app.command("verify")
def verify(
    name: DatasetName,
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: OutFile = None,
) -> None:
    """Check counts, ids and cross-references of a data set's files, and compute what is prepared anew."""
    form = choose_form(out, as_json, TEXT)
    from vqabench.reporting import exports
    from vqabench.workflows import datasets
    from vqabench.workflows.places import Places

    checks = []
    with writing(out):
        for check in datasets.verify_dataset(name, Places(data=data_dir, catalog=catalog)):
            checks.append(check)
            if form is not Format.json:
                typer.echo(f"{'ok ' if check.fine else 'BAD'} {check.what}: {check.found}")
        if form is Format.json:
            typer.echo(exports.to_json(checks))
    if not all(check.fine for check in checks):
        raise typer.Exit(1)

"""`vqabench data`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vqabench.cli.formats import LISTS, TEXT, Format, choose_form, print_list, writing
from vqabench.cli.formats import Out as OutFile
from vqabench.cli.help import Command, Group, examples
from vqabench.cli.parameters import AsJson, Catalog, DataDir, DatasetName, Device, reporting_signals
from vqabench.errors import counted, first_few
from vqabench.reporting.output import say, say_json

if TYPE_CHECKING:
    from vqabench.data.catalog.changing_priors import Shift
    from vqabench.paths import Paths
    from vqabench.workflows.splits import Derived

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Fetch, prepare, inspect and derive data sets.",
    epilog=examples("data list", "data fetch vqa-cp-v2", "data prepare vqa-cp-v2 --features trainval_36.tsv"),
)


@app.command("list", cls=Command, epilog=examples("data list", "data list --catalog my.toml --json"))
def list_datasets(
    data_dir: DataDir = None, catalog: Catalog = None, as_json: AsJson = False, out: OutFile = None
) -> None:
    """List the data sets, and whether they are fetched and prepared."""
    form = choose_form(out, as_json, LISTS)
    from vqabench.paths import Paths
    from vqabench.reporting import exports
    from vqabench.workflows import datasets

    listed = datasets.list_datasets(Paths(data=data_dir, catalog=catalog))
    words = {True: "yes", False: "no", None: "-"}
    rows = [(one.name, words[one.fetched], one.prepared, one.title) for one in listed]
    with writing(out):
        if form is Format.json:
            say_json(exports.to_json(listed))
        else:
            print_list(("name", "fetched", "prepared", "title"), rows, form)


@app.command("info", cls=Command, epilog=examples("data info digits-cp", "data info digits-cp --types 8"))
def info(
    name: DatasetName,
    types: Annotated[int, typer.Option(metavar="N", min=0, help="How many question types to show.")] = 4,
    answers: Annotated[int, typer.Option(metavar="N", min=1, help="How many answers of each to show.")] = 5,
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: OutFile = None,
) -> None:
    """Show a data set's facts and its answers by question type.

    If it is prepared, this also draws the answers to its most frequent question types, train next to test.
    """
    form = choose_form(out, as_json, TEXT)
    from vqabench.paths import Paths
    from vqabench.reporting import exports, lists
    from vqabench.workflows import datasets

    paths = Paths(data=data_dir, catalog=catalog)
    facts = datasets.describe_dataset(name, paths)
    shares = datasets.compare_answers(name, paths, types, answers)
    with writing(out):
        if form is Format.json:
            say_json(exports.to_json(facts | {"answers by question type": shares}))
            return
        words = {key: f"{value:,}" if isinstance(value, int) else str(value) for key, value in facts.items()}
        console = lists.stdout_console()
        console.print(lists.draw_facts(words))
        for drawn in lists.draw_answer_shares(shares, console):
            console.print(drawn)


FEATURES_KEPT = "the features made so far are kept: rerun the same command to continue"
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for the split and its catalogue.")]


@app.command(
    "rebuild-cp",
    cls=Command,
    epilog=examples(
        "data rebuild-cp vqa-v2 --test-ids test_ids.json --out my-vqa-cp",
        "data rebuild-cp my-data --test-ids ids.txt --out my-split --catalog my.toml",
    ),
)
def rebuild_cp(
    name: DatasetName,
    test_ids: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The ids of the test questions, as text, CSV or JSON."),
    ],
    out: Out,
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Rebuild a split from a published list of test questions.

    For example, rebuild VQA-CP from VQA and the list of VQA-CP's test questions.
    """
    from vqabench.paths import Paths
    from vqabench.reporting.progress import Display
    from vqabench.workflows import splits

    paths = Paths(data=data_dir, catalog=catalog)
    _print_split(splits.rebuild_cp(name, test_ids, out, paths, Display()), paths)


@app.command(
    "resplit",
    cls=Command,
    epilog=examples(
        "data resplit vqa-v2 --out my-split", "data resplit vqa-v2 --out my-split --share 0.3 --seed 1"
    ),
)
def resplit(
    name: DatasetName,
    out: Out,
    share: Annotated[
        float,
        typer.Option(
            metavar="SHARE", show_default=False, help="Share of all questions that goes into test. [default: 1/3]"
        ),
    ] = 1 / 3,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the split.")] = 0,
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Make a new split whose answer priors change.

    Like VQA-CP's, but not VQA-CP itself: for that, use vqabench data fetch vqa-cp-v2.
    """
    from vqabench.paths import Paths
    from vqabench.reporting.progress import Display
    from vqabench.workflows import splits

    paths = Paths(data=data_dir, catalog=catalog)
    _print_split(splits.resplit(name, share, seed, out, paths, Display()), paths)


def _print_split(derived: "Derived", paths: "Paths") -> None:
    say(f"{derived.name}: train {derived.train_questions:,}, test {derived.test_questions:,} questions")
    _print_shift(derived.shift)
    paths = replace(paths, catalog=[derived.catalog])
    say(f"next: {paths.prepare_command(derived.name, has_features=derived.has_features)}")


def _print_shift(shift: "Shift") -> None:
    what = "total variation distance between a type's answers in train and test"
    say(f"shift of the priors ({what}): {shift.distance:.3f}")
    say(f"words of types and answers of the test split that are also in train: {shift.concepts_covered:.1%}")
    both = shift.types - len(shift.train_only) - len(shift.test_only)
    say(f"question types in both splits: {both} of {shift.types}")
    for message, names in (
        ("only in train (one answer, few questions, or a word that no other type has)", shift.train_only),
        ("only in the test split, so they have no prior", shift.test_only),
    ):
        if names:
            say(f"  {message}: {first_few(map(repr, names))}")


@app.command(
    "fetch",
    cls=Command,
    epilog=examples("data fetch vqa-cp-v2", "data fetch vqa-cp-v2 --from downloads --offline"),
)
def fetch(
    name: DatasetName,
    own_folder: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Use the files that are already in this folder.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use local files only.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Fetch files again that are already here.")] = False,
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Download a data set's questions and annotations.

    Verifies checksums, tries mirrors, and continues an interrupted download when it is run again.
    """
    from vqabench.data.catalog.raw_files import FetchOptions
    from vqabench.paths import Paths
    from vqabench.reporting.progress import Display
    from vqabench.workflows import datasets

    display = Display()
    paths = Paths(data=data_dir, catalog=catalog)
    advice = "all other files are unchanged" if force else "rerun the same command to continue"
    with reporting_signals(display, f"downloaded data is kept: {advice}"):
        outcome = datasets.fetch_dataset(name, paths, FetchOptions(own_folder, offline, force), display)
    dataset = outcome.dataset
    next_command = paths.prepare_command(dataset.name, has_features=dataset.has_features())
    if not outcome.counts:
        say(f"{dataset.name}: nothing to fetch; next: {next_command}")
        return
    sizes = ", ".join(f"{split} {counts.questions:,}" for split, counts in outcome.counts.items())
    say(f"{dataset.source}: {'' if outcome.changed else 'nothing new: '}{sizes} questions")
    if outcome.shift:
        _print_shift(outcome.shift)
    say(f"next: {next_command}")


@app.command(
    "prepare",
    cls=Command,
    epilog=examples(
        "data prepare digits-cp",
        "data prepare vqa-cp-v2 --features trainval_36.tsv",
        "data prepare vqa-cp-v2 --features features.h5 --word-vectors glove.6B.zip",
    ),
)
def prepare(
    name: DatasetName,
    features: Annotated[
        list[Path] | None,
        typer.Option(
            "--features",
            metavar="FILE",
            help="Region features (TSV, HDF5, npz or a folder), if the catalogue has none; repeatable.",
        ),
    ] = None,
    word_vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="GloVe word vectors as text, .gz or .zip. [default: words start at random]"
        ),
    ] = None,
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Prepare a data set for training.

    Builds the vocabulary, tokens, soft targets, answer priors and features. Training does this automatically if
    no option is needed.
    """
    from vqabench.paths import Paths
    from vqabench.reporting.progress import Display
    from vqabench.workflows import datasets

    paths = Paths(data=data_dir, catalog=catalog)
    display = Display()
    with reporting_signals(display, FEATURES_KEPT):
        dataset, summary = datasets.prepare_dataset(name, paths, display, features or (), word_vectors)
    sizes = ", ".join(f"{split} {count:,}" for split, count in summary.questions.items())
    say(f"{dataset.folder}: {sizes} questions; {counted(summary.answers, 'answer')}; ready")


@app.command(
    "extract",
    cls=Command,
    epilog=examples(
        "data extract train2014 --model facebook/dinov2-base --out features.h5",
        "data extract images.zip --model my-model --out features.h5 --regions 6x6 --device cuda",
    ),
)
def extract(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="A folder or a zip of images (JPEG, PNG, WebP, ...).")
    ],
    model: Annotated[
        str,
        typer.Option(metavar="MODEL", help="A transformers vision model: a folder, or its name on the hub."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The features file to write, such as features.h5.")
    ],
    regions: Annotated[
        str,
        typer.Option(
            metavar="N|RxC|patches",
            help="Regions per image: a number, a grid of rows x columns, or the patches of the model.",
        ),
    ] = "36",
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per batch.")] = 32,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Revision of the model on the hub.")] = None,
    broken: Annotated[
        Literal["refuse", "skip"],
        typer.Option(metavar="refuse|skip", help="What to do with an image that cannot be decoded."),
    ] = "refuse",
    device: Device = "auto",
) -> None:
    """Compute region features of images with a vision model.

    Regions form a grid. Needs the extra `extract`: pip install "vqabench[extract]". Continues where it stopped
    when it is run again.
    """
    from vqabench.data.features.extraction import Extraction
    from vqabench.reporting.progress import Display
    from vqabench.workflows import datasets

    asked = Extraction(model, revision, regions, batch_size, broken)
    display = Display()
    with reporting_signals(display, FEATURES_KEPT):
        count = datasets.extract(images, out, asked, device, display)
    say(f"{out}: features of {counted(count, 'image')}; next: vqabench data prepare DATASET --features {out}")


@app.command("verify", cls=Command, epilog=examples("data verify digits-cp", "data verify vqa-cp-v2 --json"))
def verify(
    name: DatasetName,
    data_dir: DataDir = None,
    catalog: Catalog = None,
    as_json: AsJson = False,
    out: OutFile = None,
) -> None:
    """Check all files of a data set.

    Checks counts, ids and references between files, and recomputes and compares the prepared data. Exits with code
    1 if something is wrong.
    """
    form = choose_form(out, as_json, TEXT)
    from vqabench.paths import Paths
    from vqabench.reporting import exports
    from vqabench.workflows import datasets

    checks = []
    with writing(out):
        for check in datasets.verify_dataset(name, Paths(data=data_dir, catalog=catalog)):
            checks.append(check)
            if form is not Format.json:
                say(f"{'ok ' if check.fine else 'BAD'} {check.what}: {check.found}")
        if form is Format.json:
            say_json(exports.to_json(checks))
    if not all(check.fine for check in checks):
        raise typer.Exit(1)

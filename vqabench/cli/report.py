"""`vqabench report`."""

import os
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from vqabench.cli.completion import complete_datasets
from vqabench.cli.formats import check_ending
from vqabench.cli.help import examples
from vqabench.cli.parameters import Catalog, DataDir, Runs
from vqabench.errors import InputError
from vqabench.reporting.output import say

EXAMPLES = examples(
    "report",
    "report runs/digits-cp -o digits.html --prior",
    "report runs/vqa-cp-v2 --published --figures figures",
)


def report(
    run: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Runs, or folders of runs. [default: all finished runs in --runs]"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")] = Path(
        "report.html"
    ),
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write each chart as PDF and SVG to DIR, for papers; needs the extra `plots`."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Only runs on this data set.", autocompletion=complete_datasets),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The title of the page. [default: the names of the data sets]"),
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Show the paper's results next to yours.")] = False,
    prior: Annotated[
        bool,
        typer.Option("--prior", help="Show how closely the answers follow the training prior; it needs the data."),
    ] = False,
    runs: Runs = Path("runs"),
    data_dir: DataDir = None,
    catalog: Catalog = None,
) -> None:
    """Write one HTML page about finished runs.

    The page holds tables, learning curves, changed answers and attention maps. It needs no network and no other
    file.
    """
    from vqabench.files.atomic import find_output, write_file
    from vqabench.paths import Paths
    from vqabench.reporting.figures import check_figures, write_figures
    from vqabench.reporting.page import make_page
    from vqabench.reporting.progress import Display
    from vqabench.workflows import report as workflow

    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; name a file, such as {out / 'report.html'}")
    check_ending(out, [".html", ".htm"])
    find_output(out)  # before anything is computed
    if figures is not None:
        check_figures(figures)
    paths = Paths(runs, data_dir, catalog)
    findings = workflow.gather(run or [], dataset, paths, Display(), published=published, prior=prior)
    page = make_page(findings, title, _today()).encode()
    write_file(out, page)
    say(f"{out}: {len(page) / 1000:,.0f} kB")
    for file in write_figures(findings, figures) if figures is not None else ():
        say(str(file))


def _today() -> date:
    """Return the date in UTC, or that of SOURCE_DATE_EPOCH, which builds that must be the same again set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch) if epoch.isdecimal() else time.time(), UTC).date()

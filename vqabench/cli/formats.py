"""The destination and the format of the output: `--json`, `--out` and `--format`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqabench.errors import InputError, counted
from vqabench.reporting.output import say, say_json, say_on_stderr

if TYPE_CHECKING:
    from vqabench.evaluation.comparison import Comparison
    from vqabench.reporting.grids import By


class Format(StrEnum):
    """Output formats."""

    table = "table"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


STDOUT = Path("-")
ENDINGS = {".md": Format.markdown, ".tex": Format.latex, ".csv": Format.csv, ".json": Format.json}
"""Endings that choose a format. A name that ends in .txt, or has no ending, may hold any."""
ANY = tuple(Format)
LISTS = (Format.table, Format.markdown, Format.csv, Format.json)
TEXT = (Format.table, Format.json)
METRIC = {Format.table: "accuracy", Format.markdown: "accuracy", Format.latex: "accuracy"}
"""Metric that `train` and `bench` show; other formats hold every metric."""

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Write to FILE; - is stdout. The ending .json, .csv, .md, .tex or .txt chooses the format.",
    ),
]


def choose_form(
    out: Path | None, as_json: bool, possible: Sequence[Format] = ANY, form: Format | None = None
) -> Format:
    """Return the format of the output: the requested one, else that of the file's ending.

    Raises InputError if a command has no such format, or the file cannot be written: before anything is computed.
    """
    if as_json and form not in (None, Format.json):
        raise InputError(f"--json and --format {form}: choose one")
    form = Format.json if as_json else form
    endings = [*(ending for ending, one in ENDINGS.items() if one in possible), ".txt"]
    if out is not None and out != STDOUT:
        by_name = ENDINGS.get(out.suffix.lower())
        if None not in (form, by_name) and form is not by_name:
            raise InputError(f"--out {out}: the extension means {by_name}, but the format is {form}")
        form = form or by_name
        if form is None or form not in possible:
            check_ending(out, endings)
        from vqabench.files.atomic import find_output  # loads msgspec

        find_output(out)
    if form is not None and form not in possible:
        raise InputError(f"this output cannot be {form}; drop --format {form}")
    return form or Format.table


def check_ending(out: Path, endings: Sequence[str]) -> None:
    """Raise InputError if a file's name ends in something other than these; a name without an ending passes."""
    if out.suffix and out.suffix.lower() not in endings:
        raise InputError(f"--out {out}: cannot write {out.suffix}; valid endings: {', '.join(endings)}")


@contextmanager
def writing(out: Path | None) -> Iterator[None]:
    """Write what is printed on stdout in this block to a file, completely or not at all."""
    if out is None or out == STDOUT:
        yield
        return
    from vqabench.files.atomic import write_file

    printed = StringIO()
    with redirect_stdout(printed):
        yield
    write_file(out, printed.getvalue().encode())
    say_on_stderr(f"{out}: {counted(len(printed.getvalue().splitlines()), 'line')}")


def print_list(head: Sequence[str], rows: Iterable[Sequence[str]], form: Format, notes: Sequence[str] = ()) -> None:
    """Print a list of things, one a row, as a table, CSV or Markdown; CSV has no place for notes: stderr has it."""
    from vqabench.reporting import lists

    if form is Format.csv:
        say(lists.list_to_csv(head, rows), end="")
        for note in notes:
            lists.warn(note)
    elif form is Format.markdown:
        from vqabench.reporting.exports import table_to_markdown

        say(table_to_markdown(head, rows, notes))
    else:
        console = lists.stdout_console()
        console.print(lists.draw_list(head, rows))
        for note in notes:
            console.print(note, soft_wrap=True)


def print_comparison(
    compared: "Comparison",
    form: Format,
    metric: str | None = None,
    by: "By" = "answer-type",
    split: str | None = None,
    columns: Sequence[str] = (),
) -> None:
    """Print a comparison in one of the forms."""
    from vqabench.reporting import exports, grids, latex, lists, tables

    if form is Format.json:
        say_json(exports.to_json(exports.lay_flat(exports.narrow(compared, metric, split))))
    elif form is Format.csv:
        say(exports.to_csv(exports.narrow(compared, metric, split)), end="")
        for note in compared.all_notes:
            lists.warn(note)
    elif form is Format.latex:
        say(latex.to_latex(compared, metric, by, split, columns))
    else:
        laid_out = grids.lay_out(compared, metric, by, split, columns)
        notes = grids.choose_notes(compared, laid_out)
        if form is Format.markdown:
            say(exports.to_markdown(laid_out, notes))
        else:
            console = lists.stdout_console()
            for grid in laid_out:
                console.print(*tables.draw(grid, console.width))
            for note in notes:
                console.print(note)
    for message in compared.left_out:
        lists.warn(message)

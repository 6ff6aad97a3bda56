"""Tables for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text as RichText

from vqabench.data.vqa.annotations import ANSWER_TYPES
from vqabench.errors import counted
from vqabench.evaluation.scores import CATEGORIES, Scores
from vqabench.reporting.grids import HEADS, Grid, deal, without_spreads
from vqabench.reporting.output import clean_line

SHORTEST_NAMES = 22
"""Width to which names are folded before numbers lose their deviations."""


def draw(grid: Grid, width: int) -> list[Table]:
    """Draw a grid in `width` columns, the best numbers in bold; no number is ever cut.

    If it is too wide, only "All" keeps its deviations; if that is still too wide, the columns are split over
    several tables.
    """
    if _width(grid) > width:
        grid = without_spreads(grid)
    return [_draw(part) for part in deal(grid, lambda part: _width(part) <= width)]


def _draw(grid: Grid) -> Table:
    table = Table(
        title=RichText(clean_line(grid.title)), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for number, name in enumerate(grid.head):
        if number < grid.names:
            table.add_column(RichText(clean_line(name)), overflow="fold")
        else:
            table.add_column(RichText(name), justify="right", width=_column_width(grid, number))
    for row in grid.rows:
        table.add_row(*(RichText(clean_line(cell.text), style="bold" if cell.best else "") for cell in row))
    return table


def _width(grid: Grid) -> int:
    """Return the least width of a table, with a space and a border after each column."""
    columns = [_column_width(grid, number) + 2 for number in range(len(grid.head))]
    return sum(columns[grid.names :]) + min(sum(columns[: grid.names]), SHORTEST_NAMES)


def _column_width(grid: Grid, number: int) -> int:
    longest_word = max(map(cell_len, grid.head[number].split()), default=0)
    return max([longest_word, *(cell_len(clean_line(row[number].text)) for row in grid.rows)])


def draw_scores(scores: Scores) -> list[Table]:
    """Draw one result: by answer type, and by question type."""
    by_answer = Table(box=SIMPLE_HEAD, pad_edge=False)
    by_answer.add_column("")
    for category in CATEGORIES:
        by_answer.add_column(HEADS[category], justify="right")
    for name, values in (("accuracy", scores.accuracy), ("kappa", scores.kappa)):
        by_answer.add_row(name, *(format_number(values[category]) for category in CATEGORIES))
    by_type = Table(title="accuracy by question type", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("question type", "left"), ("questions", "right"), ("accuracy", "right")):
        by_type.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, scored in scores.per_question_type.items():
        by_type.add_row(RichText(name), f"{scored.questions:,}", format_number(scored.accuracy))
    return [by_answer, by_type]


def list_scores(scores: Scores, *, exact: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a head and lines that hold all of one result: a line for each answer type and question type.

    Numbers are `exact`, or have two decimals.
    """

    def format_value(value: float | None) -> str:
        return "" if value is None else repr(value) if exact else format_number(value)

    rows: list[tuple[str, ...]] = [
        ("answer type", category, "", format_value(scores.accuracy[category]), format_value(scores.kappa[category]))
        for category in CATEGORIES
    ]
    kinds = {"question type": scores.per_question_type, "other answer type": scores.other_answer_types}
    rows += [
        (by, name, f"{one.questions:{'' if exact else ','}}", format_value(one.accuracy), "")
        for by, types in kinds.items()
        for name, one in types.items()
    ]
    return ("by", "category", "questions", "accuracy", "kappa"), rows


def describe_gaps(scores: Scores) -> list[str]:
    """Return a note on questions that count only in "All", and one on those without an answer."""
    notes = []
    if scores.other_answer_types:
        listed = ", ".join(
            f"{name!r} {counted(scored.questions, 'question')}, accuracy {format_number(scored.accuracy)}"
            for name, scored in scores.other_answer_types.items()
        )
        count = sum(scored.questions for scored in scores.other_answer_types.values())
        notes.append(
            f"{count:,} of {scores.questions:,} questions count only in All: their answer type is not one of "
            f"{', '.join(ANSWER_TYPES)}: {listed}"
        )
    if scores.unanswered:
        verbs = "has no answer and counts" if scores.unanswered == 1 else "have no answer and count"
        notes.append(f"{scores.unanswered:,} of {counted(scores.questions, 'question')} {verbs} as wrong")
    return notes


def format_number(value: float | None) -> str:
    """Return percent with two digits; a dash if undefined."""
    return "–" if value is None else f"{value:.2f}"

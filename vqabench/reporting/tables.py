"""Tables for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text as RichText

from vqabench.evaluation.scores import CATEGORIES, Scores
from vqabench.reporting.grids import HEADS, Grid


def draw(grid: Grid) -> Table:
    """Draw a grid, the best numbers in bold."""
    table = Table(title=RichText(grid.title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(grid.head):
        if number < grid.names:
            table.add_column(RichText(name), overflow="fold")
        else:
            table.add_column(RichText(name), justify="right", no_wrap=True)
    for row in grid.rows:
        table.add_row(*(RichText(cell.text, style="bold" if cell.best else "") for cell in row))
    return table


def draw_scores(title: str, scores: Scores) -> list[Table]:
    """Draw one result: by answer type, and by question type."""
    by_answer = Table(
        title=RichText(f"{title}: {scores.questions:,} questions"),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    by_answer.add_column("")
    for category in CATEGORIES:
        by_answer.add_column(HEADS[category], justify="right")
    for name, values in (("accuracy", scores.accuracy), ("kappa", scores.kappa)):
        by_answer.add_row(name, *(spell_number(values[category]) for category in CATEGORIES))
    by_type = Table(title="accuracy by question type", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("question type", "left"), ("questions", "right"), ("accuracy", "right")):
        by_type.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, scored in scores.per_question_type.items():
        by_type.add_row(RichText(name), f"{scored.questions:,}", spell_number(scored.accuracy))
    return [by_answer, by_type]


def spell_number(value: float | None) -> str:
    """Spell percent with two digits; a dash where it is undefined."""
    return "–" if value is None else f"{value:.2f}"

"""Bar charts for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from vqabench.data.answer_shares import TypeShares

SHORTEST_BAR = 8


def draw_answer_shares(types: Sequence[TypeShares], console: Console) -> list[RenderableType]:
    """Draw each question type's answers, a bar for each split beside the other."""
    return [drawn for shares in types for drawn in (_describe(shares), _draw(shares, console))]


def _describe(shares: TypeShares) -> Text:
    counted = ", ".join(f"{split} {count:,}" for split, count in shares.questions.items())
    apart = "" if shares.distance is None else f"; total variation distance {shares.distance:.2f}"
    return Text.assemble("\n", (shares.question_type, "bold"), f": {counted} questions{apart}")


def _draw(shares: TypeShares, console: Console) -> Table:
    splits = list(shares.questions)
    table = Table(box=None, pad_edge=False, show_header=True)
    table.add_column("", width=16, overflow="ellipsis", no_wrap=True)
    room = max(SHORTEST_BAR, (min(console.width, 100) - 18) // len(splits) - 10)
    for split in splits:
        table.add_column("", justify="right")
        table.add_column(split, width=room)
    for answer, own in shares.shares.items():
        cells: list[RenderableType] = [Text(answer or "(empty)")]
        for split in splits:
            cells += [f"{own[split]:.1%}", _bar(own[split], room, console)]
        table.add_row(*cells)
    return table


def _bar(share: float, width: int, console: Console) -> RenderableType:
    if console.encoding.startswith("utf"):
        return Bar(1.0, 0.0, share, width=width)
    return "#" * round(share * width)

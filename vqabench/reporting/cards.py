"""Changed questions, laid out: who answered what, and what each model looked at."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from vqabench.evaluation.findings import ChangedPair, ChangedQuestion, Reply
from vqabench.reporting.drawings import draw_regions
from vqabench.reporting.figures import Keys, name_row, name_split


@dataclass(frozen=True)
class Side:
    """What one of two runs made of a question."""

    name: str
    reply: Reply
    drawing: Markup | None


@dataclass(frozen=True)
class Card:
    """A question."""

    asked: ChangedQuestion
    scene: Markup | None
    """Its image, where it is drawn for neither side."""
    sides: tuple[Side, Side]


@dataclass(frozen=True)
class PairCards:
    """Two runs, and examples of what the second changed."""

    title: str
    summary: str
    missing: tuple[str, ...]
    parts: tuple[tuple[str, tuple[Card, ...]], ...]
    """Gained and lost."""


def lay_out_pair(pair: ChangedPair, keys: Keys) -> PairCards:
    """Lay out what a strategy changed."""
    changed = pair.gained + pair.lost
    summary = (
        f"Of {pair.questions:,} questions ({name_split(pair.split, pair.after)}, seed {pair.seed}), {changed:,} "
        f"changed in accuracy: {pair.gained:,} gained, {pair.lost:,} lost. Some of those that changed the most:"
    )
    titles = (f"Gained, {len(pair.best)} of {pair.gained:,}", f"Lost, {len(pair.worst)} of {pair.lost:,}")
    parts = tuple(
        (title, tuple(_lay_out(asked, pair, keys) for asked in chosen))
        for title, chosen in zip(titles, (pair.best, pair.worst), strict=True)
        if chosen
    )
    return PairCards(f"{name_row(pair.after)} against {name_row(pair.before)}", summary, pair.missing, parts)


def _lay_out(asked: ChangedQuestion, pair: ChangedPair, keys: Keys) -> Card:
    sides = tuple(
        Side(name_row(row), reply, _draw(asked, name_row(row), reply, keys))
        for row, reply in ((pair.before, asked.before), (pair.after, asked.after))
    )
    seen = any(side.drawing is not None for side in sides)
    known = any(region.picture is not None for region in asked.regions)
    title = f"Image of “{asked.question}”"
    scene = draw_regions(keys(), title, asked.regions, None) if known and not seen else None
    return Card(asked, scene, (sides[0], sides[1]))


def _draw(asked: ChangedQuestion, name: str, reply: Reply, keys: Keys) -> Markup | None:
    if reply.attention is None or not asked.regions:
        return None
    return draw_regions(keys(), f"Attention of {name} to “{asked.question}”", asked.regions, reply.attention)

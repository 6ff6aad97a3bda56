"""What a report shows, whatever its form."""

from __future__ import annotations

from dataclasses import dataclass

from vqabench.data.pictures import Picture
from vqabench.evaluation.comparison import Comparison
from vqabench.evaluation.curves import Curve
from vqabench.evaluation.pair import Pair
from vqabench.evaluation.rows import Row
from vqabench.evaluation.shifts import TypeShift


@dataclass(frozen=True)
class Region:
    """A region of an image."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in [0, 1]."""
    name: str
    """Of its class; empty where that is not known."""
    picture: Picture | None
    """What is in it, where that is known."""


@dataclass(frozen=True)
class Reply:
    """What one run answered to a question."""

    answer: str
    confidence: float | None
    """[0, 1]; None where it was not kept."""
    accuracy: float
    """Official, [0, 1]."""
    attention: tuple[float, ...] | None
    """Over the regions; sums to 1. None where the backbone gives none, or its weights are not here."""


@dataclass(frozen=True)
class ChangedQuestion:
    """A question that two runs answer differently."""

    question_id: int
    question: str
    question_type: str
    human_answers: tuple[tuple[str, int], ...]
    """As written, the most frequent first, and how many gave each."""
    before: Reply
    after: Reply
    regions: tuple[Region, ...]
    """Of its image; none where its features are not here."""


@dataclass(frozen=True)
class ChangedPair:
    """Two runs with one seed: plain, and a strategy."""

    before: Row
    after: Row
    seed: int
    split: str
    questions: int
    gained: int
    lost: int
    best: tuple[ChangedQuestion, ...]
    worst: tuple[ChangedQuestion, ...]
    missing: tuple[str, ...]
    """What could not be shown, and why."""


@dataclass(frozen=True)
class DatasetFindings:
    """All about one data set."""

    name: str
    comparison: Comparison
    curves: tuple[dict[str, Curve], ...]
    """For each row of the comparison: split -> accuracy by epoch, where it was recorded."""
    shifts: tuple[TypeShift, ...]
    pairs: tuple[ChangedPair, ...]
    missing: tuple[str, ...]
    """What could not be shown, and why."""
    tests: tuple[Pair, ...] = ()
    """Strategies and plain rows, compared over questions too."""

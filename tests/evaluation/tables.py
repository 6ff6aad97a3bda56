"""Tables of questions whose ten annotators agree: a question is its type and its answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import strategies as st

from vqabench.data.vqa.annotation_table import AnnotationTable, tabulate
from vqabench.data.vqa.annotations import ANNOTATORS, Annotation, Answer

Asked = tuple[str, str]
"""Type and answer."""

ASKED: st.SearchStrategy[Asked] = st.tuples(
    st.sampled_from(["how many", "is the", "what"]), st.sampled_from(["0", "1", "2", "yes", "no"])
)
LISTS = st.lists(ASKED, min_size=1, max_size=40)


def ask(questions: Sequence[Asked]) -> AnnotationTable:
    """Tabulate questions, numbered from 0."""
    return tabulate(
        Annotation(n, n, kind, "other", tuple(Answer(answer, "yes", k + 1) for k in range(ANNOTATORS)), answer)
        for n, (kind, answer) in enumerate(questions)
    )


def repeat(kind: str, counts: dict[str, int]) -> list[Asked]:
    """Return the given number of questions of a type for each answer."""
    return [(kind, answer) for answer, count in counts.items() for _ in range(count)]


def counts_of(questions: Sequence[Asked], kind: str) -> Counter[str]:
    """Count the answers of a type."""
    return Counter(answer for own, answer in questions if own == kind)

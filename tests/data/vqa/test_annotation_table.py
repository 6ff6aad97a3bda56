from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqabench.data.vqa import annotation_table
from vqabench.data.vqa.annotation_table import AnnotationTable, Categorical, concatenate, tabulate
from vqabench.data.vqa.annotations import Annotation, Answer
from vqabench.data.vqa.answers import modal_answer

TEXTS = st.sampled_from(["yes", "Yes.", "no", "two", "", "a  blue"])
ANSWERS = st.lists(
    st.builds(Answer, TEXTS, st.none() | TEXTS, st.none() | st.integers(1, 12)), min_size=10, max_size=10
)
ANNOTATIONS = st.lists(
    st.builds(
        Annotation,
        st.integers(0, 2**62),
        st.integers() | TEXTS,
        TEXTS,
        TEXTS,
        ANSWERS.map(tuple),
        st.none() | TEXTS,
    ),
    max_size=12,
)


def spell(table: AnnotationTable) -> list[tuple[object, ...]]:
    """Turn columns into plain tuples, one a question."""
    columns = [table.question_types.strings(), table.answer_types.strings(), table.modal_answers.strings()]
    answers = [[table.answers.names[code] for code in row] for row in table.answers.codes.tolist()]
    return list(
        zip(table.question_ids.tolist(), table.image_ids, *columns, answers, table.records.tolist(), strict=True)
    )


@given(ANNOTATIONS)
def test_columns_hold_what_the_records_say(annotations: list[Annotation]) -> None:
    for annotation, row in zip(annotations, spell(tabulate(annotations)), strict=True):
        texts = [answer.answer for answer in annotation.answers]
        marks = [(answer.answer_id, answer.answer_confidence) for answer in annotation.answers]
        given_ = annotation.question_id, annotation.image_id, annotation.question_type, annotation.answer_type
        assert row == (*given_, modal_answer(annotation), texts, [marks.index(mark) for mark in marks])


@given(ANNOTATIONS, st.integers(1, 4))
def test_pieces_and_tables_put_together_make_the_same(annotations: list[Annotation], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotation_table, "CHUNK", size)
        whole = spell(tabulate(annotations))
    assert spell(tabulate(annotations)) == whole
    pieces = [tabulate(annotations[start : start + size]) for start in range(0, max(1, len(annotations)), size)]
    assert spell(concatenate(pieces)) == whole


@given(ANNOTATIONS.filter(bool), st.data())
def test_some_questions_are_taken_in_the_order_asked_for(
    annotations: list[Annotation], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.integers(0, len(annotations) - 1), unique=True))
    whole = spell(tabulate(annotations))
    assert spell(tabulate(annotations).take(rows)) == [whole[row] for row in rows]


def test_the_questions_of_some_ids_keep_their_order() -> None:
    annotations = [Annotation(n, n, "what", "other", (Answer("x"),) * 10) for n in (5, 3, 9)]
    assert tabulate(annotations).choose({9, 5}).question_ids.tolist() == [5, 9]


def test_another_number_of_answers_than_ten_is_no_table() -> None:
    with pytest.raises(ValueError, match="does not have ten answers"):
        tabulate([Annotation(1, 1, "what", "other", (Answer("x"),) * 9)])


def test_strings_are_numbered_as_others_were_or_not_at_all() -> None:
    labels = Categorical(["no", "yes", "new"], np.array([[2, 1], [0, 0]], np.int32))
    assert labels.number({"yes": 0, "no": 7, "unused": 1}).tolist() == [[-1, 0], [7, 7]]
    assert Categorical([], np.array([], np.int32)).number({"yes": 0}).tolist() == []


def test_labels_count_what_occurs_and_are_regrouped_by_their_forms() -> None:
    labels = Categorical(["Yes", "yes", "never", "no"], np.array([[0, 1], [1, 3]], np.int32))
    assert labels.counts() == {"Yes": 1, "yes": 2, "no": 1}
    lower = labels.regroup(str.lower)
    assert lower.counts() == {"yes": 3, "no": 1}
    assert lower.codes.shape == (2, 2)

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqabench.data.vqa.annotation_table import tabulate
from vqabench.data.vqa.annotations import Annotation, Answer
from vqabench.data.vqa.answers import count_answers, soft_target
from vqabench.data.vqa.encoding import count_human_answers, count_priors

TEXTS = st.sampled_from(["yes", "Yes.", "no", "two", "2", "the red", "red", "a  blue", "never"])
VOCABULARY = {"yes": 0, "2": 1, "red": 2, "blue": 3}


@st.composite
def annotation_lists(draw: st.DrawFn) -> list[Annotation]:
    answers = draw(st.lists(st.lists(TEXTS, min_size=10, max_size=10), min_size=1, max_size=12))
    return [
        Annotation(n, n, "what", "other", tuple(Answer(text, "yes", k) for k, text in enumerate(texts, 1)))
        for n, texts in enumerate(answers)
    ]


@given(annotation_lists())
def test_arrays_hold_what_counting_question_by_question_gives(annotations: list[Annotation]) -> None:
    given_ = count_human_answers(tabulate(annotations).answers, VOCABULARY)
    found: list[Counter[int]] = [Counter() for _ in annotations]
    for question, answer, annotators in zip(given_.questions, given_.answers, given_.annotators, strict=True):
        found[question][int(answer)] = int(annotators)
    expected = [
        {VOCABULARY[text]: count for text, count in count_answers(annotation).items() if text in VOCABULARY}
        for annotation in annotations
    ]
    assert found == expected
    assert (np.diff(given_.questions) >= 0).all()


@given(annotation_lists(), st.data())
def test_taking_some_questions_leaves_their_records_alone(
    annotations: list[Annotation], data: st.DataObject
) -> None:
    kept = sorted(data.draw(st.sets(st.sampled_from(range(len(annotations))), min_size=1)))
    taken = count_human_answers(tabulate(annotations).answers, VOCABULARY).take(np.array(kept))
    alone = count_human_answers(tabulate([annotations[n] for n in kept]).answers, VOCABULARY)
    assert taken.size == alone.size == len(kept)
    for name in ("questions", "answers", "annotators"):
        assert getattr(taken, name).tolist() == getattr(alone, name).tolist()


@given(annotation_lists())
def test_questions_without_an_answer_of_the_vocabulary_are_counted(annotations: list[Annotation]) -> None:
    given_ = count_human_answers(tabulate(annotations).answers, VOCABULARY)
    best = [sum(text in VOCABULARY for text in count_answers(a)) for a in annotations]
    assert given_.unanswerable == pytest.approx(best.count(0) / len(best))


@given(annotation_lists())
def test_priors_are_sums_over_the_questions_of_a_type(annotations: list[Annotation]) -> None:
    types = np.arange(len(annotations)) % 2
    priors = count_priors(types, count_human_answers(tabulate(annotations).answers, VOCABULARY), len(VOCABULARY), 3)
    assert priors.questions.tolist() == [*np.bincount(types, minlength=2), 0]
    for kind in (0, 1):
        asked = [count_answers(a) for a, own in zip(annotations, types, strict=True) if own == kind]
        for text, column in VOCABULARY.items():
            assert priors.answer_counts[kind, column] == sum(counts[text] for counts in asked)
            mean = sum(soft_target(counts[text]) for counts in asked) / len(asked) if asked else 0.25
            assert priors.mean_targets[kind, column] == pytest.approx(mean)
    assert priors.mean_targets[2].tolist() == [0.25] * 4

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vqabench.api import PADDING, UNKNOWN
from vqabench.data.questions import collect_words, count_type_words, encode, split_words


def test_words_are_split_as_the_published_models_do() -> None:
    assert split_words("What's the man's name, please?") == ["what", "'s", "the", "man", "'s", "name", "please"]


def test_padding_stands_in_front_and_long_questions_are_cut() -> None:
    ids = {word: number for number, word in enumerate(collect_words([["is", "it"]]))}
    assert encode(["is", "it"], ids, 4) == [PADDING, PADDING, 2, 3]
    assert encode(["is", "it", "red"], ids, 2) == [2, 3]
    assert encode(["never"], ids, 1) == [UNKNOWN]


def test_type_words_count_only_where_the_question_starts_with_its_type() -> None:
    assert count_type_words(["how", "many", "sheep"], ["how", "many"]) == 2
    assert count_type_words(["sheep", "how", "many"], ["how", "many"]) == 0
    assert count_type_words(["who"], ["none", "of", "the", "above"]) == 0


@given(st.lists(st.text()))
def test_any_text_becomes_known_words(questions: list[str]) -> None:
    words = [split_words(question) for question in questions]
    ids = {word: number for number, word in enumerate(collect_words(words))}
    for split in words:
        tokens = encode(split, ids, 6)
        assert len(tokens) == 6
        assert UNKNOWN not in tokens or {"<unknown>", "<padding>"} & set(split)

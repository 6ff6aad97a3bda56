from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vqabench.api import PADDING, UNKNOWN
from vqabench.data.vqa.words import collect_words, count_type_words, encode, split_words


def test_words_are_split_as_the_published_models_do() -> None:
    assert split_words("What's the man's name, please?") == ("what", "'s", "the", "man", "'s", "name", "please")


def test_padding_stands_in_front_and_long_questions_are_cut() -> None:
    ids = {word: number for number, word in enumerate(collect_words([["is", "it"]]))}
    assert encode([["is", "it"], []], ids, 4).tolist() == [[PADDING, PADDING, 2, 3], [PADDING] * 4]
    assert encode([["is", "it", "red"], ["never"]], ids, 2).tolist() == [[2, 3], [PADDING, UNKNOWN]]
    assert encode([], ids, 2).shape == (0, 2)


def test_type_words_count_only_where_the_question_starts_with_its_type() -> None:
    assert count_type_words(("how", "many", "sheep"), ("how", "many")) == 2
    assert count_type_words(("sheep", "how", "many"), ("how", "many")) == 0
    assert count_type_words(("who",), ("none", "of", "the", "above")) == 0


@given(st.lists(st.text()))
def test_any_text_becomes_known_words(questions: list[str]) -> None:
    words = [split_words(question) for question in questions]
    ids = {word: number for number, word in enumerate(collect_words(words))}
    tokens = encode(words, ids, 6)
    assert tokens.shape == (len(questions), 6)
    for split, row in zip(words, tokens.tolist(), strict=True):
        assert row == ([PADDING] * 6 + [ids[word] for word in split[:6]])[-6:]
        assert UNKNOWN not in row or "<unknown>" in split

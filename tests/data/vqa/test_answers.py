import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vqabench.data.vqa import official_tables
from vqabench.data.vqa.annotations import Annotation, Answer
from vqabench.data.vqa.answers import count_answers, modal_answer, normalise, soft_target, strip_space, vocabulary

GOLDEN = Path(__file__).parents[2] / "golden"
# Letters, digits and marks of the official rules, so that random texts meet them often.
TEXTS = st.text(alphabet=st.sampled_from("aeno the1,.-'/?! \n\tdtwİ٣"), max_size=20)


def golden(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return loaded


def annotate(*answers: str, multiple_choice: str | None = None) -> Annotation:
    records = tuple(Answer(text, "yes", number) for number, text in enumerate(answers, 1))
    return Annotation(1, 1, "what is", "other", records, multiple_choice)


def test_the_tables_are_the_official_ones() -> None:
    expected = golden("official_tables.json")
    assert expected["contractions"] == official_tables.CONTRACTIONS
    assert expected["number_words"] == official_tables.NUMBER_WORDS
    assert set(expected["articles"]) == official_tables.ARTICLES
    assert tuple(expected["punctuation"]) == official_tables.PUNCTUATION
    assert expected["period_pattern"] == official_tables.PERIOD
    assert expected["comma_pattern"] == official_tables.COMMA_BETWEEN_DIGITS


def test_every_answer_is_normalised_as_the_official_code_does() -> None:
    expected = golden("official_accuracy.json")["expected"]["normalised_answers"]
    assert {answer: normalise(answer) for answer in expected} == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("None", "0"),
        ("The a an", ""),
        ("dont", "don't"),
        ("1,000", "1000"),
        ("red,blue", "red blue"),
        ("red, blue", "red blue"),
        ("1,000 red-blue", "1000 redblue"),
        ("1.5", "1.5"),
        ("st. john", "st john"),
        (" two\tdogs\n", "2 dogs"),
    ],
)
def test_the_rules_apply_in_their_order(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_at_most_32_periods_are_stripped() -> None:
    assert normalise("." * 40 + "x") == "." * 8 + "x"


@given(TEXTS)
def test_normalising_twice_changes_nothing_while_all_periods_are_stripped(answer: str) -> None:
    assume(answer.count(".") <= 32)
    assert normalise(normalise(answer)) == normalise(answer)


def test_normalising_twice_changes_an_answer_with_more_periods() -> None:
    assert normalise(normalise("." * 40)) == "" != normalise("." * 40)


@given(TEXTS)
def test_stripping_space_first_changes_no_normal_form(answer: str) -> None:
    assert normalise(strip_space(answer)) == normalise(answer)


def test_soft_targets_are_the_exact_decimals() -> None:
    assert [soft_target(count) for count in range(6)] == [0.0, 0.3, 0.6, 0.9, 1.0, 1.0]


def test_answers_are_counted_in_their_normal_form() -> None:
    assert count_answers(annotate("Two", "2", "two.", "red")) == {"2": 3, "red": 1}


def test_the_modal_answer_is_the_one_of_the_file() -> None:
    assert modal_answer(annotate("red", "red", multiple_choice="The Blue")) == "blue"


def test_the_modal_answer_is_counted_where_the_file_lacks_it() -> None:
    assert modal_answer(annotate("red", "two", "2")) == "2"


def test_the_first_of_equally_common_answers_is_the_modal_one() -> None:
    assert modal_answer(annotate("red", "blue", "blue", "red")) == "red"


def test_the_vocabulary_holds_what_enough_questions_have_by_frequency_then_alphabet() -> None:
    answers = ["yes"] * 3 + ["no"] * 3 + ["2"] * 4 + ["rare"] * 2
    assert vocabulary(Counter(answers), 3) == ("2", "no", "yes")


@given(st.lists(st.sampled_from(["yes", "no", "2", "red"])), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_order_of_questions_does_not_matter_to_the_vocabulary(
    answers: list[str], minimum: int, random: Any
) -> None:
    shuffled = random.sample(answers, len(answers))
    assert vocabulary(Counter(shuffled), minimum) == vocabulary(Counter(answers), minimum)

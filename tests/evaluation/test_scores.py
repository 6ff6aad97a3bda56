import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from vqabench.data.vqa.annotation_table import tabulate
from vqabench.data.vqa.annotations import Annotation, Answer, Prediction
from vqabench.errors import InputError
from vqabench.evaluation.scores import Scores, TypeScore, check_predictions, score

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "official_accuracy.json").read_text())
ANNOTATIONS = msgspec.convert(GOLDEN["annotations"], list[Annotation])
PREDICTIONS = msgspec.convert(GOLDEN["predictions"], list[Prediction])


def annotate(number: int, answer: str, answer_type: str, question_type: str = "what is") -> Annotation:
    answers = tuple(Answer(answer, "yes", place) for place in range(1, 11))
    return Annotation(number, number, question_type, answer_type, answers, answer)


def ids_of(annotations: list[Annotation]) -> list[int]:
    return [annotation.question_id for annotation in annotations]


def official_percent(hits: list[int]) -> float:
    """The official loop over ten annotators each, of whom the first so many said "x", and its rounding."""
    accuracies = []
    for number in hits:
        subsets = [min(1, float(number - (place < number)) / 3) for place in range(10)]
        accuracies.append(float(sum(subsets)) / len(subsets))
    return round(100 * float(sum(accuracies)) / len(accuracies), 2)


def test_the_golden_scores_are_met_to_the_last_printed_digit() -> None:
    expected = GOLDEN["expected"]
    scores = score(check_predictions(PREDICTIONS, ids_of(ANNOTATIONS), "golden"), tabulate(ANNOTATIONS))
    accuracy = {name: round(value, 2) for name, value in scores.accuracy.items() if value is not None}
    assert accuracy == {**expected["per_answer_type"], "all": expected["overall"]}
    types = {name: round(scored.accuracy, 2) for name, scored in scores.per_question_type.items()}
    assert types == expected["per_question_type"]


@settings(max_examples=50)
@given(st.integers(1, 5), st.data())
def test_means_at_rounding_ties_round_as_the_official_code_does(sixteens: int, data: st.DataObject) -> None:
    counts = st.lists(st.integers(0, 10), min_size=16 * sixteens, max_size=16 * sixteens)
    hits = data.draw(counts)
    annotations = [
        Annotation(n, n, "q", "other", tuple(Answer("x" if p < m else "y", "yes", p) for p in range(10)), "x")
        for n, m in enumerate(hits)
    ]
    scores = score(dict.fromkeys(range(len(hits)), "x"), tabulate(annotations))
    assert round(scores.per_question_type["q"].accuracy, 2) == official_percent(hits)


def test_the_json_is_the_documented_form() -> None:
    annotations = [annotate(1, "2", "number", "how many"), annotate(2, "red", "other")]
    encoded = json.loads(msgspec.json.encode(score({1: "two", 2: "red"}, tabulate(annotations))))
    assert encoded == {
        "questions": 2,
        "accuracy": {"yes/no": None, "number": 0.0, "other": 100.0, "all": 50.0},
        "kappa": {"yes/no": None, "number": None, "other": None, "all": 100.0},
        "per_question_type": {
            "how many": {"questions": 1, "accuracy": 0.0},
            "what is": {"questions": 1, "accuracy": 100.0},
        },
    }
    assert msgspec.convert(encoded, Scores).questions == 2


def test_another_answer_type_counts_in_all_only() -> None:
    scores = score({1: "yes", 2: "no"}, tabulate([annotate(1, "yes", "yes/no"), annotate(2, "red", "strange")]))
    assert scores.accuracy == {"yes/no": 100.0, "number": None, "other": None, "all": 50.0}
    assert scores.other_answer_types == {"strange": TypeScore(1, 0.0)}


def test_no_questions_score_nothing() -> None:
    scores = score({}, tabulate([]))
    assert scores.questions == 0
    assert set(scores.accuracy.values()) == set(scores.kappa.values()) == {None}


@settings(max_examples=10)
@given(st.permutations(PREDICTIONS[:50]))
def test_the_order_of_predictions_does_not_matter(shuffled: list[Prediction]) -> None:
    annotations = ANNOTATIONS[:50]
    table, ids = tabulate(annotations), ids_of(annotations)
    expected = score(check_predictions(PREDICTIONS[:50], ids, "file"), table)
    assert score(check_predictions(shuffled, ids, "file"), table) == expected


@given(st.lists(st.sampled_from(["yes", "no", "2", ""]), min_size=30, max_size=30))
@settings(max_examples=20)
def test_accuracies_lie_between_0_and_100(answers: list[str]) -> None:
    annotations = ANNOTATIONS[:30]
    given_answers = {a.question_id: text for a, text in zip(annotations, answers, strict=True)}
    for value in score(given_answers, tabulate(annotations)).accuracy.values():
        assert value is None or 0 <= value <= 100


def test_equal_answers_to_a_question_count_once_and_differing_ones_are_refused() -> None:
    given_ = [Prediction(1, "yes"), Prediction(2, "no"), Prediction(1, "yes")]
    assert check_predictions(given_, [1, 2], "file.json") == {1: "yes", 2: "no"}
    with pytest.raises(InputError, match=r"file\.json: .* more than once, with different answers: 1 \(ids 2\)"):
        check_predictions([*given_, Prediction(2, "No")], [1, 2], "file.json")


def test_a_question_without_an_answer_is_wrong_even_where_the_right_answer_is_empty() -> None:
    table = tabulate([annotate(1, "", "other"), annotate(2, "red", "other"), annotate(3, "red", "other")])
    assert check_predictions([Prediction(2, "red")], [1, 2, 3], "file.json", may_lack=True) == {2: "red"}
    scores = score({2: "red", 3: "blue"}, table)
    assert scores.accuracy["all"] == pytest.approx(100 / 3)
    assert scores.unanswered == 1
    kappa = cohen_kappa_score(["", "red", "red"], ["none at all", "red", "blue"])
    assert scores.kappa["all"] == pytest.approx(100 * kappa)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2, 7], "file.json: questions that do not exist: 1 (ids 7)"),
        ([2], "file.json: questions not answered: 1 (ids 1)"),
        ([2, 7], "questions that do not exist: 1 (ids 7); questions not answered: 1 (ids 1)"),
    ],
)
def test_predictions_that_do_not_fit_the_questions_are_refused(ids: list[int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_predictions([Prediction(number, "yes") for number in ids], [1, 2], "file.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

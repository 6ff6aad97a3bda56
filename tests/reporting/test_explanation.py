from __future__ import annotations

from pathlib import Path

from tests.evaluation.test_pair import QUESTIONS, read, rows, side, write_answers
from vqabench.evaluation.comparison import compare
from vqabench.evaluation.pair import Pair, face
from vqabench.evaluation.rows import Row
from vqabench.reporting.explanation import explain, explanation_to_json
from vqabench.reporting.exports import to_json
from vqabench.results import find_runs

__all__ = ["rows"]

WORDING = {number: f"Question {number}?" for number in range(QUESTIONS)}


def pair_of(folder: Path, before: range, after: range, seeds: int) -> Pair:
    for seed in range(seeds):
        write_answers(folder, side(before, seed), seed=seed)
        write_answers(folder, side(after, 10 + seed), seed=seed, loss="rescale")
    plain, rescale = compare(find_runs([folder])).rows
    return face(plain, rescale, read)


def verdict(pair: Pair) -> str:
    return explain(pair, WORDING).partition("What can be said")[2]


def test_both_sides_and_every_category_are_told_with_both_tests(rows: tuple[Row, Row]) -> None:
    text = explain(face(*rows, read), WORDING)
    assert text.startswith("A: updn ce-plain (3 seeds), B: updn ce-rescale (3 seeds), on d.")
    for head in ("Y/N: ", "Num.: ", "All: "):
        assert f"  {head}" in text
    assert text.count("over seeds: 95 % CI ") == 3
    assert text.count("over questions: 95 % CI ") == 3
    assert f"{QUESTIONS} questions, {QUESTIONS // 2} images" in text
    assert "Question " in text
    assert "A: a giraffe x3" in text


def test_a_sure_difference_may_be_expected_again(tmp_path: Path) -> None:
    said = verdict(pair_of(tmp_path, range(60), range(230), 3))
    assert "trained anew, B may be expected to be more accurate than A (p < 0.05" in said
    assert "on other images of this kind, these very models would differ likewise" in said


def test_a_sure_loss_is_told_as_one(tmp_path: Path) -> None:
    assert "less accurate" in verdict(pair_of(tmp_path, range(230), range(60), 3))


def test_a_difference_within_the_seeds_is_not_concluded(tmp_path: Path) -> None:
    said = verdict(pair_of(tmp_path, range(100), range(100), 3))
    assert "that B differs from A cannot be concluded" in said
    assert "may differ on these images alone" in said


def test_one_seed_a_side_says_nothing_of_the_methods(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, range(60), range(230), 1)
    assert "no claim, a side has a single seed" in explain(pair, WORDING)
    said = verdict(pair)
    assert "nothing of the methods, only of these models" in said
    assert "would differ likewise" in said  # which these models do


def test_as_json_it_holds_the_text_and_what_it_is_made_of(rows: tuple[Row, Row]) -> None:
    pair = face(*rows, read)
    plain = explanation_to_json(pair, WORDING)
    assert plain["text"] == explain(pair, WORDING)
    assert plain["after"] == {"backbone": "updn", "strategy": "ce-rescale", "seeds": (0, 1, 2), "brands": ()}
    (split,) = plain["splits"]
    assert split["changes"][0]["question"].startswith("Question ")
    assert split["categories"]["all"]["questions"]["images"] == QUESTIONS // 2
    assert '"p_holm"' in to_json(plain)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import QUESTIONS, read, side, write_answers, write_rows
from vqabench.evaluation.comparison import compare
from vqabench.evaluation.pair import Pair, compare_pair
from vqabench.evaluation.rows import Row
from vqabench.reporting.exports import to_json
from vqabench.reporting.verdicts import explain, explanation_to_json
from vqabench.results import find_runs

WORDING = {number: f"Question {number}?" for number in range(QUESTIONS)}


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Row, Row]:
    return write_rows(tmp_path)


def pair_of(folder: Path, before: range, after: range, seeds: int) -> Pair:
    for seed in range(seeds):
        write_answers(folder, side(before, seed), seed=seed)
        write_answers(folder, side(after, 10 + seed), seed=seed, loss="rescale")
    plain, rescale = compare(find_runs([folder])).rows
    return compare_pair(plain, rescale, read)


def verdict(pair: Pair) -> str:
    return explain(pair, WORDING).partition("Conclusions")[2]


def test_both_sides_and_every_category_are_told_with_both_tests(rows: tuple[Row, Row]) -> None:
    text = explain(compare_pair(*rows, read), WORDING)
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
    assert "out-of-domain test: trained again with other seeds, B would probably be more accurate than A on" in said
    assert "on other images of this kind, these models would probably differ in the same direction" in said
    assert "only one of the two tests" not in said


def test_a_sure_loss_is_told_as_one(tmp_path: Path) -> None:
    assert "less accurate" in verdict(pair_of(tmp_path, range(230), range(60), 3))


def test_a_difference_within_the_seeds_is_not_concluded(tmp_path: Path) -> None:
    said = verdict(pair_of(tmp_path, range(100), range(100), 3))
    assert "no difference between B and A is shown" in said
    assert "these models might not differ on other images" in said


def test_one_seed_a_side_says_nothing_of_the_methods(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, range(60), range(230), 1)
    assert "not tested, because one side has only one seed. Use --seeds 0-4" in explain(pair, WORDING)
    said = verdict(pair)
    assert "this is about these models, not about the methods" in said
    assert "would probably differ in the same direction" in said  # which these models do


def test_where_one_kind_of_chance_alone_is_ruled_out_nothing_is_claimed_in_general(tmp_path: Path) -> None:
    for seed in range(3):  # every seed is better, by questions about two images
        before = side(range(100), seed)
        better = range(100, 104 if seed == 2 else 103)
        after = [side(range(QUESTIONS), 99)[n] if n in better else given for n, given in enumerate(before)]
        write_answers(tmp_path, before, seed=seed)
        write_answers(tmp_path, after, seed=seed, loss="rescale")
    plain, rescale = compare(find_runs([tmp_path])).rows
    said = verdict(compare_pair(plain, rescale, read))
    assert "trained again with other seeds, B would probably be more accurate" in said
    assert "these models might not differ on other images" in said
    assert "only one of the two tests is significant" in said


def test_identical_answers_are_told_as_such(tmp_path: Path) -> None:
    for seed in range(2):
        write_answers(tmp_path, side(range(100), 0), seed=seed)
        write_answers(tmp_path, side(range(100), 0), seed=seed, loss="rescale")
    plain, rescale = compare(find_runs([tmp_path])).rows
    pair = compare_pair(plain, rescale, read)
    assert verdict(pair).strip() == "out-of-domain test: both are equally accurate on every question"
    assert "all seeds give the same value" in explain(pair, WORDING)


def test_what_a_data_set_says_cannot_steer_the_terminal(rows: tuple[Row, Row]) -> None:
    text = explain(compare_pair(*rows, read), dict.fromkeys(range(QUESTIONS), "Red?\x1b[31m\nGone"))
    assert "\x1b" not in text
    assert "Red?[31m Gone [" in text


def test_runs_that_are_left_out_are_told(rows: tuple[Row, Row]) -> None:
    text = explain(compare_pair(*rows, read), WORDING, ["left out, stopped: runs/seed-3"])
    assert "Note: left out, stopped: runs/seed-3." in text


def test_as_json_it_holds_the_text_and_what_it_is_made_of(rows: tuple[Row, Row]) -> None:
    pair = compare_pair(*rows, read)
    plain = explanation_to_json(pair, WORDING)
    assert plain["text"] == explain(pair, WORDING)
    assert plain["after"] == {"backbone": "updn", "strategy": "ce-rescale", "seeds": (0, 1, 2), "brands": ()}
    (split,) = plain["splits"]
    assert split["changes"][0]["question"].startswith("Question ")
    assert split["categories"]["all"]["questions"]["images"] == QUESTIONS // 2
    assert '"p_holm"' in to_json(plain)

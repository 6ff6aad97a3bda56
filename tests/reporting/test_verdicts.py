from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.findings import gather_written
from tests.runs import read, write_rows, write_run
from vqabench.evaluation.comparison import Comparison
from vqabench.evaluation.findings import DatasetFindings
from vqabench.evaluation.pair import compare_pair
from vqabench.evaluation.rows import Row
from vqabench.reporting.charts import build_scatter
from vqabench.reporting.svg import draw
from vqabench.reporting.verdicts import MOST_VERDICTS, judge_rows


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Row, Row]:
    return write_rows(tmp_path)


def write_seeds(folder: Path, loss: str, accuracies: list[float], **about: Any) -> None:
    for seed, accuracy in enumerate(accuracies):
        write_run(folder, accuracy, seed=seed, loss=loss, **about)


def test_a_sure_gain_and_one_within_the_seeds_are_told_apart(tmp_path: Path) -> None:
    write_seeds(tmp_path, "plain", [40.0, 41.5, 40.75])
    write_seeds(tmp_path, "rescale", [50.25, 51.0, 50.0])
    write_seeds(tmp_path, "focal", [40.5, 41.25, 40.0])
    better, level = judge_rows(gather_written(tmp_path))
    assert better.startswith(
        "updn ce-rescale is more accurate than updn ce-plain (out-of-domain test): +9.67 points,"
    )
    assert "p (Holm) = 0.0" in better
    assert "over 3 seeds" in better
    assert "In domain (val): +9.67 points." in better
    assert level.startswith("No difference between updn ce-focal and updn ce-plain is shown")
    assert "Other seeds may reverse the sign." in level


def test_a_loss_is_told_as_one(tmp_path: Path) -> None:
    write_seeds(tmp_path, "plain", [50.25, 51.0, 50.0])
    write_seeds(tmp_path, "mask", [40.0, 41.5, 40.75])
    assert "updn ce-mask is less accurate than updn ce-plain" in judge_rows(gather_written(tmp_path))[0]


def test_one_seed_claims_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0)
    write_run(tmp_path, 60.0, loss="rescale")
    message = judge_rows(gather_written(tmp_path))
    assert "differ by +20.00 points" in message[0]
    assert "not tested over seeds: one side has only one seed" in message[0]
    assert message[1] == "Only one seed, so gains are not tested. Use --seeds 0-4."
    assert "accurate" not in " ".join(message)


def test_without_plain_runs_no_gain_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, 60.0, loss="rescale")
    assert judge_rows(gather_written(tmp_path)) == [
        "No gain can be computed: no strategy has plain runs in the same setting."
    ]


def test_rows_that_do_not_compare_with_others_are_named_at_the_top(tmp_path: Path) -> None:
    write_seeds(tmp_path, "plain", [40.0, 41.5], select="test")
    write_seeds(tmp_path, "focal", [0.0, 0.0], label="lost")
    message = judge_rows(gather_written(tmp_path))
    assert "‡ the epoch was chosen on the test split: not comparable with unmarked runs." in message
    assert any("do not rank it by d." in line and "focal" in line for line in message)


def test_many_rows_are_counted_where_they_are_not_listed(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0)
    for number in range(MOST_VERDICTS + 3):
        write_run(tmp_path, 41.0 + number, loss=f"loss{number}")
    message = judge_rows(gather_written(tmp_path))
    assert "3 more rows have smaller differences: see the gains in the tables." in message
    assert f"loss{MOST_VERDICTS + 2} and" in message[0]


@pytest.mark.parametrize("certain", [True, False])
def test_questions_are_told_of_beside_seeds(rows: tuple[Row, Row], certain: bool) -> None:
    pair = compare_pair(*rows, read, listed=0)
    (split,) = pair.splits
    test = split.categories["all"].questions
    if not certain:
        category = replace(split.categories["all"], questions=replace(test, permutation_p=0.5))
        pair = replace(pair, splits=(replace(split, categories={"all": category}),))
    findings = DatasetFindings("d", Comparison(rows, ()), ({}, {}), (), (), (), (pair,))
    message = judge_rows(findings)[0]
    assert ("would probably differ in the same direction" in message) == certain
    assert ("Only one of the two tests is significant" in message) == (not certain)


def test_the_scatter_has_a_point_for_each_row_with_both_accuracies(tmp_path: Path) -> None:
    write_seeds(tmp_path, "plain", [40.0, 42.0])
    assert build_scatter(gather_written(tmp_path)) == ()  # one point says nothing
    write_seeds(tmp_path, "rescale", [50.0, 50.5], backbone="<other>")
    (charts,) = build_scatter(gather_written(tmp_path))
    drawing = draw(charts.figures[0], "k")
    assert drawing.count('class="mark') == 2
    assert drawing.count('class="whisker"') == 4
    assert "1: &lt;other&gt; ce-rescale, 50.25 across, 50.25 up" in drawing
    assert {row[1].text: row[2].text for row in charts.numbers.rows}["updn ce-plain"] == "41.00"


def test_rows_that_are_tested_in_domain_are_in_no_scatter(tmp_path: Path) -> None:
    for loss in ("plain", "rescale"):
        write_seeds(tmp_path, loss, [40.0, 42.0], test_domain="in-domain")
    assert build_scatter(gather_written(tmp_path)) == ()

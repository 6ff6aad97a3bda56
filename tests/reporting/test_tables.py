from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.evaluation.test_comparison import write_run
from vqabench.evaluation.comparison import Comparison, compare
from vqabench.reporting.exports import comparison_to_json, to_csv, to_markdown
from vqabench.reporting.grids import By, lay_out
from vqabench.reporting.tables import draw
from vqabench.results import find_runs


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    for seed in (0, 1):
        write_run(tmp_path, 40.0 + seed, seed=seed)
        write_run(tmp_path, 50.0 + seed, seed=seed, loss="mask+rescale")
    return compare(find_runs([tmp_path]))


def rendered(comparison: Comparison, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    for grid in lay_out(comparison, "accuracy", "answer-type"):
        console.print(*draw(grid, width))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_columns_are_headed_as_the_literature_does(comparison: Comparison) -> None:
    (first, *_) = lay_out(comparison, "accuracy", "answer-type")
    assert first.head[3:] == ("Y/N", "Num.", "Other", "All", "gain")
    assert [cell.text for cell in first.rows[1]][-2:] == ["50.50 ±0.71", "+10.00"]


def test_the_best_stands_in_bold(comparison: Comparison) -> None:
    text = rendered(comparison)
    assert "\x1b[1m50.50 ±0.71" in text
    assert "\x1b[1m40.50" not in text


def test_every_metric_and_split_has_a_table_of_its_own(comparison: Comparison) -> None:
    titles = [grid.title for grid in lay_out(comparison, None, "answer-type")]
    assert len(titles) == 4
    assert titles[0] == "d, out-of-domain test: accuracy in percent"
    assert titles[3] == "d, in-domain val: Cohen's kappa x 100"


def test_by_question_type_a_line_is_a_type(comparison: Comparison) -> None:
    (grid, *_) = lay_out(comparison, None, "question-type")
    assert [cell.text for cell in grid.rows[0]] == ["how many", "40.50 ±0.71", "50.50 ±0.71"]


@pytest.mark.parametrize("by", ["answer-type", "question-type"])
@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_narrow_terminal_cuts_no_number_and_no_name(tmp_path: Path, width: int, by: By) -> None:
    accuracies = (40.25, 50.25, 60.25, 70.25)
    for accuracy, loss in zip(accuracies, ("plain", "focal", "rescale", "mask+rescale"), strict=True):
        for seed in (0, 1):
            write_run(tmp_path, accuracy + seed, seed=seed, loss=loss)
    console = Console(file=io.StringIO(), width=width)
    for grid in lay_out(compare(find_runs([tmp_path])), "accuracy", by):
        console.print(*draw(grid, width))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for accuracy in accuracies:
        assert f"{accuracy + 0.5:.2f}" in text
    if by == "answer-type":
        assert "60.75 ±0.71" in text  # under "All", however narrow
    assert "plain" in text


def test_csv_and_json_hold_every_number(comparison: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    cells = sum(len(row.cells) for row in comparison.rows)
    assert len(lines) == cells
    (line,) = [
        one
        for one in lines
        if (one["loss"], one["split"], one["metric"], one["category"]) == ("plain", "test", "accuracy", "all")
    ]
    assert float(line["mean"]) == 40.5
    document = json.loads(comparison_to_json(comparison))
    assert document["rows"][0]["scores"]["test"]["accuracy"]["all"]["mean"] == 40.5


def test_text_from_outside_is_no_markup(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, backbone="[red]a|b*c", label="x=[bold]")
    comparison = compare(find_runs([tmp_path]))
    assert "[red]a|b*c" in rendered(comparison)
    assert "[red]a\\|b\\*c" in to_markdown(lay_out(comparison, None, "answer-type"), comparison.notes)


def test_the_same_runs_give_the_same_bytes(comparison: Comparison, tmp_path: Path) -> None:
    again = compare(find_runs([tmp_path]))
    for form in (to_csv, comparison_to_json):
        assert form(comparison) == form(again)

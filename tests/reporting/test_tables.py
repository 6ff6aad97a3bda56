from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.runs import write_run
from vqabench.errors import InputError
from vqabench.evaluation.comparison import Comparison, compare
from vqabench.reporting.exports import lay_flat, narrow, to_csv, to_json, to_markdown
from vqabench.reporting.grids import By, lay_out
from vqabench.reporting.latex import to_latex
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
    assert first.head[3:] == ("Y/N", "Num.", "Other", "All", "in-domain", "gain")
    assert [cell.text for cell in first.rows[1]][-3:] == ["50.50 ±0.71", "50.50 ±0.71", "+10.00"]


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
    document = json.loads(to_json(lay_flat(comparison)))
    assert document["rows"][0]["scores"]["test"]["accuracy"]["all"]["mean"] == 40.5


def test_text_from_outside_is_no_markup(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, backbone="[red]a|b*c", label="x=[bold]")
    comparison = compare(find_runs([tmp_path]))
    assert "[red]a|b*c" in rendered(comparison)
    assert "\\[red\\]a\\|b\\*c" in to_markdown(lay_out(comparison, None, "answer-type"), comparison.notes)


def test_no_text_breaks_a_table_or_becomes_a_formula(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, dataset="=1+1", label="a\n# b ![i](http://x)")
    comparison = compare(find_runs([tmp_path]))
    markdown = to_markdown(lay_out(comparison, "accuracy", "answer-type"), comparison.notes)
    assert "a \\# b !\\[i\\](http" in markdown
    (line, *_) = csv.DictReader(io.StringIO(to_csv(comparison)))
    assert line["dataset"] == "'=1+1"


@pytest.fixture
def tested(tmp_path: Path) -> Comparison:
    """Compare three seeds of plain, of what is better beyond doubt and of what is not, and one of a third."""
    for seed, noise in enumerate((0.0, 0.5, 0.3)):
        about: dict[str, Any] = {"seed": seed, "dataset": "vqa-cp-v2", "objective": "bce"}
        write_run(tmp_path, 40.0 + noise, **about)
        write_run(tmp_path, 50.0 + 1.1 * noise, loss="rescale", **about)
        write_run(tmp_path, 40.0 - noise, loss="focal", **about)
    write_run(tmp_path, 60.0, loss="mask", dataset="vqa-cp-v2", objective="bce", label="a_b&c|50%")
    write_run(tmp_path, 45.0, backbone="[0]*", dataset="vqa-cp-v2", objective="bce", seed=9)
    return compare(find_runs([tmp_path]), published=True)


def test_a_gain_has_its_interval_and_corrected_p_value_and_one_seed_has_neither(tested: Comparison) -> None:
    (grid, *_) = lay_out(tested, "accuracy", "answer-type")
    assert grid.head[6:] == ("All", "in-domain", "gain", "95 % CI", "p (Holm)", "differs")
    lines = {row[1].text: [cell.text for cell in row[6:]] for row in grid.rows}
    better, level, single = lines["bce-rescale"], lines["bce-focal"], lines["bce-mask @a_b&c|50%"]
    test = tested.rows[-1].cells["test", "accuracy", "answer-type", "all"].test
    assert test is not None
    assert better[0].endswith("†")
    assert better[2:5] == ["+10.03", f"{test.low:+.1f} to {test.high:+.1f}", "<0.0001"]
    assert "†" not in level[0]
    assert single[2:5] == ["+19.73", "", ""]


def test_a_published_row_follows_ours_with_the_difference(tested: Comparison) -> None:
    (grid, *_) = lay_out(tested, "accuracy", "answer-type")
    names = [row[1].text for row in grid.rows]
    place = names.index("bce-rescale")
    published = grid.rows[place + 1]
    assert [cell.text for cell in published[:2]] == ["UpDn, published", "bce-rescale, Table V, run by the authors"]
    assert published[6].text == "40.84"
    assert published[-1].text == f"{50.29333333 - 40.84:+.2f}"
    assert not any("published" in row[0].text for row in lay_out(tested, "accuracy", "answer-type")[1].rows)  # val


def test_csv_and_json_hold_tests_published_rows_and_provenance(tested: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(tested))))
    (line,) = [
        one
        for one in lines
        if [one[name] for name in ("source", "loss", "split", "metric", "by", "category")]
        == ["ours", "rescale", "test", "accuracy", "answer-type", "all"]
    ]
    assert float(line["p"]) < float(line["p_holm"]) < 1e-3
    assert float(line["low"]) < float(line["gain"]) < float(line["high"])
    assert line["paired"] == "1"
    assert [one["mean"] for one in lines if one["source"] == "Table V, authors"] == ["40.84"]
    rows = {row["loss"]: row for row in json.loads(to_json(lay_flat(tested)))["rows"]}
    cell = rows["rescale"]["scores"]["test"]["accuracy"]["all"]
    assert cell["test"]["p"] == float(line["p"])
    assert cell["values"] == [50.0, 50.55, 50.33]
    assert [run["seed"] for run in rows["rescale"]["runs"]] == [0, 1, 2]
    assert rows["rescale"]["runs"][0]["recipe"] == {"epochs": 3}
    assert rows["rescale"]["published"][0]["numbers"] == {"all": 40.84}


def test_the_same_runs_give_the_same_bytes(comparison: Comparison, tmp_path: Path) -> None:
    again = compare(find_runs([tmp_path]))
    assert to_csv(comparison) == to_csv(again)
    assert to_json(lay_flat(comparison)) == to_json(lay_flat(again))
    first, second = (lay_out(one, None, "answer-type") for one in (comparison, again))
    assert to_markdown(first, comparison.notes) == to_markdown(second, again.notes)
    assert to_latex(comparison, None, "answer-type") == to_latex(again, None, "answer-type")


def test_csv_and_json_can_be_narrowed_to_a_split_and_a_metric(comparison: Comparison) -> None:
    narrowed = narrow(comparison, "kappa", "val")
    lines = list(csv.DictReader(io.StringIO(to_csv(narrowed))))
    assert {(line["split"], line["metric"]) for line in lines} == {("val", "kappa")}
    assert [line["against"] for line in lines if line["loss"] == "mask+rescale"] == ["updn ce-plain"] * 4
    (row, _) = json.loads(to_json(lay_flat(narrowed)))["rows"]
    assert {split: list(metrics) for split, metrics in row["scores"].items()} == {"val": ["kappa"]}
    with pytest.raises(InputError, match="no run has scores for accuracy of train"):
        narrow(comparison, "accuracy", "train")

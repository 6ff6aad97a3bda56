from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.test_comparison import write_run
from vqabench.evaluation.comparison import compare
from vqabench.evaluation.published import read_published
from vqabench.evaluation.rows import Row
from vqabench.results import find_runs


def row_of(folder: Path, accuracy: float = 50.0, **changes: Any) -> tuple[Row, tuple[str, ...]]:
    """Compare a single run on VQA-CP v2 with the paper."""
    write_run(folder, accuracy, **({"dataset": "vqa-cp-v2"} | changes))
    comparison = compare(find_runs([folder]), published=True)
    return comparison.rows[0], comparison.notes


def test_the_tables_are_as_printed() -> None:
    rows = read_published()
    assert {row.table for row in rows} == {"II", "III", "IV", "V"}
    (updn,) = [
        row
        for row in rows
        if (row.table, row.dataset, row.backbone, row.loss, row.run_by)
        == ("II", "vqa-cp-v2", "updn", "mask+rescale", "authors")
    ]
    assert updn.numbers == {"yes/no": 68.42, "number": 21.71, "other": 42.88, "all": 47.09}
    assert updn.significant == {"yes/no", "number", "other", "all"}


def test_a_number_that_two_tables_print_is_there_once(tmp_path: Path) -> None:
    row, _ = row_of(tmp_path, objective="bce")
    accuracies = [one for one in row.published if one.metric == "accuracy" and one.run_by == "authors"]
    assert [(one.table, one.numbers["all"]) for one in accuracies] == [("II", 38.80)]


MASK: dict[str, Any] = {"objective": "ce", "loss": "mask"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"objective": "ce", "loss": "rescale"}, 55.93),
        ({"objective": "bce", "loss": "rescale"}, 40.84),
        ({"backbone": "lmh", "objective": "bce", "loss": "rescale"}, 52.68),
        (
            {"objective": "ce", "loss": "mask", "options": {"backbone": {}, "mask": {"activation": "sigmoid"}}},
            39.32,
        ),
        (
            {"objective": "ce", "loss": "mask", "options": {"backbone": {}, "mask": {"activation": "softplus-g"}}},
            40.30,
        ),
        ({"dataset": "vqa-v2", "objective": "bce", "loss": "plain", "test_domain": "in-domain"}, 62.07),
    ],
)
def test_a_row_is_matched_by_data_set_backbone_objective_and_loss(
    tmp_path: Path, changes: dict[str, Any], expected: float
) -> None:
    row, notes = row_of(tmp_path, **changes)
    found = [one.numbers["all"] for one in row.published if one.metric == "accuracy" and one.run_by == "authors"]
    assert found == [expected]
    assert notes[-1].startswith("published: Guo")


def test_what_other_papers_reported_without_an_objective_stands_beside_either(tmp_path: Path) -> None:
    row, _ = row_of(tmp_path, objective="ce")
    assert ("reported", 39.74) in [(one.run_by, one.numbers["all"]) for one in row.published]


def test_a_data_set_that_the_paper_has_not_is_told_and_so_is_a_row(tmp_path: Path) -> None:
    row, notes = row_of(tmp_path / "a", dataset="digits-cp")
    assert row.published == ()
    assert "digits-cp: the paper has no results on this data set" in notes
    row, notes = row_of(tmp_path / "b", loss="ldam")
    assert row.published == ()
    assert "the paper has no row for updn ce-ldam" in notes


def test_without_being_asked_for_the_paper_is_not_there(tmp_path: Path) -> None:
    write_run(tmp_path, 50.0, dataset="vqa-cp-v2", objective="bce")
    comparison = compare(find_runs([tmp_path]))
    assert comparison.rows[0].published == ()
    assert not any("published" in note for note in comparison.notes)

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.runs import make_manifest, write_run
from tests.tiny import write_tiny
from vqabench.data.catalog.entries import read_catalog
from vqabench.evaluation.comparison import compare
from vqabench.evaluation.published import SPLITS, find_split, read_published
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


V1, V2 = SPLITS["vqa-cp-v1"], SPLITS["vqa-cp-v2"]
WHOLE = {"train": V2.train - 20_000, "val": 20_000, "test": V2.test}


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"questions": WHOLE | {"train": 1_000}}, "1,000 questions in train, but 438,183 in the published split"),
        ({"dataset": "vqa-cp-v1"}, "10 questions were tested, but the published test split has 125,314"),
        ({"dataset": "vqa-v2", "questions": {"train": 10, "test": 214_354}}, "10 questions in train"),
    ],
)
def test_a_run_on_other_splits_of_the_same_name_has_no_published_row(
    tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    row, notes = row_of(tmp_path, objective="bce", **changes)
    assert row.published == ()
    (message,) = [note for note in notes if "is not the published split" in note]
    assert difference in message
    assert row.title in message


def test_a_test_of_the_right_size_with_other_questions_is_not_the_published_one() -> None:
    about: dict[str, Any] = {"dataset": "vqa-cp-v1", "questions": {"train": V1.train, "test": V1.test}}
    assert find_split(make_manifest(**about, test_ids=V1.test_ids), V1.test) == "vqa-cp-v1"
    other = make_manifest(**about, test_ids="0" * 64)
    assert find_split(other, V1.test) is None
    assert V1.find_difference(other, V1.test) == "the same number of test questions, but not the same questions"


@pytest.mark.parametrize("questions", [WHOLE, {"train": V2.train, "test": V2.test}, {"train": V2.train, "val": 5}])
def test_the_published_split_counts_under_any_name(tmp_path: Path, questions: dict[str, int]) -> None:
    manifest = make_manifest(dataset="vqa-v2-cp", questions=questions)
    assert find_split(manifest, V2.test) == "vqa-cp-v2"
    assert find_split(manifest, V2.test - 1) is None
    assert find_split(make_manifest(dataset="vqa-v2-cp"), V2.test) is None  # an old run, which records no counts


def test_the_known_hash_is_that_of_the_published_list(samples: Path) -> None:
    content = gzip.decompress((samples / "vqa-v1" / "vqa_cp_v1_test_answer_types.125314.json.gz").read_bytes())
    ids = sorted(map(int, json.loads(content)))
    spelled = "".join(f"{number}\n" for number in ids).encode()
    assert (len(ids), hashlib.sha256(spelled).hexdigest()) == (V1.test, V1.test_ids)


def test_the_counts_are_those_of_the_catalogue() -> None:
    for name, split in SPLITS.items():
        counts = read_catalog(None)[name][0].counts
        assert (counts["train"].questions, counts["test"].questions) == (split.train, split.test)


@pytest.mark.parametrize(("arguments", "expected"), [((), 144), (("--dataset", "vqa-cp-v1"), 31)])
def test_without_runs_the_papers_tables_are_shown_whole(
    cli: CommandLine, arguments: tuple[str, ...], expected: int
) -> None:
    done = cli("compare", "--published", "--format", "json", *arguments)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert len(content["published"]) == expected
    assert "runs: there is no such folder of runs" in content["notes"][0]
    done = cli("compare", "--published", *arguments)
    for words in ("Table III: vqa-cp-v1, published: accuracy", "CSS+LMH", "84.56†"):
        assert words in done.stdout


def test_without_runs_a_data_set_that_the_paper_has_not_is_an_error(cli: CommandLine) -> None:
    done = cli("compare", "--published", "--dataset", "digits-cp")
    assert done.returncode == 2
    assert "the paper has no results on it; it has vqa-cp-v2, vqa-cp-v1, vqa-v2" in done.stderr
    assert cli("compare").returncode == 2


def test_a_data_set_of_ones_own_that_is_called_like_a_published_one_is_not_taken_for_it(
    cli: CommandLine, tmp_path: Path
) -> None:
    catalog = write_tiny(tmp_path / "own")
    catalog.write_text(catalog.read_text().replace("[tiny", "[vqa-cp-v2"))
    done = cli(
        "train", "updn", "--dataset", "vqa-cp-v2", "--catalog", catalog, "--epochs", "1", "--set", "hidden=8"
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads(next(tmp_path.glob("runs/vqa-cp-v2/*/*/seed-0/run.json")).read_bytes())
    assert manifest["questions"] == {"train": 60, "val": 12, "test": 12}
    ids = "".join(f"{number}\n" for number in range(2000, 2012)).encode()
    assert manifest["test_ids"] == hashlib.sha256(ids).hexdigest()
    done = cli("compare", "--published")
    assert "vqa-cp-v2 here is not the published split: 12 questions were tested" in done.stdout
    assert "Table" not in done.stdout

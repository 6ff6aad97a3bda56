"""Subsets of a split, from the catalogue to a table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import pytest

from tests.conftest import CommandLine
from tests.outcomes import fails
from tests.tiny import questions_of, write_tiny

SUBSETS = """
[tiny.subsets]
first = { ids = "first.json" }
rest = { ids = "rest.txt" }
val-part = { ids = "val.json", of = "val" }
"""
LINE = ("--dataset", "tiny", "--catalog", "own/catalog.toml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the tiny data set with three subsets, as lists of different forms."""
    catalog = write_tiny(tmp_path / "own")
    catalog.write_text(catalog.read_text() + SUBSETS)
    (tmp_path / "own" / "first.json").write_text(json.dumps([*range(2000, 2005)]))
    (tmp_path / "own" / "rest.txt").write_text("\n".join(map(str, range(2005, 2012))))
    (tmp_path / "own" / "val.json").write_text(json.dumps([1000, 1003, 1001]))
    return tmp_path / "own"


def score(run: Path, split: str, ids: Iterable[int]) -> float:
    """Return the accuracy in percent on some questions: eight of ten annotators gave the true answer."""
    true = {one.question_id: one.multiple_choice_answer for one in questions_of(split)[1]}
    given = {
        one["question_id"]: one["answer"] for one in json.loads((run / f"predictions.{split}.json").read_text())
    }
    return 100 * fmean(given[number] == true[number] for number in ids)


@pytest.mark.usefixtures("folder")
def test_compare_shows_the_accuracy_on_each_subset_of_its_split(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("train", "prior", *LINE).returncode == 0
    run = tmp_path / "runs" / "tiny" / "prior" / "ce-plain" / "seed-0"
    shown = cli("compare", *LINE, "--by", "subset", "--format", "markdown").stdout
    test = [score(run, "test", ids) for ids in (range(2000, 2005), range(2005, 2012), range(2000, 2012))]
    val = [score(run, "val", ids) for ids in ((1000, 1001, 1003), range(1000, 1012))]
    assert "| backbone | strategy | seeds | first | rest | All |" in shown
    assert "| backbone | strategy | seeds | val-part | All |" in shown
    for numbers in (test, val):
        assert f"| prior | ce-plain | 1 | {' | '.join(f'{number:.2f}' for number in numbers)} |" in shown


@pytest.mark.parametrize(
    ("catalog", "ids", "message"),
    [
        ("", "[2000]", "tiny: the catalogue names no subsets of it"),
        (SUBSETS, "[1, 2]", "first.json: none of its 2 questions is in the split test"),
        (SUBSETS, "[2000", "first.json"),
        (SUBSETS, None, "first.json: there is no such list of the questions of the subset first"),
    ],
)
def test_a_broken_subset_is_named(
    cli: CommandLine, folder: Path, catalog: str, ids: str | None, message: str
) -> None:
    assert cli("train", "prior", *LINE).returncode == 0
    (folder / "catalog.toml").write_text((folder / "catalog.toml").read_text().replace(SUBSETS, catalog))
    (folder / "first.json").unlink()
    if ids is not None:
        (folder / "first.json").write_text(ids)
    ended = cli("compare", *LINE, "--by", "subset")
    assert message in ended.stderr, ended.stderr
    assert ended.returncode == 2


@pytest.mark.parametrize(
    ("subset", "words"),
    [
        ('"a|b" = { ids = "first.json" }', ("'a|b' is not a valid name",)),
        ('x = { id = "first.json" }', ("subsets.x", "did you mean 'ids'?")),
        ('x = { ids = "first.json", of = "dev" }', ("subsets.x", "of")),
    ],
)
def test_a_mistake_in_the_catalogue_is_one_line(
    cli: CommandLine, folder: Path, subset: str, words: tuple[str, ...]
) -> None:
    text = (folder / "catalog.toml").read_text()
    (folder / "catalog.toml").write_text(text.replace('first = { ids = "first.json" }', subset))
    fails(cli("data", "info", "tiny", "--catalog", "own/catalog.toml"), *words)

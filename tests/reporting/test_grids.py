from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.runs import write_run
from vqabench.errors import InputError
from vqabench.evaluation.comparison import Comparison, compare
from vqabench.reporting.grids import By, choose_notes, lay_out, parse_columns
from vqabench.results import find_runs


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    for seed in (0, 1):
        write_run(tmp_path, 40.0 + seed, seed=seed)
        write_run(tmp_path, 50.0 + seed, seed=seed, loss="mask+rescale")
    return compare(find_runs([tmp_path]))


@pytest.mark.parametrize(
    ("chosen", "by", "heads"),
    [
        ("all,gain", "answer-type", ("All", "gain")),
        ("ALL, y/n ,yes/no,seeds", "answer-type", ("All", "Y/N", "seeds")),
        ("ci,p,in-domain", "answer-type", ("95 % CI", "p (Holm)", "in-domain")),
        ("tail,head,against", "prior", ("Tail", "Head", "Against")),
    ],
)
def test_columns_are_chosen_by_their_heads(chosen: str, by: By, heads: tuple[str, ...]) -> None:
    assert parse_columns(chosen, by) == heads


@pytest.mark.parametrize(
    ("chosen", "by", "message"),
    [
        ("gian", "answer-type", "unknown column 'gian': did you mean 'gain'"),
        (" , ", "answer-type", "expected at least one column; valid: seeds, Y/N"),
        ("gain", "prior", "unknown column 'gain'"),
        ("all", "question-type", "have one column per run"),
    ],
)
def test_a_column_that_does_not_exist_is_an_error(chosen: str, by: By, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse_columns(chosen, by)


def test_tables_hold_the_chosen_split_and_columns_in_their_order(comparison: Comparison) -> None:
    (grid,) = lay_out(comparison, "accuracy", "answer-type", "val", ("All", "gain", "in-domain"))
    assert grid.title == "d, in-domain val: accuracy in percent"
    assert grid.head == ("backbone", "strategy", "All", "gain")  # val has no in-domain column of its own
    with pytest.raises(InputError, match="no run has scores for accuracy of train"):
        lay_out(comparison, "accuracy", "answer-type", "train")


NOTES = ("‡ the epoch", "† p < 0.01", "p (Holm): p-value", "Only one seed of")


@pytest.mark.parametrize(
    ("by", "columns", "kept"),
    [
        ("answer-type", "", NOTES),
        ("answer-type", "all", NOTES[:2]),  # the numbers have marks, but there are no gains
        ("answer-type", "gain", (NOTES[0], NOTES[3])),
        ("question-type", "", NOTES[:1]),
    ],
)
def test_a_table_has_only_the_notes_on_what_stands_in_it(
    tmp_path: Path, by: By, columns: str, kept: tuple[str, ...]
) -> None:
    for seed, noise in enumerate((0.0, 0.5, 0.25)):
        write_run(tmp_path, 40.0 + noise, seed=seed)
        write_run(tmp_path, 60.0 - noise, seed=seed, loss="rescale")
    write_run(tmp_path, 50.0, loss="focal", select="test")
    comparison = compare(find_runs([tmp_path]))
    grids = lay_out(comparison, "accuracy", by, columns=parse_columns(columns, by) if columns else ())
    notes = choose_notes(comparison, grids)
    assert tuple(one for one in NOTES if any(note.startswith(one) for note in notes)) == kept

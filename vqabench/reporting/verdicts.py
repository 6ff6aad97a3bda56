"""What can be said of some rows, and what cannot: the first lines of a report."""

from __future__ import annotations

from collections.abc import Iterator

from vqabench.evaluation.findings import DatasetFindings
from vqabench.evaluation.notes import is_warning
from vqabench.evaluation.rows import Cell, Row
from vqabench.evaluation.significance import QuestionTest
from vqabench.reporting.explanation import CERTAIN
from vqabench.reporting.figures import name_row, name_split
from vqabench.reporting.grids import SPLITS, format_p

MOST_VERDICTS = 8
ONE_SEED = "Only one seed, so gains are not tested. Use --seeds 0-4."


def judge_rows(findings: DatasetFindings) -> list[str]:
    """Return a sentence or more for each strategy, those that differ the most from plain first.

    Over seeds p-values are corrected for all rows, by Holm, as in the tables. Where answers could be read, these
    very models are compared on their questions, too. Warnings of rows that do not compare with others follow.
    """
    rows = findings.comparison.rows
    gaining = [(row, split) for row in rows if (split := _split_of(row)) is not None]
    gaining.sort(key=lambda pair: -abs(_all(*pair).gain or 0.0))
    message = [_judge(row, split, _find_test(findings, row, split)) for row, split in gaining[:MOST_VERDICTS]]
    if len(gaining) > MOST_VERDICTS:
        message.append(
            f"{len(gaining) - MOST_VERDICTS} more rows have smaller differences: see the gains in the tables."
        )
    if not gaining:
        message.append("No gain can be computed: no strategy has plain runs in the same setting.")
    elif all(_all(*pair).test is None for pair in gaining) and all(len(row.seeds) == 1 for row in rows):
        message.append(ONE_SEED)
    return [*message, *(f"{note}." for note in findings.comparison.notes if is_warning(note))]


def _split_of(row: Row) -> str | None:
    """Return the split that a row is judged by: test, or val where there is no other."""
    for split in SPLITS:
        cell = row.cells.get((split, "accuracy", "answer-type", "all"))
        if cell is not None and cell.gain is not None:
            return split
    return None


def _all(row: Row, split: str) -> Cell:
    return row.cells[split, "accuracy", "answer-type", "all"]


def _find_test(findings: DatasetFindings, row: Row, split: str) -> QuestionTest | None:
    for pair in findings.tests:
        if pair.after is row:
            return next((one.categories["all"].questions for one in pair.splits if one.split == split), None)
    return None


def _judge(row: Row, split: str, questions: QuestionTest | None) -> str:
    return " ".join([*_judge_seeds(row, split), *_judge_questions(row, split, questions)])


def _judge_seeds(row: Row, split: str) -> Iterator[str]:
    cell, where = _all(row, split), name_split(split, row)
    names, gain = f"{name_row(row)} and {row.against}", cell.gain or 0.0
    if cell.test is None:
        why = (
            "one side has only one seed" if len(row.seeds) == 1 or cell.deviation is None else "all seeds are equal"
        )
        yield f"{names} differ by {gain:+.2f} points ({where}). This is not tested over seeds: {why}."
    else:
        message = (
            f"{gain:+.2f} points, 95 % CI {cell.test.low:+.2f} to {cell.test.high:+.2f}, p (Holm) "
            f"{_spell(cell.test.p_holm)} over {len(row.seeds)} seeds"
        )
        if cell.test.p_holm < CERTAIN:
            more = "more" if gain > 0 else "less"
            yield f"{name_row(row)} is {more} accurate than {row.against} ({where}): {message}."
        else:
            yield f"No difference between {names} is shown ({where}): {message}. Other seeds may reverse the sign."
    beside = row.cells.get(("val", "accuracy", "answer-type", "all"))
    if split == "test" and row.test_domain == "out-of-domain" and beside is not None and beside.gain is not None:
        yield f"In domain (val): {beside.gain:+.2f} points."


def _judge_questions(row: Row, split: str, test: QuestionTest | None) -> Iterator[str]:
    if test is None:
        return
    p, seeds = test.permutation_p, _all(row, split).test
    if p < CERTAIN:
        yield f"On other images of this kind, these models would differ in the same direction (p {_spell(p)})."
    else:
        yield f"These models may differ only on these images (p {_spell(p)})."
    if seeds is not None and (seeds.p_holm < CERTAIN) != (p < CERTAIN):
        yield "Only one of the two tests is significant: do not claim a difference in general."


def _spell(p: float) -> str:
    spelled = format_p(p)
    return spelled if spelled.startswith("<") else f"= {spelled}"

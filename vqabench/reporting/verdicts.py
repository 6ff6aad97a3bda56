"""Explain what can be concluded from rows, and what cannot: `compare --explain`, and the top of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vqabench.errors import counted
from vqabench.evaluation.findings import DatasetFindings
from vqabench.evaluation.notes import LEVEL, ONE_SEED, is_warning
from vqabench.evaluation.pair import CategoryPair, Pair, SplitPair
from vqabench.evaluation.rows import Row
from vqabench.evaluation.significance import QuestionTest
from vqabench.reporting.charts import name_row, name_split
from vqabench.reporting.grids import HEADS, SPLITS, format_p
from vqabench.reporting.output import clean_line

CERTAIN = 0.05
"""A p-value below it counts as a difference."""
FEW_IMAGES = 50
"""With fewer images, bootstrap intervals are too narrow."""
MOST_VERDICTS = 8
"""Maximum number of rows with a verdict in a report."""


def explain(pair: Pair, questions: Mapping[int, str], notes: Sequence[str] = ()) -> str:
    """Return an explanation of how two configurations differ.

    `questions` maps the ids of listed questions to their wording; `notes` are about runs left out.
    """
    paragraphs = [_introduce(pair, notes)]
    for split in pair.splits:
        paragraphs += [_explain_split(split, pair), _list_changes(split, questions)]
    conclusions = [f"  {line}" for split in pair.splits for line in _conclude(split, pair)]
    return "\n\n".join([*paragraphs, "\n".join(["Conclusions", *conclusions])])


def explanation_to_json(pair: Pair, questions: Mapping[int, str], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return an explanation and its numbers as plain values."""
    splits = [msgspec.to_builtins(split) for split in pair.splits]
    for split in splits:
        for change in split["changes"]:
            change["question"] = questions.get(change["question_id"])
    sides = {
        name: {"backbone": row.backbone, "strategy": row.strategy, "seeds": row.seeds, "brands": row.brands}
        for name, row in (("before", pair.before), ("after", pair.after))
    }
    return {
        "dataset": pair.before.dataset,
        **sides,
        "settings": pair.settings,
        "splits": splits,
        "notes": notes,
        "text": explain(pair, questions, notes),
    }


def _introduce(pair: Pair, notes: Sequence[str]) -> str:
    first, second = (
        f"{clean_line(row.title)} ({counted(len(row.seeds), 'seed')})" for row in (pair.before, pair.after)
    )
    lines = [
        f"A: {first}, B: {second}, on {pair.before.dataset}.",
        "Differences are B - A, in points of accuracy; p by Holm is corrected for the categories of a split.",
        *(f"B is marked ‡: {brand}." for brand in pair.after.brands),
        *(f"A is marked ‡: {brand}." for brand in pair.before.brands),
        *(f"Note: {note}." for note in notes),
    ]
    if pair.settings:
        lines.append(f"Settings that differ: {'; '.join(pair.settings)}.")
    return "\n".join(lines)


def _explain_split(split: SplitPair, pair: Pair) -> str:
    lines = [f"{split.domain.capitalize()} ({split.split})"]
    for category, one in split.categories.items():
        lines += [
            f"  {HEADS[category]}: {one.before:.2f} -> {one.after:.2f} ({one.after - one.before:+.2f})",
            f"    over seeds: {_explain_seeds(one, pair)}",
            f"    over questions: {_explain_questions(one)}",
        ]
    return "\n".join(lines)


def _explain_seeds(one: CategoryPair, pair: Pair) -> str:
    test = one.seeds
    if test is None and _has_one_seed(pair):
        return "not tested, because one side has only one seed. Use --seeds 0-4"
    if test is None:
        return "not tested, because all seeds give the same value, so their spread is unknown"
    kind = "paired t-test" if test.paired else "Welch's t-test"
    effect = "" if test.effect is None else f", effect g = {test.effect:+.1f}"
    tested = f"p {_relate(test.p)} ({kind}; p {_relate(test.p_holm)} by Holm)"
    return f"95 % CI {test.low:+.2f} to {test.high:+.2f}, {tested}{effect}"


def _has_one_seed(pair: Pair) -> bool:
    return min(len(pair.before.seeds), len(pair.after.seeds)) < 2


def _explain_questions(one: CategoryPair) -> str:
    test = one.questions
    interval = f"95 % CI {test.low:+.2f} to {test.high:+.2f} (bootstrap)"
    if test.images < 2:
        interval = "no interval"
    elif test.images < FEW_IMAGES:
        interval += ", which is too narrow for so few images"
    return (
        f"{interval}, p {_relate(test.permutation_p)} (permutation; p {_relate(one.p_holm)} by Holm), "
        f"{counted(test.questions, 'question')}, {counted(test.images, 'image')}"
    )


def _list_changes(split: SplitPair, questions: Mapping[int, str]) -> str:
    total = split.gained + split.lost + split.kept
    lines = [
        f"  Of {total:,} questions B answers {split.gained:,} better, {split.lost:,} worse and {split.kept:,} "
        "equally well"
    ]
    for change in split.changes:
        asked = clean_line(questions.get(change.question_id, "?"))
        humans, before, after = map(_list_answers, (change.humans, change.before, change.after))
        lines.append(
            f"  {change.change:+7.1f}  {asked} [{change.question_id}, image {change.image_id}]  humans: {humans}; "
            f"A: {before}; B: {after}"
        )
    return "\n".join(lines)


def _list_answers(answers: Mapping[str, int]) -> str:
    return ", ".join(clean_line(answer) + (f" x{times}" if times > 1 else "") for answer, times in answers.items())


def _conclude(split: SplitPair, pair: Pair) -> list[str]:
    """Return the conclusions on a split from its overall accuracy: over seeds, and over questions."""
    where = f"{split.domain} {split.split}"
    if not split.gained and not split.lost:
        return [f"{where}: both are equally accurate on every question"]
    one = split.categories["all"]
    lines = [_conclude_seeds(one, pair), _conclude_questions(one.questions)]
    if one.seeds is not None and (one.seeds.p < CERTAIN) != (one.questions.permutation_p < CERTAIN):
        lines.append("only one of the two tests is significant: do not claim that B differs from A in general")
    return [f"{where}: {line}" for line in lines]


def _conclude_seeds(one: CategoryPair, pair: Pair) -> str:
    more, seeds = "more" if one.after > one.before else "less", one.seeds
    if seeds is None and _has_one_seed(pair):
        return "one side has only one seed, so this is about these models, not about the methods. Use --seeds 0-4"
    if seeds is None:
        return "all seeds give the same value, so nothing can be concluded about other seeds"
    if seeds.p < CERTAIN:
        strictly = f"also at the paper's {LEVEL}" if seeds.p < LEVEL else f"but not at the paper's {LEVEL}"
        return (
            f"trained again with other seeds, B would probably be {more} accurate than A on these questions "
            f"(p < {CERTAIN}, {strictly})"
        )
    return (
        "no difference between B and A is shown: other seeds may reverse the sign; differences from "
        f"{seeds.low:+.1f} to {seeds.high:+.1f} are compatible with these seeds"
    )


def _conclude_questions(test: QuestionTest) -> str:
    if test.permutation_p < CERTAIN:
        return "on other images of this kind, these models would probably differ in the same direction"
    return "these models might not differ on other images"


def _relate(p: float) -> str:
    """Return a p-value with its relation: `= 0.02` or `<0.0001`."""
    text = format_p(p)
    return text if text.startswith("<") else f"= {text}"


def judge_rows(findings: DatasetFindings) -> list[str]:
    """Return a verdict on each strategy, those that differ the most from plain first, then warnings.

    P-values over seeds are corrected for all rows, by Holm, as in the tables. If answers could be read, the
    models are also compared on their questions. The warnings are about rows that cannot be compared with others.
    """
    rows = findings.comparison.rows
    tests = {
        (id(pair.after), one.split): one.categories["all"].questions
        for pair in findings.tests
        for one in pair.splits
    }
    # A row is judged by test, or by val if there is no other.
    gaining = [
        (row, next(split for split in SPLITS if row.cell(split).gain is not None))
        for row in rows
        if any(row.cell(split).gain is not None for split in SPLITS)
    ]
    gaining.sort(key=lambda pair: -abs(pair[0].cell(pair[1]).gain or 0.0))
    messages = [_judge(row, split, tests.get((id(row), split))) for row, split in gaining[:MOST_VERDICTS]]
    if len(gaining) > MOST_VERDICTS:
        more = f"{len(gaining) - MOST_VERDICTS:,} more rows have smaller differences"
        messages.append(f"{more}: see the gains in the tables.")
    if not gaining:
        messages.append("No gain can be computed: no strategy has plain runs in the same setting.")
    elif all(len(row.seeds) == 1 for row in rows):
        messages.append(ONE_SEED)
    return [*messages, *(f"{note}." for note in findings.comparison.notes if is_warning(note))]


def _judge(row: Row, split: str, questions: QuestionTest | None) -> str:
    cell, where = row.cell(split), name_split(split, row)
    names, gain, test = f"{name_row(row)} and {row.against}", cell.gain or 0.0, cell.test
    if test is None:
        why = "all seeds are equal"
        if len(row.seeds) == 1 or cell.deviation is None:
            why = "one side has only one seed"
        sentences = [f"{names} differ by {gain:+.2f} points ({where}). This is not tested over seeds: {why}."]
    else:
        numbers = (
            f"{gain:+.2f} points, 95 % CI {test.low:+.2f} to {test.high:+.2f}, p (Holm) {_relate(test.p_holm)} "
            f"over {len(row.seeds)} seeds"
        )
        if test.p_holm < CERTAIN:
            more = "more" if gain > 0 else "less"
            sentences = [f"{name_row(row)} is {more} accurate than {row.against} ({where}): {numbers}."]
        else:
            sentences = [f"No difference between {names} is shown ({where}): {numbers}."]
            sentences.append("Other seeds may reverse the sign.")
    in_domain = row.cell("val").gain
    if split == "test" and row.test_domain == "out-of-domain" and in_domain is not None:
        sentences.append(f"In domain (val): {in_domain:+.2f} points.")
    if questions is not None:
        p, conclusion = questions.permutation_p, _conclude_questions(questions)
        sentences.append(f"{conclusion[0].upper()}{conclusion[1:]} (p {_relate(p)}).")
        if test is not None and (test.p_holm < CERTAIN) != (p < CERTAIN):
            sentences.append("Only one of the two tests is significant: do not claim a difference in general.")
    return " ".join(sentences)

"""What can be concluded from two configurations, and what cannot, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vqabench.errors import counted
from vqabench.evaluation.notes import LEVEL
from vqabench.evaluation.pair import CategoryPair, Change, Pair, SplitPair
from vqabench.evaluation.rows import Row
from vqabench.reporting.grids import HEADS, format_p
from vqabench.reporting.output import clean_line

CERTAIN = 0.05
"""Below which a difference is called one."""
FEW_IMAGES = 50
"""Below which a bootstrap is too sure of itself."""


def explain(pair: Pair, questions: Mapping[int, str], notes: Sequence[str] = ()) -> str:
    """Explain a pair.

    `questions` gives the wording of the questions that are listed, by their ids; `notes` are on runs left out.
    """
    paragraphs = [_introduce(pair, notes)]
    for split in pair.splits:
        paragraphs += [_explain_split(split, pair), _list_changes(split, questions)]
    return "\n\n".join(filter(None, [*paragraphs, _conclude(pair)]))


def explanation_to_json(pair: Pair, questions: Mapping[int, str], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Give everything that is explained as plain values."""
    splits = []
    for split in pair.splits:
        plain = msgspec.to_builtins(split)
        for change in plain["changes"]:
            change["question"] = questions.get(change["question_id"])
        splits.append(plain)
    return {
        "dataset": pair.before.dataset,
        "before": _describe_side(pair.before),
        "after": _describe_side(pair.after),
        "settings": pair.settings,
        "splits": splits,
        "notes": notes,
        "text": explain(pair, questions, notes),
    }


def _describe_side(row: Row) -> dict[str, Any]:
    return {"backbone": row.backbone, "strategy": row.strategy, "seeds": row.seeds, "brands": row.brands}


def _introduce(pair: Pair, notes: Sequence[str]) -> str:
    lines = [
        f"A: {_name(pair.before)}, B: {_name(pair.after)}, on {pair.before.dataset}.",
        "Differences are B - A, in points of accuracy; by Holm: p corrected for the categories of a split.",
        *(f"B is branded: {brand}." for brand in pair.after.brands),
        *(f"A is branded: {brand}." for brand in pair.before.brands),
        *(f"Note: {note}." for note in notes),
    ]
    if pair.settings:
        lines.append(f"Settings that differ: {'; '.join(pair.settings)}.")
    return "\n".join(lines)


def _name(row: Row) -> str:
    count = len(row.seeds)
    return f"{clean_line(row.title)} ({counted(count, 'seed')})"


def _explain_split(split: SplitPair, pair: Pair) -> str:
    lines = [f"{split.domain.capitalize()} ({split.split})"]
    for category, one in split.categories.items():
        lines.append(f"  {HEADS[category]}: {one.before:.2f} -> {one.after:.2f} ({one.after - one.before:+.2f})")
        lines.append(f"    over seeds: {_over_seeds(one, pair)}")
        lines.append(f"    over questions: {_over_questions(one)}")
    return "\n".join(lines)


def _over_seeds(one: CategoryPair, pair: Pair) -> str:
    test = one.seeds
    if test is None and _has_one_seed(pair):
        return "not tested, because one side has only one seed. Use --seeds 0-4"
    if test is None:
        return "not tested, because all seeds give the same value, so their spread is unknown"
    kind = "paired t-test" if test.paired else "Welch's t-test"
    effect = "" if test.effect is None else f", effect g = {test.effect:+.1f}"
    tested = f"{_spell(test.p)} ({kind}; {_spell(test.p_holm)} by Holm)"
    return f"95 % CI {test.low:+.2f} to {test.high:+.2f}, {tested}{effect}"


def _has_one_seed(pair: Pair) -> bool:
    return min(len(pair.before.seeds), len(pair.after.seeds)) < 2


def _over_questions(one: CategoryPair) -> str:
    test = one.questions
    interval = f"95 % CI {test.low:+.2f} to {test.high:+.2f} (bootstrap)"
    if test.images < 2:
        interval = "no interval"
    elif test.images < FEW_IMAGES:
        interval += ", which is too narrow for so few images"
    return (
        f"{interval}, {_spell(test.permutation_p)} (permutation; {_spell(one.p_holm)} by Holm), "
        f"{counted(test.questions, 'question')}, {counted(test.images, 'image')}"
    )


def _spell(p: float) -> str:
    spelled = format_p(p)
    return f"p {spelled}" if spelled.startswith("<") else f"p = {spelled}"


def _list_changes(split: SplitPair, questions: Mapping[int, str]) -> str:
    total = split.gained + split.lost + split.kept
    head = (
        f"  Of {total:,} questions B answers {split.gained:,} better, {split.lost:,} worse and {split.kept:,} "
        "equally well"
    )
    return "\n".join([head, *(_describe(change, questions) for change in split.changes)])


def _describe(change: Change, questions: Mapping[int, str]) -> str:
    asked = clean_line(questions.get(change.question_id, "?"))
    return (
        f"  {change.change:+7.1f}  {asked} [{change.question_id}, image {change.image_id}]  "
        f"humans: {_count(change.humans)}; A: {_count(change.before)}; B: {_count(change.after)}"
    )


def _count(answers: Mapping[str, int]) -> str:
    return ", ".join(clean_line(answer) + (f" x{times}" if times > 1 else "") for answer, times in answers.items())


def _conclude(pair: Pair) -> str:
    return "\n".join(["What can be said", *(f"  {line}" for split in pair.splits for line in _judge(split, pair))])


def _judge(split: SplitPair, pair: Pair) -> list[str]:
    """Give the verdict on a split, by its overall accuracy: over seeds, and over questions."""
    where = f"{split.domain} {split.split}"
    if not split.gained and not split.lost:
        return [f"{where}: the two are as accurate on every question"]
    lines = [_judge_seeds(split, pair), _judge_questions(split)]
    one = split.categories["all"]
    if one.seeds is not None and (one.seeds.p < CERTAIN) != (one.questions.permutation_p < CERTAIN):
        lines.append("only one of the two tests is significant: do not claim that B differs from A in general")
    return [f"{where}: {line}" for line in lines]


def _judge_seeds(split: SplitPair, pair: Pair) -> str:
    one = split.categories["all"]
    more, seeds = "more" if one.after > one.before else "less", one.seeds
    if seeds is None and _has_one_seed(pair):
        return "one side has only one seed, so this is about these models, not about the methods. Use --seeds 0-4"
    if seeds is None:
        return "all seeds give the same value, so nothing can be concluded about other seeds"
    if seeds.p < CERTAIN:
        strictly = f"also at the paper's {LEVEL}" if seeds.p < LEVEL else f"but not at the paper's {LEVEL}"
        return (
            f"trained again with other seeds, B would be {more} accurate than A on these questions "
            f"(p < {CERTAIN}, {strictly})"
        )
    return (
        "no difference between B and A is shown: other seeds may reverse the sign; differences from "
        f"{seeds.low:+.1f} to {seeds.high:+.1f} are compatible with these seeds"
    )


def _judge_questions(split: SplitPair) -> str:
    test = split.categories["all"].questions
    if test.permutation_p < CERTAIN:
        return "on other images of this kind, these models would differ in the same direction"
    return "these models may differ only on these images"

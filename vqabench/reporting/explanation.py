"""What can be concluded from two configurations, and what cannot, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from vqabench.evaluation.comparison import LEVEL
from vqabench.evaluation.pair import CategoryPair, Change, Pair, SplitPair
from vqabench.evaluation.rows import Row
from vqabench.reporting.grids import HEADS, spell_p

CERTAIN = 0.05
"""Below which a difference is called one."""


def explain(pair: Pair, questions: Mapping[int, str]) -> str:
    """Explain a pair; `questions` gives the wording of the questions that are listed, by their ids."""
    paragraphs = [_introduce(pair)]
    for split in pair.splits:
        paragraphs += [_explain_split(split, pair), _list_changes(split, questions)]
    return "\n\n".join(filter(None, [*paragraphs, _conclude(pair)]))


def explanation_to_json(pair: Pair, questions: Mapping[int, str]) -> dict[str, Any]:
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
        "text": explain(pair, questions),
    }


def _describe_side(row: Row) -> dict[str, Any]:
    return {"backbone": row.backbone, "strategy": row.strategy, "seeds": row.seeds, "brands": row.brands}


def _introduce(pair: Pair) -> str:
    lines = [
        f"A: {_name(pair.before)}, B: {_name(pair.after)}, on {pair.before.dataset}.",
        "Differences are B - A, in points of accuracy.",
        *(f"B is branded: {brand}." for brand in pair.after.brands),
        *(f"A is branded: {brand}." for brand in pair.before.brands),
    ]
    if pair.settings:
        lines.append(f"They differ in more than the strategy: {'; '.join(pair.settings)}.")
    return "\n".join(lines)


def _name(row: Row) -> str:
    count = len(row.seeds)
    return f"{row.backbone} {row.strategy} ({count} seed{'s' if count > 1 else ''})"


def _explain_split(split: SplitPair, pair: Pair) -> str:
    lines = [f"{split.domain.capitalize()} ({split.split})"]
    for category, one in split.categories.items():
        lines.append(f"  {HEADS[category]}: {one.before:.2f} -> {one.after:.2f} ({one.after - one.before:+.2f})")
        lines.append(f"    over seeds: {_over_seeds(one, pair)}")
        lines.append(f"    over questions: {_over_questions(one)}")
    return "\n".join(lines)


def _over_seeds(one: CategoryPair, pair: Pair) -> str:
    test = one.seeds
    if test is None:
        few = min(len(pair.before.seeds), len(pair.after.seeds)) < 2
        why = "a side has a single seed" if few else "the seeds do not vary"
        return f"no claim, {why}: how much a training by itself varies is not known"
    kind = "paired t-test" if test.paired else "Welch's t-test"
    effect = "" if test.effect is None else f", effect g = {test.effect:+.1f}"
    return f"95 % CI {test.low:+.2f} to {test.high:+.2f}, {_spell(test.p)} ({kind}){effect}"


def _over_questions(one: CategoryPair) -> str:
    test = one.questions
    return (
        f"95 % CI {test.low:+.2f} to {test.high:+.2f} (bootstrap), {_spell(test.permutation_p)} (permutation; "
        f"{_spell(one.p_holm)} by Holm over the categories), {test.questions:,} questions, {test.images:,} images"
    )


def _spell(p: float) -> str:
    spelled = spell_p(p)
    return f"p {spelled}" if spelled.startswith("<") else f"p = {spelled}"


def _list_changes(split: SplitPair, questions: Mapping[int, str]) -> str:
    total = split.gained + split.lost + split.kept
    head = (
        f"  of {total:,} questions B answers {split.gained:,} better, {split.lost:,} worse and {split.kept:,} alike"
    )
    return "\n".join([head, *(_describe(change, questions) for change in split.changes)])


def _describe(change: Change, questions: Mapping[int, str]) -> str:
    asked = questions.get(change.question_id, "?")
    return (
        f"  {change.change:+7.1f}  {asked} [{change.question_id}, image {change.image_id}]  "
        f"humans: {_count(change.humans)}; A: {_count(change.before)}; B: {_count(change.after)}"
    )


def _count(answers: Mapping[str, int]) -> str:
    return ", ".join(f"{answer} x{times}" if times > 1 else answer for answer, times in answers.items())


def _conclude(pair: Pair) -> str:
    return "\n".join(["What can be said", *(f"  {line}" for split in pair.splits for line in _judge(split, pair))])


def _judge(split: SplitPair, pair: Pair) -> list[str]:
    """Give the verdict on a split, by its overall accuracy: over seeds, and over questions."""
    one = split.categories["all"]
    more = "more" if one.after > one.before else "less"
    seeds, questions = one.seeds, one.questions
    where = split.domain
    lines = []
    if seeds is None:
        lines.append(f"{where}: nothing of the methods, only of these models; train both with several seeds")
    elif seeds.p < CERTAIN:
        strictly = f", also at the paper's {LEVEL}" if seeds.p < LEVEL else f", but not at the paper's {LEVEL}"
        lines.append(
            f"{where}: trained anew, B may be expected to be {more} accurate than A (p < {CERTAIN}{strictly})"
        )
    else:
        lines.append(
            f"{where}: that B differs from A cannot be concluded: other seeds might turn it round; "
            f"with these, differences from {seeds.low:+.1f} to {seeds.high:+.1f} are all compatible"
        )
    if questions.permutation_p < CERTAIN:
        lines.append(f"{where}: on other images of this kind, these very models would differ likewise")
    else:
        lines.append(f"{where}: these very models may differ on these images alone")
    return lines

"""Measure in real annotations what the embedded benchmark imitates: agreement, dissent, priors and the long tail.

    python studies/vqa_statistics.py ANNOTATIONS... [--seed 0]

reads official annotations files (JSON, also packed) and prints Markdown tables: how many of ten annotators agree,
what the others say, how steep the prior of a question type is in a re-split with changed priors, and how many
answers and question types there are. Answers are normalised as everywhere.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vqabench.data.catalog.changing_priors import groups_of, resplit
from vqabench.data.vqa.annotation_table import AnnotationTable, concatenate, read_annotation_table
from vqabench.data.vqa.answers import normalise

ANSWER_TYPES = ("yes/no", "number", "other")
TEST_SHARE = 1 / 3
"""Of VQA-CP v2's questions, the test has 219,928 of 658,111."""
LARGE = 200
"""Training questions that a type needs for its prior to be described."""
VOCABULARY = 9
"""Questions that an answer needs to belong to the vocabulary."""


def row(name: str, cells: Iterable[object]) -> str:
    return f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |"


def header(names: Sequence[str]) -> str:
    return f"\n| {' | '.join(names)} |\n|---{'|---:' * (len(names) - 1)}|"


def print_agreement(kinds: list[str], given_N10: list[list[str]]) -> None:
    print("\nShare of questions whose most common answer was given by n of ten annotators:")
    print(header(["answer type", *map(str, range(10, 0, -1)), "mean"]))
    for kind in ANSWER_TYPES:
        top = Counter(
            Counter(given).most_common(1)[0][1]
            for given, other in zip(given_N10, kinds, strict=True)
            if other == kind
        )
        mean = sum(count * share for count, share in top.items()) / top.total()
        shares = [f"{top[count] / top.total():.2f}" for count in range(10, 0, -1)]
        print(row(kind, [*shares, f"{mean:.1f}"]))


def print_dissent(kinds: list[str], types: list[str], modal: list[str], given_N10: list[list[str]]) -> None:
    """Print what annotators say who do not give the most common answer."""
    known: dict[str, Counter[str]] = defaultdict(Counter)
    for question_type, answer in zip(types, modal, strict=True):
        known[question_type][answer] += 1
    everywhere = Counter(modal)
    print("\nAnswers of those who do not give the most common one, in percent:")
    names = [
        "answer type",
        "most common second answer",
        "other answers of the type",
        "of other types",
        "in no type",
    ]
    print(header([*names, "distinct"]))
    near: Counter[str] = Counter()
    for kind in ANSWER_TYPES:
        places: Counter[str] = Counter()
        distinct = []
        for question_type, answer, given, other in zip(types, modal, given_N10, kinds, strict=True):
            if other != kind:
                continue
            dissent = Counter(given)
            del dissent[answer]
            distinct.append(len(dissent))
            second = dissent.most_common(1)[0][0] if dissent else ""
            for said, times in dissent.items():
                if kind == "number" and said.isdigit() and answer.isdigit():
                    near[min(abs(int(said) - int(answer)), 4)] += times  # type: ignore[index]
                elif kind == "number":
                    near["words"] += times
                if said == second and times > 1:
                    places["second"] += times
                elif said in known[question_type]:
                    places["type"] += times
                elif said in everywhere:
                    places["others"] += times
                else:
                    places["none"] += times
        total = places.total()
        shares = [f"{100 * places[name] / total:.0f}" for name in ("second", "type", "others", "none")]
        print(row(kind, [*shares, f"{np.mean(distinct):.1f}"]))
    total = near.total()
    parts = ", ".join(f"{name}: {100 * count / total:.0f} %" for name, count in sorted(near.items(), key=str))
    print(f"\nDissenting numbers by their distance (4: four and more): {parts}.")


def print_priors(table: AnnotationTable, kinds: list[str], seed: int) -> None:
    """Print the share of a type's most frequent answers in training, and in the test, of a re-split."""
    groups = groups_of(table)
    in_test = resplit(groups, TEST_SHARE, seed)
    sides: dict[bool, dict[str, Counter[str]]] = {False: defaultdict(Counter), True: defaultdict(Counter)}
    kind_of: dict[str, Counter[str]] = defaultdict(Counter)
    for (question_type, answer), test, kind in zip(groups, in_test, kinds, strict=True):
        sides[test][question_type][answer] += 1
        kind_of[question_type][kind] += 1
    print(f"\nShare of the k-th most frequent training answer of a type (types with {LARGE} training questions),")
    print("and the share that these answers have in the test. Slope: of log share over log k, ranks 1 to 10.")
    print(header(["answer type", "types", "side", *(f"k = {k}" for k in (1, 2, 3, 5, 10)), "slope"]))
    for kind in ANSWER_TYPES:
        names = [
            name
            for name, counts in sides[False].items()
            if kind_of[name].most_common(1)[0][0] == kind and counts.total() >= LARGE
        ]
        shares = np.zeros((2, len(names), 10))
        for index, name in enumerate(names):
            ranked = [answer for answer, _ in sides[False][name].most_common(10)]
            for side in (False, True):
                counts = sides[side].get(name, Counter[str]())
                shares[int(side), index, : len(ranked)] = [counts[a] / max(1, counts.total()) for a in ranked]
        means = shares.mean(1)
        for number, label in enumerate(("train", "test")):
            slope = np.polyfit(np.log(np.arange(1, 11)), np.log(means[number].clip(1e-4)), 1)[0]
            cells = [f"{100 * means[number][k - 1]:.1f}" for k in (1, 2, 3, 5, 10)]
            print(row(kind, [len(names), label, *cells, f"{slope:.2f}"]))
    binary = [
        max(counts["yes"], counts["no"]) / max(1, counts["yes"] + counts["no"])
        for counts in sides[False].values()
        if counts["yes"] + counts["no"] >= LARGE
    ]
    print(
        f"\nYes or no in training, {len(binary)} types: the more frequent one has "
        f"{100 * np.mean(binary):.0f} % on average ({100 * np.quantile(binary, 0.25):.0f} to "
        f"{100 * np.quantile(binary, 0.75):.0f}, quartiles)."
    )


def print_tail(types: list[str], modal: list[str]) -> None:
    sizes, answers = Counter(types), Counter(modal)
    kept = {answer for answer, count in answers.items() if count >= VOCABULARY}
    homes: dict[str, set[str]] = defaultdict(set)
    per_pair = Counter(zip(types, modal, strict=True))
    for (question_type, answer), count in per_pair.items():
        if count >= 3:
            homes[answer].add(question_type)
    ranked = [count for _, count in answers.most_common()]
    total = len(modal)
    print(f"\nAnswers: {len(answers):,}, of which {len(kept):,} are the most common one of {VOCABULARY} questions.")
    for first in (2, 10, 50, 150, 500):
        print(f"- the {first} most frequent answer {100 * sum(ranked[:first]) / total:.0f} % of the questions;")
    spread = Counter(min(len(homes[answer]), 5) for answer in kept)
    parts = ", ".join(f"{n}{' and more' if n == 5 else ''}: {100 * spread[n] / len(kept):.0f} %" for n in range(6))
    print(f"- question types in which an answer of the vocabulary occurs 3 times: {parts}.")
    shares = np.array([count / total for _, count in sizes.most_common()])
    print(
        f"\nQuestion types: {len(sizes)}; the largest has {100 * shares[0]:.1f} % of the questions, the median "
        f"{100 * np.median(shares):.2f} %, the smallest {100 * shares[-1]:.2f} %."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the re-split")
    arguments = parser.parse_args()
    table = concatenate([read_annotation_table(path) for path in arguments.annotations])
    print(f"{len(table):,} questions")
    kinds, types, modal = (
        column.strings() for column in (table.answer_types, table.question_types, table.modal_answers)
    )
    flat = table.answers.regroup(normalise)
    given_N10 = [[flat.names[code] for code in codes] for codes in flat.codes.tolist()]
    print_agreement(kinds, given_N10)
    print_dissent(kinds, types, modal, given_N10)
    print_priors(table, kinds, arguments.seed)
    print_tail(types, modal)


if __name__ == "__main__":
    main()

"""Accuracy against the rules of GT-Vision-Lab/VQA `vqaEval.py`, written anew over records as files hold them."""

from __future__ import annotations

import json
import operator
import random
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from vqabench.data.vqa.accuracy import question_accuracies
from vqabench.data.vqa.annotation_table import AnnotationTable, read_annotation_table
from vqabench.data.vqa.result_files import read_results
from vqabench.evaluation.scores import score

TABLES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "official_tables.json").read_text())
QUESTIONS = 10_000
Record = dict[str, Any]


class Official:
    """The evaluation of raw records, step by step as the official code takes them."""

    def __init__(self) -> None:
        self.period, self.comma = re.compile(TABLES["period_pattern"]), re.compile(TABLES["comma_pattern"])
        self.numbers = dict(TABLES["number_words"])

    def accuracy(self, records: list[Record], answer: str) -> float:
        for record in records:
            record["answer"] = record["answer"].replace("\n", " ").replace("\t", " ").strip()
        answer = answer.replace("\n", " ").replace("\t", " ").strip()
        if len({record["answer"] for record in records}) > 1:
            for record in records:
                record["answer"] = self.words(self.punctuation(record["answer"]))
            answer = self.words(self.punctuation(answer))
        accuracies = []
        for record in records:
            others = [other for other in records if other != record]
            accuracies.append(min(1, float(len([other for other in others if other["answer"] == answer])) / 3))
        return add(accuracies) / len(accuracies)

    def punctuation(self, text: str) -> str:
        out = text
        for mark in TABLES["punctuation"]:
            if mark + " " in text or " " + mark in text or self.comma.search(text) is not None:
                out = out.replace(mark, "")
            else:
                out = out.replace(mark, " ")
        return self.period.sub("", out, count=int(re.UNICODE))

    def words(self, text: str) -> str:
        words = [self.numbers.setdefault(word, word) for word in text.lower().split()]
        words = [word for word in words if word not in TABLES["articles"]]
        return " ".join(TABLES["contractions"].get(word, word) for word in words)


def add(values: list[float]) -> float:
    """Add one by one, rounding each time: from Python 3.12 on, `sum` does not."""
    return reduce(operator.add, values, 0.0)


ATOMS = (
    *("yes", "no", "two", "2", "none", "0", "red", "Red", "dont", "couldn'tve", "a", "an", "the", "The", "1,000"),
    *("3.14", ".5", "t.v.", "o'clock", "x" + "." * 40, "ünï", "İ", "ß", "日本", "\ud83d", "\ud83d\ude00", "\u2028"),
    *(
        "one-way",
        "black/white",
        "?",
        "!",
        "`",
        "@",
        ",",
        " ",
        "\t",
        "\n",
        "\u00a0",
        "\u3000",
        "\x1f",
        "",
        "\\",
        '"',
    ),
)
VALUES: tuple[Any, ...] = (
    *("yes", "maybe", "no", "", None, True, False, 0, 1, 1.0, -0.0, 2**70, 1e400, float("nan")),
    *([1, 2], [1.0, 2], [True, 2], {"a": 1}, {"a": 1.0}, {"b": None}, {"a": [float("nan")]}, "1", [], {}),
)
KEYS = ("answer_id", "answer_confidence", "worker_id", "time", "answers", "Answer", "answer ", "others", "", "ключ")


def spell(generator: random.Random) -> str:
    return generator.choice(("", " ")).join(generator.choices(ATOMS, k=generator.randint(0, 4)))


def make_records(generator: random.Random) -> list[Record]:
    """Make ten records in one of the ways in which files tell them apart, or do not."""
    texts = [spell(generator) for _ in range(generator.choice((1, 1, 2, 3, 10)))]
    texts += [f" {texts[0]}\t", texts[0].upper()] * generator.choice((0, 0, 1))
    ids = generator.choice(
        (
            lambda place: {"answer_confidence": generator.choice(("yes", "maybe")), "answer_id": place},
            lambda place: {"answer_id": place + 1, "worker_id": generator.choice(VALUES)},
            lambda place: {"worker_id": f"w{place}"},
            lambda _: {},
            lambda _: {"answer_confidence": generator.choice(("yes", "no"))},
            lambda place: {"answer_id": generator.choice((place, place, 1, 1.0, True, None))},
            lambda _: {generator.choice(KEYS): generator.choice(VALUES) for _ in range(generator.randint(0, 2))},
        )
    )
    records = [{"answer": generator.choice(texts), **ids(place)} for place in range(10)]
    for record in records:  # keys in any order: they bear on nothing
        if generator.random() < 0.3:
            record["answer"] = record.pop("answer")
    return records


@pytest.fixture(scope="module")
def raw() -> tuple[str, str]:
    """Write annotations and results as text."""
    generator = random.Random(20)
    annotations, results = [], []
    for number in range(QUESTIONS):
        records = make_records(generator)
        kind = generator.choice(("yes/no", "number", "other", "OPEN"))
        annotations.append(
            {
                "question_id": number,
                "image_id": number,
                "question_type": generator.choice(("is it", "how many", "what")),
                "answer_type": kind,
                "answers": records,
                "multiple_choice_answer": records[0]["answer"],
            }
        )
        copied = generator.random() < 0.8
        results.append(
            {"question_id": number, "answer": generator.choice(records)["answer"] if copied else spell(generator)}
        )
    return json.dumps({"info": {}, "annotations": annotations}), json.dumps(results)


@pytest.fixture(scope="module")
def official(raw: tuple[str, str]) -> list[float]:
    evaluation = Official()
    annotations, results = json.loads(raw[0])["annotations"], json.loads(raw[1])
    return [
        evaluation.accuracy(asked["answers"], result["answer"])
        for asked, result in zip(annotations, results, strict=True)
    ]


@pytest.fixture(scope="module")
def read(raw: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[AnnotationTable, dict[int, str]]:
    folder = tmp_path_factory.mktemp("raw")
    (folder / "annotations.json").write_text(raw[0])
    (folder / "results.json").write_text(raw[1])
    results = read_results(folder / "results.json")
    return read_annotation_table(folder / "annotations.json"), {one.question_id: one.answer for one in results}


def test_ten_thousand_raw_questions_are_scored_to_the_bit_as_the_official_rules_score_them(
    read: tuple[AnnotationTable, dict[int, str]], official: list[float]
) -> None:
    table, answers = read
    accuracies = question_accuracies([answers[n] for n in range(QUESTIONS)], table.answers, table.records)
    assert accuracies.tolist() == official
    assert len(set(official)) > 15  # the questions are of many kinds
    assert 0.1 < sum(value == 0 for value in official) / QUESTIONS < 0.7


def test_their_means_are_the_official_ones_for_every_type(
    raw: tuple[str, str], read: tuple[AnnotationTable, dict[int, str]], official: list[float]
) -> None:
    table, answers = read
    scores = score(answers, table)
    found: dict[str, float | None] = {name: scored.accuracy for name, scored in scores.per_question_type.items()}
    found |= scores.accuracy | {name: scored.accuracy for name, scored in scores.other_answer_types.items()}
    groups: dict[str, list[float]] = {"all": official}
    for asked, accuracy in zip(json.loads(raw[0])["annotations"], official, strict=True):
        for key in ("question_type", "answer_type"):
            groups.setdefault(asked[key], []).append(accuracy)
    assert found == {name: 100 * add(values) / len(values) for name, values in groups.items()}

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import CommandLine
from tests.evaluation.tables import LISTS, Asked, ask, repeat
from vqabench.data.vqa.accuracy import mean_percent, question_accuracies
from vqabench.data.vqa.annotation_table import AnnotationTable, tabulate
from vqabench.data.vqa.annotations import read_annotations
from vqabench.data.vqa.answers import vocabulary
from vqabench.data.vqa.encoding import count_human_answers
from vqabench.evaluation.prior import GROUPS, TrainPrior, count_train_prior, group_questions
from vqabench.evaluation.run_answers import Breakdown, RunAnswers, break_down, read_answered, upper_bound
from vqabench.evaluation.scores import Scores
from vqabench.files.atomic import read_json
from vqabench.paths import Paths
from vqabench.results import Run, find_runs

VOCABULARY = ("yes", "no", "2")


def answer(table: AnnotationTable, answers: list[str], sure: float | None = None) -> RunAnswers:
    accuracies_N = question_accuracies(answers, table.answers, table.records)
    return RunAnswers(answers, accuracies_N, None if sure is None else np.full(len(answers), sure))


@given(LISTS, LISTS, st.data())
def test_the_groups_share_out_questions_and_accuracy(
    train: list[Asked], questions: list[Asked], data: st.DataObject
) -> None:
    given_ = st.lists(st.sampled_from(["yes", "no", "2"]), min_size=len(questions), max_size=len(questions))
    table, answers = ask(questions), data.draw(given_)
    prior = count_train_prior(ask(train))
    found = break_down(answer(table, answers), table, prior, VOCABULARY)
    right = [given == true for given, (_, true) in zip(answers, questions, strict=True)]
    for name, own_N in group_questions(table, prior).items():
        own = [hit for hit, inside in zip(right, own_N, strict=True) if inside]
        assert found["accuracy", "prior", name] == (pytest.approx(100 * np.mean(own)) if own else None)
    known = {kind for kind, _ in train}
    groups = group_questions(table, prior)
    for partition in (GROUPS[:2], GROUPS[2:]):
        assert sum(groups[name].sum() for name in partition) == sum(kind in known for kind, _ in questions)
    assert found["calibration error", "prior", "all"] is None
    assert found["upper bound", "prior", "all"] == pytest.approx(
        100 * np.mean([true in VOCABULARY for _, true in questions])
    )


def test_a_breakdown_has_the_calibration_of_stored_confidences() -> None:
    table = ask(repeat("is the", {"yes": 1, "no": 3}))
    prior = count_train_prior(ask(repeat("is the", {"yes": 3, "no": 1})))
    found = break_down(answer(table, ["yes"] * 4, sure=0.5), table, prior, VOCABULARY)
    assert found["calibration error", "prior", "all"] == pytest.approx(25)
    assert found["overconfidence", "prior", "all"] == pytest.approx(25)


def test_no_questions_have_no_numbers() -> None:
    found = break_down(answer(ask([]), [], sure=0.5), ask([]), count_train_prior(ask([])), VOCABULARY)
    assert set(found.values()) == {None}


def test_the_upper_bound_of_real_questions_is_that_of_their_soft_targets(samples: Path) -> None:
    table = tabulate(read_annotations(samples / "vqa-v2" / "v2_mscoco_train2014_annotations.60000.json.gz"))
    answers = vocabulary(table.modal_answers.counts(), 9)
    given = count_human_answers(table.answers, {text: number for number, text in enumerate(answers)})
    bound = upper_bound(table, answers)
    # The evaluation normalises nothing where all ten agree: "1 way" of the vocabulary misses ten times "one way".
    assert bound is not None
    reachable = np.zeros(len(table))
    np.maximum.at(reachable, given.questions, given.targets)
    assert 0 < 100 * reachable.mean() - bound < 0.02


TRAINED = (["prior"], ["inverted-prior"], ["updn", "--epochs", "2", "--set", "hidden=32", "--set", "embedding=32"])


@pytest.mark.slow
def test_on_the_embedded_benchmark_the_numbers_tell_who_relies_on_the_prior(
    cli: CommandLine, tmp_path: Path
) -> None:
    for arguments in TRAINED:
        assert cli("train", *arguments).returncode == 0
    dataset = Paths(data=tmp_path / "data").dataset("digits-cp")
    tables = {split: dataset.read_split(split)[1] for split in ("train", "val", "test")}
    prior = count_train_prior(tables["train"])
    answers = vocabulary(tables["train"].modal_answers.counts(), dataset.entry.minimum_answer_count)
    runs = {run.read_manifest().backbone: run for run in find_runs([tmp_path / "runs"])}
    inside, outside = (
        {name: _break_down(run, split, tables[split], prior, answers) for name, run in runs.items()}
        for split in ("val", "test")
    )
    reliance = {name: found["reliance", "prior", "all"] or 0 for name, found in outside.items()}
    assert reliance["prior"] > 1.5
    assert 1 < reliance["updn"] < reliance["prior"]
    assert abs(reliance["inverted-prior"]) < 0.4
    for found in inside.values():
        assert found["reliance", "prior", "all"] is None
        assert found["upper bound", "prior", "all"] == pytest.approx(100, abs=0.1)
    with_, against = (outside["prior"]["accuracy", "prior", name] for name in GROUPS[2:])
    assert with_ == 100
    assert against is not None
    assert against < 20
    sure = [found["updn"]["overconfidence", "prior", "all"] for found in (inside, outside)]
    assert sure[0] is not None
    assert sure[1] is not None
    assert sure[0] < -10 < 0 < sure[1]


def _break_down(
    run: Run, split: str, table: AnnotationTable, prior: TrainPrior, answers: tuple[str, ...]
) -> Breakdown:
    asked, answered = read_answered(run, split, table)
    scores = read_json(run.scores_file, dict[str, Scores], "damaged")[split]
    assert len(answered.answers) == scores.questions
    assert mean_percent(answered.accuracies_N) == scores.accuracy["all"]
    return break_down(answered, asked, prior, answers)

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runs import QUESTIONS, TABLE, annotate, read, side, write_answers, write_rows
from vqabench.data.vqa.annotations import SurePrediction, write_predictions
from vqabench.errors import InputError
from vqabench.evaluation.comparison import compare
from vqabench.evaluation.pair import Pair, compare_pair
from vqabench.evaluation.rows import Row
from vqabench.evaluation.significance import compare_questions
from vqabench.results import Run, find_runs


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Row, Row]:
    return write_rows(tmp_path)


def accuracies(row: Row) -> NDArray[np.float64]:
    found = [read(run, manifest, "test")[1] for run, manifest in zip(row.runs, row.manifests, strict=True)]
    return sum((answered.accuracies_N for answered in found), np.zeros(QUESTIONS)) / len(found)


def only_split(pair: Pair) -> Any:
    (split,) = pair.splits
    return split


def test_a_difference_is_tested_over_questions_by_image_and_over_seeds(rows: tuple[Row, Row]) -> None:
    split = only_split(compare_pair(*rows, read))
    assert split.domain == "out-of-domain"
    assert set(split.categories) == {"yes/no", "number", "all"}  # no question is of the third kind
    images = np.array(TABLE.image_ids)
    yes = np.array(TABLE.answer_types.strings()) == "yes/no"
    for category, own in (("all", slice(None)), ("yes/no", yes)):
        one = split.categories[category]
        before, after = (accuracies(row)[own] for row in rows)
        assert one.questions == compare_questions(after, before, images[own])
        assert one.after - one.before == pytest.approx(one.questions.difference)
        cell = rows[1].cells["test", "accuracy", "answer-type", category]
        assert one.seeds is not None
        assert cell.test is not None
        assert one.seeds.p == cell.test.p
        assert one.p_holm >= one.questions.permutation_p


def test_questions_that_changed_are_counted_and_the_most_changed_are_listed(rows: tuple[Row, Row]) -> None:
    split = only_split(compare_pair(*rows, read, listed=3))
    changes = accuracies(rows[1]) - accuracies(rows[0])
    assert split.gained == (changes > 1e-9).sum()
    assert split.lost == (changes < -1e-9).sum()
    assert split.gained + split.lost + split.kept == QUESTIONS
    assert [np.sign(change.change) for change in split.changes] == [1, 1, 1, -1, -1, -1]
    for change in split.changes:
        assert change.change == pytest.approx(100 * changes[change.question_id])
        assert abs(change.change) == pytest.approx(100 * max(np.sign(change.change) * changes))
        humans = [answer.answer for answer in annotate(change.question_id).answers]
        assert change.humans == {answer: humans.count(answer) for answer in dict.fromkeys(humans)}
        assert sum(change.before.values()) == sum(change.after.values()) == 3


def test_turned_round_everything_has_the_other_sign(rows: tuple[Row, Row]) -> None:
    there, back = only_split(compare_pair(*rows, read)), only_split(compare_pair(rows[1], rows[0], read))
    assert (there.gained, there.lost) == (back.lost, back.gained)
    for category, one in there.categories.items():
        other = back.categories[category]
        assert (one.before, one.after) == (other.after, other.before)
        assert one.questions.permutation_p == other.questions.permutation_p
        assert one.questions.low == pytest.approx(-other.questions.high)


def test_what_differs_beside_the_strategy_is_told(tmp_path: Path) -> None:
    given = side(range(100), 0)
    write_answers(tmp_path / "a", given)
    recipe = {"epochs": 4, "batch_size": 64}
    options = {"backbone": {"hidden": 16}}
    longer = {"recipe": recipe, "stages": [{"name": "train", "loss": "rescale", "epochs": 4}]}
    write_answers(tmp_path / "b", given, loss="rescale", precision="bfloat16", options=options, **longer)
    before, after = (compare(find_runs([tmp_path / name])).rows[0] for name in ("a", "b"))
    assert compare_pair(before, after, read).settings == (
        "precision float32 against bfloat16",
        "epochs 0 against 4",
        "backbone.hidden 8 against 16",
        "recipe.batch_size None against 64",
    )


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    write_answers(tmp_path / "a", side(range(100), 0))
    write_answers(tmp_path / "b", side(range(100), 0), loss="focal", fingerprint="g")
    write_answers(tmp_path / "c", [*side(range(100), 0)[:-1], "2"], loss="mask")
    run = Run(next((tmp_path / "c").iterdir()))
    write_predictions(run.predictions_file("test"), [SurePrediction(n, "2") for n in range(QUESTIONS - 1)])
    a, b, c = (compare(find_runs([tmp_path / name])).rows[0] for name in ("a", "b", "c"))
    with pytest.raises(InputError, match="were trained on different data"):
        compare_pair(a, b, read)
    with pytest.raises(InputError, match="both are the same configuration"):
        compare_pair(a, a, read)
    with pytest.raises(InputError, match="answer different questions of test"):
        compare_pair(a, c, read)

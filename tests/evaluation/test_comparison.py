from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from tests.runs import write_run
from vqabench.errors import InputError
from vqabench.evaluation.comparison import Comparison, compare
from vqabench.evaluation.rows import Row
from vqabench.evaluation.run_answers import Breakdown
from vqabench.evaluation.scores import CATEGORIES, Scores, TypeScore
from vqabench.results import Manifest, Run, find_runs


def by_loss(comparison: Comparison) -> dict[str, Row]:
    return {row.loss: row for row in comparison.rows}


ALL = ("test", "accuracy", "answer-type", "all")


def test_a_row_has_mean_and_sample_deviation_over_its_seeds(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((40.0, 42.0, 47.0)):
        write_run(tmp_path, accuracy, seed=seed)
    (row,) = compare(find_runs([tmp_path])).rows
    assert row.seeds == (0, 1, 2)
    assert row.cells[ALL].mean == pytest.approx(43)
    assert row.cells[ALL].deviation == pytest.approx(13**0.5)


def test_a_gain_is_against_plain_in_the_same_setting_alone(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0)
    write_run(tmp_path, 30.0, label="hidden=4", options={"backbone": {"hidden": 4}})
    write_run(tmp_path, 50.0, loss="rescale")
    write_run(tmp_path, 55.0, loss="mask", recipe={"epochs": 9}, label="epochs=9")
    rows = by_loss(compare(find_runs([tmp_path])))
    assert rows["rescale"].cells[ALL].gain == pytest.approx(10)
    assert rows["mask"].cells[ALL].gain is None


def test_a_second_stage_is_the_strategys_own_and_a_start_from_another_run_is_not(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, recipe={"epochs": 3, "finetune_epochs": 2})
    write_run(tmp_path, 50.0, loss="mask+rescale", recipe={"epochs": 3, "finetune_epochs": 9})
    write_run(tmp_path, 60.0, loss="rescale", label="from=x", start_from="runs/d/updn/ce-plain/seed-0")
    write_run(tmp_path, 45.0, loss="focal", precision="bfloat16", label="precision=bfloat16")
    rows = by_loss(compare(find_runs([tmp_path])))
    assert rows["mask+rescale"].cells[ALL].gain == pytest.approx(10)
    assert rows["rescale"].cells[ALL].gain is None
    assert rows["focal"].cells[ALL].gain is None


def test_a_question_type_may_be_named_like_an_answer_type(tmp_path: Path) -> None:
    run = write_run(tmp_path, 40.0)
    form = Scores(10, dict.fromkeys(CATEGORIES, 40.0), dict.fromkeys(CATEGORIES), {"number": TypeScore(4, 90.0)})
    run.scores_file.write_bytes(msgspec.json.encode({"test": form}))
    (row,) = compare(find_runs([tmp_path])).rows
    assert row.cells["test", "accuracy", "answer-type", "number"].mean == 40
    assert row.cells["test", "accuracy", "question-type", "number"].mean == 90


def test_runs_with_other_defaults_are_no_seeds_of_one_row(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, seed=0, options={"backbone": {"hidden": 8}})
    write_run(tmp_path, 60.0, seed=1, options={"backbone": {"hidden": 16}})
    comparison = compare(find_runs([tmp_path]))
    assert [row.seeds for row in comparison.rows] == [(0,), (1,)]
    assert any("rows with the same name differ" in note for note in comparison.notes)


def test_a_run_chosen_on_test_is_never_the_best(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, 40.0, seed=seed)
        write_run(tmp_path, 45.0, seed=seed, loss="focal")
        write_run(tmp_path, 90.0, seed=seed, loss="rescale", select="test", label="select=test")
    rows = by_loss(compare(find_runs([tmp_path])))
    assert [loss for loss, row in rows.items() if row.cells[ALL].best] == ["focal"]


def test_plain_gains_nothing_on_plain(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0)
    write_run(tmp_path, 42.0, label="another")
    assert [row.cells[ALL].gain for row in compare(find_runs([tmp_path])).rows] == [None, None]


def best_of(folder: Path) -> list[str]:
    return [loss for loss, row in by_loss(compare(find_runs([folder]))).items() if row.cells[ALL].best]


def test_the_best_of_each_column_is_marked_where_several_seeds_make_it_a_claim(tmp_path: Path) -> None:
    seeds(tmp_path, "plain", PLAIN)
    assert best_of(tmp_path) == []  # of one row there is no best
    write_run(tmp_path, 45.0, loss="focal")
    assert best_of(tmp_path) == []
    seeds(tmp_path, "rescale", BETTER)
    assert best_of(tmp_path) == ["rescale"]
    write_run(tmp_path, 90.0, loss="mask")  # a single seed is higher: neither is the best
    assert best_of(tmp_path) == []


def test_all_that_share_the_best_number_are_marked(tmp_path: Path) -> None:
    for loss, accuracy in {"plain": 50.0, "focal": 50.0, "rescale": 40.0}.items():
        seeds(tmp_path, loss, [accuracy, accuracy])
    assert best_of(tmp_path) == ["plain", "focal"]


def test_runs_that_began_with_other_weights_are_no_seeds_of_one_row(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, seed=0, pretraining=["weights 1 have seen it"])
    write_run(tmp_path, 60.0, seed=1, pretraining=["weights 2 have seen it"])
    assert [row.seeds for row in compare(find_runs([tmp_path])).rows] == [(0,), (1,)]


def test_a_gain_is_against_plain_from_the_same_weights(tmp_path: Path) -> None:
    for number, plain in ((1, 40.0), (2, 60.0)):
        write_run(tmp_path / str(number), plain, pretraining=[f"weights {number}"])
        write_run(tmp_path / str(number), 65.0, loss="focal", pretraining=[f"weights {number}"])
    gains = [row.cells[ALL].gain for row in compare(find_runs([tmp_path])).rows if row.loss == "focal"]
    assert gains == [25.0, 5.0]


def test_where_rows_are_branded_for_several_reasons_each_names_its_rows(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, select="test", label="select=test")
    assert compare(find_runs([tmp_path])).notes[0].startswith("‡ the epoch was chosen on the test split: not")
    write_run(tmp_path, 60.0, loss="focal", pretraining=["it has seen the test"])
    notes = compare(find_runs([tmp_path])).notes
    assert "‡ updn ce-plain @select=test: the epoch was chosen on the test split: not comparable" in notes[0]
    assert "‡ updn ce-focal: it has seen the test: not comparable" in notes[1]


def test_a_number_that_a_seed_leaves_undefined_has_no_mean(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, seed=0)
    write_run(tmp_path, None, seed=1)
    (row,) = compare(find_runs([tmp_path])).rows
    assert row.cells[ALL].mean is None


def test_what_is_not_finished_or_is_damaged_is_left_out_and_told(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, seed=0)
    write_run(tmp_path, 41.0, seed=1, status="stopped")
    write_run(tmp_path, 42.0, seed=2).scores_file.write_text("{")
    write_run(tmp_path, 43.0, seed=3).manifest_file.write_text("{}")
    comparison = compare(find_runs([tmp_path]))
    assert comparison.rows[0].seeds == (0,)
    *damaged, stopped = comparison.left_out
    assert stopped == f"left out, stopped: {tmp_path / 'plain--1'}"
    for message, name in zip(damaged, ("plain--2", "plain--3"), strict=True):
        assert message.startswith("left out, damaged: ")
        assert name in message


def test_runs_on_other_states_of_the_data_are_told(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0)
    write_run(tmp_path, 50.0, loss="rescale", fingerprint="g")
    write_run(tmp_path, 45.0, seed=1, fingerprint="g")
    comparison = compare(find_runs([tmp_path]))
    assert any("2 different versions of the data" in note for note in comparison.notes)
    plain = [row for row in comparison.rows if row.plain]
    assert [row.seeds for row in plain] == [(0,), (1,)]  # no mean over both
    assert by_loss(comparison)["rescale"].cells[ALL].gain == pytest.approx(5)


def test_a_seed_counts_once_however_often_it_is_given(tmp_path: Path) -> None:
    write_run(tmp_path / "first", 40.0)
    write_run(tmp_path / "copy", 40.0)
    comparison = compare(find_runs([tmp_path / "first", tmp_path / "copy"]))
    assert [row.seeds for row in comparison.rows] == [(0,)]
    assert any(
        "another run with this seed is already in the row" in message and "copy" in message
        for message in comparison.left_out
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("scores.json", '{"test": {"questions": 1, "accuracy": {"all": 1}, "kappa": {}, "per_question_type": {}}}'),
        ("run.json", '"options": {}'),
    ],
)
def test_files_that_lack_a_part_are_damaged(tmp_path: Path, file: str, content: str) -> None:
    write_run(tmp_path, 40.0)
    path = write_run(tmp_path, 50.0, seed=1).folder / file
    if file == "run.json":
        manifest = msgspec.json.decode(path.read_bytes())
        content = msgspec.json.encode(manifest | {"options": {}}).decode()
    path.write_text(content)
    comparison = compare(find_runs([tmp_path]))
    assert [row.seeds for row in comparison.rows] == [(0,)]
    assert any(message.startswith("left out, damaged: ") and file in message for message in comparison.left_out)


def test_a_single_seed_is_no_claim_and_a_branded_run_is_marked(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, select="test")
    comparison = compare(find_runs([tmp_path]))
    assert comparison.rows[0].branded
    assert "Only one seed, so gains are not tested. Use --seeds 0-4." in comparison.gain_notes
    assert any("chosen on the test split" in note for note in comparison.notes)


def seeds(folder: Path, loss: str, accuracies: list[float], first: int = 0, **changes: Any) -> None:
    for seed, accuracy in enumerate(accuracies, first):
        write_run(folder, accuracy, seed=seed, loss=loss, **changes)


PLAIN, BETTER, LEVEL = [40.0, 41.5, 40.75], [50.25, 51.0, 50.0], [40.5, 41.25, 40.0]


def test_equal_seeds_are_tested_in_pairs_and_others_by_welch(tmp_path: Path) -> None:
    seeds(tmp_path, "plain", PLAIN)
    seeds(tmp_path, "rescale", BETTER)
    seeds(tmp_path, "focal", [*LEVEL, 42.0], first=3)
    rows = by_loss(compare(find_runs([tmp_path])))
    for loss, ours, expected in (
        ("rescale", BETTER, stats.ttest_rel(BETTER, PLAIN)),
        ("focal", [*LEVEL, 42.0], stats.ttest_ind([*LEVEL, 42.0], PLAIN, equal_var=False)),
    ):
        cell = rows[loss].cells[ALL]
        assert cell.test is not None
        assert cell.test.paired == (loss == "rescale")
        assert cell.gain == pytest.approx(np.mean(ours) - np.mean(PLAIN))
        assert cell.test.p == pytest.approx(expected.pvalue)
        interval = expected.confidence_interval(0.95)
        assert (cell.test.low, cell.test.high) == pytest.approx((interval.low, interval.high))


def test_p_values_are_corrected_for_the_rows_of_their_column_alone(tmp_path: Path) -> None:
    for dataset in ("d", "e"):
        seeds(tmp_path / dataset, "plain", PLAIN, dataset=dataset)
        seeds(tmp_path / dataset, "rescale", BETTER, dataset=dataset)
    seeds(tmp_path / "d", "focal", LEVEL)
    rows = {(row.dataset, row.loss): row.cells[ALL].test for row in compare(find_runs([tmp_path])).rows}
    better, level, alone = rows["d", "rescale"], rows["d", "focal"], rows["e", "rescale"]
    assert better is not None
    assert level is not None
    assert alone is not None
    assert better.p_holm == pytest.approx(2 * better.p)
    assert level.p_holm == pytest.approx(max(level.p, 2 * better.p))
    assert alone.p_holm == alone.p == better.p


def test_one_seed_on_either_side_makes_no_claim(tmp_path: Path) -> None:
    seeds(tmp_path, "plain", PLAIN)
    seeds(tmp_path, "rescale", [60.0])
    comparison = compare(find_runs([tmp_path]))
    cell = by_loss(comparison)["rescale"].cells[ALL]
    assert cell.gain is not None
    assert cell.test is None
    message = "Only one seed of updn ce-rescale, so gains with it are not tested. Use --seeds 0-4."
    assert message in comparison.gain_notes
    assert comparison.marks == ()


def test_seeds_that_never_vary_make_no_claim(tmp_path: Path) -> None:
    seeds(tmp_path, "plain", [40.0, 40.0])
    seeds(tmp_path, "rescale", [50.0, 50.0])
    assert by_loss(compare(find_runs([tmp_path])))["rescale"].cells[ALL].test is None


def test_a_cell_keeps_the_number_of_each_seed_in_their_order(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        write_run(tmp_path, 40.0 + seed, seed=seed)
    (row,) = compare(find_runs([tmp_path])).rows
    assert row.seeds == (0, 1, 2)
    assert row.cells[ALL].values == (40.0, 41.0, 42.0)
    assert [manifest.seed for manifest in row.manifests] == [0, 1, 2]


def test_of_several_plain_rows_in_one_setting_gains_are_against_the_likest(tmp_path: Path) -> None:
    seeds(tmp_path, "plain", PLAIN)
    seeds(tmp_path, "plain", [30.0, 31.0, 32.0], first=7, label="precision=float32")
    seeds(tmp_path, "rescale", BETTER)
    comparison = compare(find_runs([tmp_path]))
    cell = by_loss(comparison)["rescale"].cells[ALL]
    assert cell.gain == pytest.approx(np.mean(BETTER) - np.mean(PLAIN))
    assert cell.test is not None
    assert cell.test.paired
    assert any(
        "several plain rows" in note and "rescale against updn ce-plain" in note for note in comparison.gain_notes
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"select": "val"},
        {"vocabulary": "train+test"},
        {"start_from": "/runs/d/updn/ce-plain/seed-0"},
    ],
)
def test_seeds_that_were_trained_otherwise_are_no_seeds_of_one_row(tmp_path: Path, changes: dict[str, str]) -> None:
    write_run(tmp_path, 40.0, seed=0)
    write_run(tmp_path, 41.0, seed=1, **changes)
    comparison = compare(find_runs([tmp_path]))
    assert sorted(row.seeds for row in comparison.rows) == [(0,), (1,)]
    assert any("rows with the same name differ" in note for note in comparison.notes)


def test_rows_without_a_gain_and_gains_without_a_test_are_named(tmp_path: Path) -> None:
    seeds(tmp_path, "plain", PLAIN[:1])
    seeds(tmp_path, "rescale", BETTER)
    seeds(tmp_path, "focal", LEVEL, backbone="css")
    notes = compare(find_runs([tmp_path])).gain_notes
    assert "no gain, because there are no plain runs in the same setting: css ce-focal" in notes
    assert any(note.startswith("Only one seed of updn ce-plain, so") for note in notes)


def test_numbers_by_question_type_are_left_out_where_nobody_asks_for_them(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0)
    (row,) = compare(find_runs([tmp_path]), by_type=False).rows
    assert {key[2] for key in row.cells} == {"answer-type"}


def test_nothing_finished_is_an_error_that_says_why(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0, status="failed", dataset="tiny")
    with pytest.raises(InputError, match=r"no finished run.*failed"):
        compare(find_runs([tmp_path]))
    with pytest.raises(InputError, match="no finished run of other"):
        compare(find_runs([tmp_path]), "other")
    with pytest.raises(InputError, match=r"^no finished run of tinny: did you mean 'tiny'\?$"):
        compare(find_runs([tmp_path]), "tinny")
    write_run(tmp_path / "later", 40.0, status="stopped")
    with pytest.raises(InputError, match=r"left out, stopped: .*; continue with: vqabench train \.\.\. --resume$"):
        compare(find_runs([tmp_path / "later"]))


def test_what_cannot_be_taken_apart_is_told_and_the_rest_is(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0)
    form: Breakdown = {
        ("accuracy", "prior", "head"): 50.0,
        ("reliance", "prior", "all"): 1.5,
        ("calibration error", "prior", "all"): None,
    }

    def break_down(run: Run, manifest: Manifest, split: str) -> Breakdown:
        if split == "test":
            raise InputError("its answers are gone")
        return form

    comparison = compare(find_runs([tmp_path]), break_down=break_down)
    (row,) = comparison.rows
    assert row.cells["val", "accuracy", "prior", "head"].mean == 50
    assert row.cells["val", "reliance", "prior", "all"].mean == 1.5
    assert row.cells["val", "calibration error", "prior", "all"].mean is None
    assert ("test", "accuracy", "prior", "head") not in row.cells
    assert "no breakdown of updn ce-plain: its answers are gone" in comparison.notes


def test_gains_are_over_a_chosen_row_across_backbones_and_corrected_for_all_rows(tmp_path: Path) -> None:
    seeds(tmp_path, "plain", PLAIN)
    seeds(tmp_path, "rescale", BETTER, backbone="other", objective="bce")
    seeds(tmp_path, "focal", [*LEVEL, 42.0], first=3, precision="bfloat16")
    comparison = compare(find_runs([tmp_path]), against="other/bce-rescale")
    rows = by_loss(comparison)
    base = rows["rescale"]
    assert (base.against, base.cells[ALL].gain, base.cells[ALL].test) == ("", None, None)
    expected = {
        "plain": stats.ttest_rel(PLAIN, BETTER).pvalue,
        "focal": stats.ttest_ind([*LEVEL, 42.0], BETTER, equal_var=False).pvalue,
    }
    for loss, p in expected.items():
        cell = rows[loss].cells[ALL]
        assert rows[loss].against == "other bce-rescale"
        assert cell.gain == pytest.approx((cell.mean or 0.0) - np.mean(BETTER))
        assert cell.test is not None
        assert cell.test.p == pytest.approx(p)
        assert cell.test.paired == (loss == "plain")
    smaller, larger = sorted(expected, key=lambda loss: expected[loss])
    tests = {loss: rows[loss].cells[ALL].test for loss in expected}
    small, large = tests[smaller], tests[larger]
    assert small is not None
    assert large is not None
    assert small.p_holm == pytest.approx(2 * small.p)
    assert large.p_holm == pytest.approx(max(2 * small.p, large.p))
    assert comparison.marks[0].startswith("† p < 0.01 against other/bce-rescale, over seeds")


@pytest.mark.parametrize(
    "name", ["updn/ce-mask @a=1", "updn/ce-mask@a=1", "updn ce-mask @a=1", "updn/ce-mask @a=1 ‡", "mask-a=1-0"]
)
def test_a_row_is_chosen_by_the_words_of_the_table_or_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, 40.0)
    write_run(tmp_path, 50.0, loss="mask", label="a=1")
    rows = by_loss(compare(find_runs([tmp_path]), against=name))
    assert rows["plain"].against == "updn ce-mask @a=1"
    assert rows["plain"].cells[ALL].gain == pytest.approx(-10)


def test_a_chosen_row_that_is_none_or_several_is_an_error_that_helps(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 40.0, label="a=1")
    with pytest.raises(
        InputError, match=r"no row is called 'updn/ce-plain': did you mean 'updn/ce-plain @a=1'\? Rows: "
    ):
        compare(find_runs([tmp_path]), against="updn/ce-plain")
    with pytest.raises(InputError, match=r"no row is called 'x/y': Rows: updn/ce-plain @a=1"):
        compare(find_runs([tmp_path]), against="x/y")
    write_run(tmp_path / "b", 50.0, label="a=1", precision="bfloat16")
    with pytest.raises(InputError, match=r"2 rows on d are called .*; name the folder of one instead: .*a/plain"):
        compare(find_runs([tmp_path]), against="updn/ce-plain @a=1")
    named = compare(find_runs([tmp_path]), against=str(tmp_path / "b"))
    assert [row.against for row in named.rows] == ["updn ce-plain @a=1", ""]


def test_a_chosen_row_is_compared_within_its_data_alone_and_a_note_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 40.0)
    write_run(tmp_path / "a", 45.0, loss="focal", fingerprint="changed")
    write_run(tmp_path / "b", 50.0, dataset="e", loss="rescale")
    comparison = compare(find_runs([tmp_path]), against="updn/ce-plain")
    assert [row.cells[ALL].gain for row in comparison.rows] == [None, None, None]
    (note,) = [note for note in comparison.gain_notes if note.startswith("no gain")]
    assert note == (
        "no gain, because updn/ce-plain has no run on the same data: updn ce-focal on d, updn ce-rescale on e"
    )

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import write_run
from tests.training.runs import SIZES, Counting, places_in, run
from vqabench.data.vqa.annotations import read_predictions
from vqabench.evaluation.findings import DatasetFindings
from vqabench.events import Emit, ignore
from vqabench.paths import Paths
from vqabench.reporting.page import make_page
from vqabench.results import Run, find_runs
from vqabench.workflows.report import gather

STRATEGIES = ("plain", "focal")
LEARNING: dict[str, Any] = {"precision": "float32", "settings": SIZES | {"recipe.lr": 0.04}}
"""Enough for the two to answer differently."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Two strategies, two seeds each, on the tiny data set; the test was watched for one of them."""
    paths = places_in(tmp_path_factory.mktemp("trained"))
    for loss in STRATEGIES:
        for seed in (0, 1):
            run(paths, loss=loss, seeds=(seed,), epochs=8, track_test=loss == "focal", **LEARNING)
    return paths


@pytest.fixture
def paths(trained: Paths, tmp_path: Path) -> Paths:
    """The same runs, to be spoilt; the data is where it was."""
    shutil.copytree(trained.runs, tmp_path / "runs")
    return Paths(tmp_path / "runs", trained.data, trained.catalog)


def gather_one(paths: Paths, emit: Emit = ignore) -> DatasetFindings:
    (findings,) = gather([], None, paths, emit)
    return findings


def run_of(paths: Paths, loss: str, seed: int) -> Run:
    (found,) = (
        run
        for run in find_runs([paths.runs])
        if f"ce-{loss}" in str(run.folder) and run.folder.name == f"seed-{seed}"
    )
    return found


def test_everything_is_gathered_where_all_is_there(trained: Paths) -> None:
    findings = gather_one(trained)
    assert findings.missing == ()
    assert [row.loss for row in findings.comparison.rows] == ["plain", "focal"]
    assert [set(curves) for curves in findings.curves] == [{"val"}, {"val", "test"}]
    assert [len(curves["val"].points) for curves in findings.curves] == [8, 8]
    assert {shift.question_type for shift in findings.shifts} == {"how many", "what color is the"}
    assert [list(shift.shares)[:2] for shift in findings.shifts] == [["train", "test"]] * 2
    assert [len(shift.shares) for shift in findings.shifts] == [4, 4]


def test_predicted_shares_are_those_of_the_stored_answers_of_all_seeds(trained: Paths) -> None:
    findings = gather_one(trained)
    (shift,) = (shift for shift in findings.shifts if shift.question_type == "how many")
    given = [
        prediction.answer
        for seed in (0, 1)
        for prediction in read_predictions(run_of(trained, "plain", seed).predictions_file("test"))
        if prediction.question_id % 2 == 0  # those that count
    ]
    (name,) = (name for name in shift.shares if "ce-plain" in name)
    for answer, share in zip(shift.answers, shift.shares[name], strict=True):
        if answer in ("0", "1", "2"):
            assert share == pytest.approx(given.count(answer) / len(given))


def test_changed_questions_are_those_whose_accuracy_differs(trained: Paths) -> None:
    (pair,) = gather_one(trained).pairs
    assert (pair.before.loss, pair.after.loss, pair.seed, pair.missing) == ("plain", "focal", 0, ())
    assert (pair.questions, len(pair.best), len(pair.worst)) == (12, min(4, pair.gained), min(4, pair.lost))
    assert pair.gained + pair.lost > 0
    stored = {
        loss: {p.question_id: p.answer for p in read_predictions(run_of(trained, loss, 0).predictions_file("test"))}
        for loss in STRATEGIES
    }
    for asked in (*pair.best, *pair.worst):
        assert asked.before.answer == stored["plain"][asked.question_id]
        assert asked.after.answer == stored["focal"][asked.question_id]
        assert (asked.after.accuracy > asked.before.accuracy) == (asked in pair.best)
        assert sum(count for _, count in asked.human_answers) == 10
        assert asked.before.confidence is not None
        for reply in (asked.before, asked.after):
            assert reply.attention is not None
            assert len(reply.attention) == len(asked.regions)
            assert sum(reply.attention) == pytest.approx(1, abs=1e-4)


def test_weights_that_are_gone_cost_attention_alone(paths: Paths) -> None:
    run_of(paths, "plain", 0).weights_file.unlink()
    message = Counting()
    (pair,) = gather_one(paths, message).pairs
    assert len(pair.missing) == 1
    assert "no attention over regions" in pair.missing[0]
    assert "model.safetensors" in pair.missing[0]
    assert any("model.safetensors" in line for line in message.messages)
    for asked in (*pair.best, *pair.worst):
        assert asked.before.attention is None
        assert asked.after.attention is not None


def test_a_plugin_that_is_not_installed_costs_attention_alone(paths: Paths) -> None:
    for one in find_runs([paths.runs]):
        manifest = one.read_manifest()
        distributions = manifest.distributions | {"backbone": "vqabench-gone"}
        one.write_manifest(manifest, backbone="gone", distributions=distributions)
    (pair,) = gather_one(paths).pairs
    assert any("vqabench-gone is not installed" in line for line in pair.missing)
    assert pair.gained + pair.lost > 0


def test_answers_that_are_gone_leave_the_other_rows(paths: Paths) -> None:
    run_of(paths, "focal", 1).predictions_file("test").unlink()
    findings = gather_one(paths)
    assert all(not any("focal" in name for name in shift.shares) for shift in findings.shifts)
    assert all(any("plain" in name for name in shift.shares) for shift in findings.shifts)
    message, also = findings.missing
    assert "answer distributions of updn ce-focal" in message
    assert also.startswith("updn ce-focal")
    assert " is not compared over questions: " in also
    assert len(findings.pairs) == 1  # of the seed whose answers are there


def test_runs_alone_are_enough(paths: Paths, tmp_path: Path) -> None:
    message = Counting()
    findings = gather_one(Paths(paths.runs, tmp_path / "no-data", paths.catalog), message)
    assert (findings.shifts, findings.pairs) == ((), ())
    assert [len(curves) for curves in findings.curves] == [1, 2]
    (why,) = findings.missing
    assert "tiny is not prepared; run: vqabench data prepare tiny" in why
    assert why in message.messages
    assert not (tmp_path / "no-data").exists()


def test_a_data_set_that_no_catalogue_knows_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", 40.0)
    findings = gather_one(Paths(tmp_path / "runs", tmp_path / "data"))
    assert "unknown dataset 'd'" in findings.missing[0]
    assert findings.curves == ({},)


def test_data_that_has_changed_since_is_not_shown(paths: Paths) -> None:
    for one in find_runs([paths.runs]):
        document = json.loads(one.manifest_file.read_bytes())
        one.manifest_file.write_text(json.dumps(document | {"fingerprint": "another"}))
    findings = gather_one(paths)
    assert (findings.shifts, findings.pairs) == ((), ())
    assert "has changed since these runs were trained" in findings.missing[0]


def test_each_data_set_has_findings_and_notes_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", 40.0, dataset="a", select="test")
    write_run(tmp_path / "runs" / "b", 50.0, dataset="b")
    first, second = gather([], None, Paths(tmp_path / "runs", tmp_path / "data"))
    assert (first.name, second.name) == ("a", "b")
    assert any("‡" in note for note in first.comparison.notes)
    assert not any("‡" in note for note in second.comparison.notes)


def test_the_prior_is_taken_into_account_where_it_is_asked_for(trained: Paths, tmp_path: Path) -> None:
    (findings,) = gather([], None, trained, prior=True)
    assert all(("test", "accuracy", "prior", "tail") in row.cells for row in findings.comparison.rows)
    assert "<summary>By the training prior</summary>" in make_page([findings])
    assert "<summary>By the training prior</summary>" not in make_page([gather_one(trained)])
    (alone,) = gather([], None, Paths(trained.runs, tmp_path / "no-data", trained.catalog), prior=True)
    assert not any(key[2] == "prior" for row in alone.comparison.rows for key in row.cells)
    assert not (tmp_path / "no-data").exists()


@pytest.mark.slow
def test_what_models_look_at_is_drawn_for_the_embedded_benchmark(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "runs", tmp_path / "data")
    small = SIZES | {"recipe.batch_size": 512}
    for loss in STRATEGIES:
        run(paths, loss=loss, dataset="digits-cp", epochs=1, settings=small)
    (pair,) = gather_one(paths).pairs
    assert pair.questions == 6000
    for asked in (*pair.best, *pair.worst):
        assert 4 <= len(asked.regions) <= 10
        assert all(region.picture is not None for region in asked.regions)
    page = make_page([gather_one(paths)])
    regions = sum(len(asked.regions) for asked in (*pair.best, *pair.worst))
    assert page.count('href="data:image/png;base64,') == 2 * regions > 0


def test_published_rows_stand_beside_ours_where_they_are_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", 40.0, dataset="vqa-cp-v2")
    paths = Paths(tmp_path / "runs", tmp_path / "data")
    (findings,) = gather([], None, paths, published=True)
    page = make_page([findings])
    assert "Table II" in page or "Table V" in page
    assert "published" not in make_page(gather([], None, paths))


def test_rows_without_a_plain_one_have_no_changed_questions(paths: Paths) -> None:
    for seed in (0, 1):
        shutil.rmtree(run_of(paths, "plain", seed).folder)
    findings = gather_one(paths)
    assert findings.pairs == ()
    assert [len(shift.shares) for shift in findings.shifts] == [3, 3]

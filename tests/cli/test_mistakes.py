"""A user's mistake is one clear line and exit code 2, and nothing is lost."""

from __future__ import annotations

import codecs
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from vqabench_updn import UpDn

from tests.conftest import CommandLine
from tests.outcomes import fails
from tests.tiny import WIDTH, write_tiny, write_tsv
from vqabench.api import Batch
from vqabench.results import Run

FAST = ("--epochs", "1", "--set", "hidden=8", "--set", "embedding=8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], ["no backbone given", "vqabench train NAME"]),
        (["train", "updm"], ["unknown backbone 'updm'", "did you mean 'updn'?"]),
        (["train", "updn", "--loss", "rescal"], ["unknown loss 'rescal'", "did you mean 'rescale'?", "focal"]),
        (["train", "updn", "--loss", "focal+rescale"], ["at most one loss"]),
        (["train", "updn", "--loss", "mask+mask"], ["named twice"]),
        (["train", "updn", "--dataset", "digits"], ["unknown dataset 'digits'", "did you mean 'digits-cp'?"]),
        (["train", "updn", "--objective", "mse"], ["--objective", "bce", "ce"]),
        (["train", "updn", "--set", "hiden=3"], ["unknown option of updn 'hiden'", "did you mean 'hidden'?"]),
        (["train", "updn", "--set", "hidden=big"], ["updn.hidden", "'big' is not int or none"]),
        (["train", "updn", "--set", "hidden"], ["write KEY=VALUE"]),
        (
            ["train", "updn", "--set", "rescale.variant=paper"],
            ["rescale is not part of this run; its parts: plain"],
        ),
        (["train", "updn", "--set", f"recipe.batch_size={10**23}"], ["recipe.batch_size must be from 1 to"]),
        (["train", "updn", "--epochs", "1000000000"], ["recipe.epochs must be from 1 to"]),
        (["train", "updn", "--set", "epochs=3"], ["did you mean recipe.epochs?"]),
        (["train", "updn", "--loss", "rescale", "--set", "variant=paper"], ["did you mean rescale.variant?"]),
        (["train", "updn", "--loss", "rescale", "--set", "rescale.lr=1"], ["did you mean recipe.lr?"]),
        (
            ["train", "updn", "--loss", "rescale", "--set", "rescale.variant=realeased"],
            ["rescale.variant", "paper | released", "did you mean 'released'?"],
        ),
        (["train", "updn", "--set", "recipe.lr=-1"], ["recipe.lr must be above 0"]),
        (["train", "updn", "--set", "recipe.finetune_epochs=1"], ["plain has no second stage"]),
        (["train", "updn", "--set", "recipe.rate=1"], ["recipe", "'rate'", "lr"]),
        (["train", "updn", "--seeds", "a"], ["write 0, or 0,1,2, or 0-4"]),
        (["train", "updn", "--seeds", "3-1"], ["3-1"]),
        (["train", "updn", "--seeds", "0,0"], ["named twice"]),
        (["train", "updn", "--epochs", "0"], ["--epochs", "at least 1"]),
        (["train", "updn", "--epochs", "many"], ["--epochs", "a whole number, not 'many'"]),
        (["train", "updn", "--finetune-epochs", "3"], ["plain has no second stage"]),
        (["train", "updn", "--select", "best"], ["--select", "last", "val", "test"]),
        (["train", "updn", "--device", "gpu"], ["--device", "cuda"]),
        (["train", "updn", "--device", "cuda:99"], ["--device cuda:99", "CUDA devices"]),
        (["train", "updn", "--label", "my model"], ["--label 'my model'", "letters, digits"]),
        (["train", "updn", "--resume", "--force"], ["choose one"]),
        (["train", "lm", "--loss", "balanced-softmax"], ["lm supports bce", "balanced-softmax supports ce"]),
        (["train", "updn", "--config", "none.toml"], ["none.toml"]),
        (["train", "updn", "--from", "nowhere", "--epochs", "3"], ["--finetune-epochs"]),
        (["train", "updn", "--from", "nowhere", "--set", "recipe.epochs=3"], ["recipe.finetune_epochs"]),
        (
            ["train", "updn", "--from", "nowhere", "--seeds", "4"],
            ["--from nowhere: there is no run in that"],
        ),
        (["train", "updn", "--data-dir", "/dev/null"], ["--data-dir /dev/null", "a file, not a folder"]),
        (["train", "updn", "--runs", "/dev/null"], ["--runs /dev/null", "a file, not a folder"]),
        (["compare", "--runs", "/dev/null"], ["/dev/null", "a file, not a folder"]),
        (["trian", "updn"], ["trian", "train"]),
        (["compare"], ["no runs yet", "vqabench train"]),
        (["compare", "nowhere"], ["nowhere", "no such folder"]),
        (["compare", "--by", "question-type", "--metric", "kappa"], ["kappa is defined by answer type"]),
        (["compare", "--by", "prior", "--metric", "kappa"], ["--by prior", "kappa is defined by answer type"]),
        (["compare", "one", "--explain"], ["--explain", "name two folders", "vqabench compare A B --explain"]),
        (["compare", "a", "b", "--explain", "--format", "csv"], ["cannot be csv", "drop --format csv"]),
        (["compare", "a", "b", "--explain", "--by", "prior"], ["--explain", "drop the other options"]),
        (["compare", "a", "b", "--explain"], ["a: there is no such folder of runs"]),
        (["predict", "nowhere"], ["nowhere: there is no such run"]),
        (["evaluate", "none.json"], ["--dataset", "--questions"]),
        (["evaluate", "none.json", "--questions", "q.json"], ["go together"]),
        (["plugins", "show", "nothing"], ["unknown", "updn", "rescale"]),
        (["data", "info", "vqa"], ["unknown dataset 'vqa'", "--catalog"]),
        (["data", "list", "--catalog", "none.toml"], ["none.toml", "no such catalogue"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_word_is_answered_in_one_line(cli: CommandLine, arguments: list[str], message: list[str]) -> None:
    fails(cli(*arguments), *message)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "own").parent


def prepare(cli: CommandLine, own: Path) -> subprocess.CompletedProcess[str]:
    return cli("data", "prepare", "tiny", "--catalog", own / "catalog.toml")


def edit_json(path: Path, key: str, change: object) -> None:
    content = json.loads(path.read_text())
    content[key] = change(content[key])  # type: ignore[operator]
    path.write_text(json.dumps(content))


def test_files_that_are_not_json_name_file_and_position(cli: CommandLine, own: Path) -> None:
    path = own / "train_questions.json"
    whole = path.read_text()
    for content, message in (
        ("", "empty"),
        (whole[:300], "broken JSON"),
        ("[1, 2]", "entry 1 of the questions"),
        ("nonsense", "broken JSON in line 1, column 1"),
    ):
        path.write_text(content)
        fails(prepare(cli, own), "train_questions.json", message)


def test_entries_of_another_shape_name_the_place(cli: CommandLine, own: Path) -> None:
    edit_json(own / "train_annotations.json", "annotations", lambda all_: [*all_[:3], {"question_id": "x"}])
    fails(prepare(cli, own), "train_annotations.json", "entry 4 of the annotations", "`$.question_id`")


def test_questions_and_annotations_must_belong_together(cli: CommandLine, own: Path) -> None:
    edit_json(own / "train_annotations.json", "annotations", lambda all_: all_[2:])
    fails(prepare(cli, own), "2 questions without annotations (ids 0, 1)")
    write_tiny(own)
    edit_json(own / "train_questions.json", "questions", lambda all_: all_[1:])
    fails(prepare(cli, own), "1 annotations without questions (ids 0)")


def test_a_question_that_comes_twice_is_named(cli: CommandLine, own: Path) -> None:
    edit_json(own / "train_questions.json", "questions", lambda all_: [*all_, all_[5]])
    fails(prepare(cli, own), "train_questions.json", "1 question ids occur more than once: 5")


def test_a_question_in_two_splits_is_refused(cli: CommandLine, own: Path) -> None:
    for name in ("questions", "annotations"):
        shutil.copy(own / f"val_{name}.json", own / f"test_{name}.json")
    fails(prepare(cli, own), "12 questions are in two splits", "1000")


def test_fewer_or_more_than_ten_answers_are_counted(cli: CommandLine, own: Path) -> None:
    def shorten(all_: list[dict[str, list[object]]]) -> list[dict[str, list[object]]]:
        all_[0]["answers"] = all_[0]["answers"][:9]
        all_[1]["answers"] = all_[1]["answers"] * 2
        return all_

    edit_json(own / "train_annotations.json", "annotations", shorten)
    fails(prepare(cli, own), "2 questions do not have ten answers", "9, 20", "ids 0, 1")


def test_images_without_features_are_counted_and_can_be_skipped(cli: CommandLine, own: Path) -> None:
    write_tsv(own / "features.tsv", images=4)
    fails(prepare(cli, own), "2 images have no features (ids 4, 5)", "images_without_features")
    catalog = own / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("[tiny]", '[tiny]\nimages_without_features = "skip"', 1))
    done = cli("data", "prepare", "tiny", "--catalog", catalog)
    assert done.returncode == 0, done.stderr
    assert "train: 20 of 60 questions are left out: no image features" in done.stderr


def test_broken_rows_of_features_name_their_line(cli: CommandLine, own: Path) -> None:
    path = own / "features.tsv"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:3]) + rows[3][:-60] + "\n" + "".join(rows[4:]))
    fails(prepare(cli, own), "features.tsv, line 4", "truncated")
    path.write_text("".join(rows[:2]) + rows[2].rpartition("\t")[0] + "\n")
    fails(prepare(cli, own), "features.tsv, line 3", "5 columns")
    write_tsv(own / "wide.tsv", width=WIDTH * 2)
    path.write_text("".join(rows[:5]) + (own / "wide.tsv").read_text().splitlines(keepends=True)[5])
    fails(prepare(cli, own), "features.tsv, line 6", "features 16 wide, but 8 before")


def test_features_that_are_not_finite_name_the_image(cli: CommandLine, own: Path) -> None:
    import base64

    import numpy as np

    path = own / "features.tsv"
    for value in (np.nan, np.inf):
        write_tsv(path)
        rows = path.read_text().splitlines()
        columns = rows[1].split("\t")
        bad = np.full((3, WIDTH), value, np.float32)
        rows[1] = "\t".join([*columns[:5], base64.b64encode(bad.tobytes()).decode()])
        path.write_text("\n".join(rows) + "\n")
        fails(prepare(cli, own), "line 2", "image 1", "not finite")


def test_a_split_without_questions_is_refused(cli: CommandLine, own: Path) -> None:
    for name in ("val_questions.json", "val_annotations.json"):
        (own / name).write_text("[]")
    fails(cli("data", "prepare", "tiny", "--catalog", own / "catalog.toml"), "split val", "no questions")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("question_length = 6", "question_length = 0", ["[tiny]", "question_length", ">= 1"]),
        ("minimum_answer_count = 2", "minimum_answer_count = 0", ["minimum_answer_count", ">= 1"]),
        ("[tiny]", '["../tiny"]', ["'../tiny' is not a valid name of a data set"]),
    ],
)
def test_a_catalogue_with_an_impossible_value_is_refused(
    cli: CommandLine, own: Path, old: str, new: str, message: list[str]
) -> None:
    catalog = own / "catalog.toml"
    catalog.write_text(catalog.read_text().replace(old, new, 1))
    fails(cli("data", "prepare", "tiny", "--catalog", catalog), *message)


def test_files_may_begin_with_a_mark_of_their_encoding(cli: CommandLine, own: Path) -> None:
    for name in ("catalog.toml", "train_questions.json"):
        (own / name).write_bytes(codecs.BOM_UTF8 + (own / name).read_bytes())
    with (own / "features.tsv").open("a") as features:
        features.write("\n")
    assert cli("data", "prepare", "tiny", "--catalog", own / "catalog.toml").returncode == 0
    questions = own / "val_questions.json"
    questions.write_bytes(questions.read_text().encode("utf-16"))
    fails(cli("data", "prepare", "tiny", "--catalog", own / "catalog.toml"), "val_questions.json", "UTF-16")


def test_a_catalogue_names_its_unknown_key(cli: CommandLine, own: Path) -> None:
    catalog = own / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("question_length", "question_lenght"))
    fails(prepare(cli, own), "catalog.toml", "question_lenght", "did you mean 'question_length'?")


def test_a_results_file_must_answer_each_question_once(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    files = ("--questions", own / "test_questions.json", "--annotations", own / "test_annotations.json")
    answers = [{"question_id": 2000 + number, "answer": "1"} for number in range(12)]
    for content, message in (
        (answers[:10], "questions not answered: 2 (ids 2010, 2011)"),
        (
            [*answers, {"question_id": 2003, "answer": "2"}],
            "questions answered more than once, with different answers: 1 (ids 2003)",
        ),
        ([*answers, {"question_id": 7, "answer": "1"}], "questions that do not exist: 1 (ids 7)"),
        ([{"question_id": 2000}], "answer"),
    ):
        (tmp_path / "results.json").write_text(json.dumps(content))
        fails(cli("evaluate", "results.json", *files), "results.json", message)


def test_an_existing_run_is_kept_without_force(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    command = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST)
    assert cli(*command).returncode == 0
    (weights,) = tmp_path.glob("runs/**/model.safetensors")
    before = weights.stat().st_mtime_ns
    fails(cli(*command), "exists", "--resume", "--force")
    done = cli(*command, "--resume")
    assert done.returncode == 0
    assert "finished already" in done.stderr
    assert weights.stat().st_mtime_ns == before
    assert cli(*command, "--force").returncode == 0
    assert weights.stat().st_mtime_ns != before


def test_a_damaged_run_is_named_and_spoils_no_other(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    command = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", "--seeds", "0-1", *FAST)
    assert cli(*command).returncode == 0
    (folder,) = tmp_path.glob("runs/**/seed-0")
    (folder / "scores.json").write_text('{"test": {"questions"')
    done = cli("compare")
    assert done.returncode == 0
    assert "left out, damaged" in done.stderr
    fails(cli("compare", folder), "no finished run", "scores.json")
    (folder / "model.safetensors").write_bytes(b"half")
    fails(cli("predict", folder, "--catalog", own / "catalog.toml"), "model.safetensors", "damaged")
    (folder / "run.json").write_text("{")
    path = folder.relative_to(tmp_path) / "run.json"
    damaged = f"{path}: Input data was truncated: the run is damaged; train it again with --force"
    fails(cli("predict", folder), damaged)
    fails(cli(*command, "--resume"), damaged)
    (folder / "run.json").unlink()
    fails(cli("predict", folder), "run.json: missing: the run is damaged; train it again with --force")
    (tmp_path / "empty").mkdir()
    fails(cli("predict", "empty"), "empty: not a run: there is no run.json in it")


def test_a_folder_that_is_read_only_is_named_with_the_option_that_chooses_another(
    cli: CommandLine, own: Path, tmp_path: Path, small_disk: Path
) -> None:
    assert prepare(cli, own).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    advice = f"the folder {small_disk} is not writable; choose another folder:"
    train = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST)
    fails(cli(*train, "--runs", small_disk / "runs"), f"--runs {small_disk / 'runs'}: {advice} --runs DIR")
    fails(cli(*train, "--data-dir", small_disk), f"--data-dir {small_disk}: {advice} --data-dir DIR")
    fails(cli("train", "updn", "--data-dir", small_disk), f"{advice} --data-dir DIR")
    fails(cli("plugins", "new", "mine", "--in", small_disk), f"--in {small_disk}: {advice} --in DIR")


def test_answers_to_another_split_are_recognised(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    asked = json.loads((own / "val_questions.json").read_text())["questions"]
    answers = [{"question_id": one["question_id"], "answer": "red"} for one in asked]
    (tmp_path / "r.json").write_text(json.dumps(answers))
    command = ("evaluate", "r.json", "--dataset", "tiny", "--catalog", own / "catalog.toml")
    fails(cli(*command), "its answers are to questions of the split val, not test: add --split val")
    assert cli(*command, "--split", "val").returncode == 0


def test_a_finished_run_whose_scores_are_damaged_is_scored_again(
    cli: CommandLine, own: Path, tmp_path: Path
) -> None:
    command = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST)
    assert cli(*command).returncode == 0
    (folder,) = tmp_path.glob("runs/**/seed-0")
    scores, predictions = folder / "scores.json", folder / "predictions.test.json"
    whole = scores.read_bytes(), predictions.read_bytes()
    for damaged in (scores, predictions):
        damaged.write_bytes(damaged.read_bytes()[:20])
        done = cli(*command, "--resume")
        assert done.returncode == 0
        assert "scoring it again" in done.stderr
        assert "samples/s" not in done.stderr
        assert (scores.read_bytes(), predictions.read_bytes()) == whole
        assert Run(folder).read_manifest().status == "finished"
    (folder / "model.safetensors").write_bytes(b"half")
    fails(cli(*command, "--resume"), "model.safetensors: damaged", "--force")


def test_a_run_that_cannot_go_on_says_so_and_begins_again(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    command = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST)
    assert cli(*command).returncode == 0
    (folder,) = tmp_path.glob("runs/**/seed-0")
    run = Run(folder)
    run.write_manifest(run.read_manifest(), status="stopped", epoch=None)
    done = cli(*command, "--resume")
    assert done.returncode == 0
    assert "resume.pt is missing" in done.stderr
    assert len((folder / "epochs.jsonl").read_text().splitlines()) == 1


def test_a_recipe_of_the_catalogue_is_checked_before_anything_is_prepared(cli: CommandLine, own: Path) -> None:
    catalog = own / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("question_length = 6", "recipe = { lr = 0 }", 1))
    done = cli("train", "updn", "--dataset", "tiny", "--catalog", catalog)
    fails(done, "tiny: recipe.lr must be above 0")
    assert "preparing" not in done.stderr


def test_a_run_is_trained_by_one_process_at_a_time(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    command = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST)
    assert prepare(cli, own).returncode == 0
    folder = tmp_path / "runs" / "tiny" / "updn" / "ce-plain@embedding=8,epochs=1,hidden=8" / "seed-0"
    with Run(folder).lock():
        done = cli(*command)
    fails(done, "seed-0: another process is training it")
    assert cli(*command).returncode == 0
    assert [path.name for path in folder.parent.iterdir()] == ["seed-0"]


def test_a_run_that_was_begun_needs_its_origin_no_more(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    command = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST[2:])
    assert cli(*command, "--epochs", "1").returncode == 0
    (origin,) = tmp_path.glob("runs/**/seed-0")
    further = (*command, "--loss", "rescale", "--from", origin, "--finetune-epochs", "2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UpDn, "forward", fail_in_the_second_epoch(UpDn.forward))
        assert cli(*further).returncode == 1
    origin.rename(tmp_path / "moved")
    done = cli(*further, "--resume")
    assert done.returncode == 0, done.stderr
    assert "continuing after epoch 1" in done.stderr
    fails(cli(*further, "--force"), "there is no run in that folder")


def fail_in_the_second_epoch(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward pass that fails in the second training step: an epoch is one step here."""
    steps = count(1)

    def fail(model: UpDn, batch: Batch) -> Any:
        if model.training and next(steps) == 2:
            raise ValueError("stopped here")
        return forward(model, batch)

    return fail


def test_a_trained_run_without_weights_and_scores_is_reported(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    command = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST)
    assert cli(*command).returncode == 0
    (folder,) = tmp_path.glob("runs/**/seed-0")
    assert (folder / "model.safetensors").stat().st_mode == (folder / "run.json").stat().st_mode
    (folder / "model.safetensors").unlink()
    (folder / "scores.json").unlink()
    fails(cli(*command, "--resume"), "seed-0: was trained, but model.safetensors is missing", "--force")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('features = "features.tsv"', 'features = "features.tsv"\nimages_without_features = "skp"', "refuse, skip"),
        (
            'questions = "val_questions.json"',
            "questions = []",
            "splits.val: questions: must be a list of length >= 1",
        ),
    ],
)
def test_a_wrong_value_in_a_catalogue_is_reported_with_the_valid_ones(
    cli: CommandLine, own: Path, old: str, new: str, message: str
) -> None:
    catalog = own / "catalog.toml"
    catalog.write_text(catalog.read_text().replace(old, new, 1))
    fails(prepare(cli, own), message)


def test_a_catalogue_in_another_encoding_is_refused(cli: CommandLine, own: Path) -> None:
    catalog = own / "catalog.toml"
    catalog.write_text(catalog.read_text(), encoding="utf-16")
    fails(prepare(cli, own), "catalog.toml", "UTF-8")


def test_ids_and_texts_that_no_file_can_hold_are_refused(cli: CommandLine, own: Path) -> None:
    path = own / "train_questions.json"
    whole = path.read_text()
    path.write_text(whole.replace('"question_id":59,', f'"question_id":{2**63},'))
    fails(prepare(cli, own), "train_questions.json", "Expected `int` <= 9223372036854775807")
    path.write_text(whole.replace("How many sheep", "How ma\\u0000ny sheep"))
    fails(prepare(cli, own), r"one of the words, 'ma\x00ny' holds a NUL character")


def test_evaluating_no_questions_is_refused(cli: CommandLine, own: Path) -> None:
    for name in ("questions", "annotations", "predictions"):
        (own / f"{name}.json").write_text("[]")
    files = ("--questions", own / "questions.json", "--annotations", own / "annotations.json")
    fails(cli("evaluate", own / "predictions.json", *files), "questions.json: there are no questions in it")


def test_what_another_catalogue_prepared_under_a_name_is_outdated(
    cli: CommandLine, own: Path, tmp_path: Path
) -> None:
    assert prepare(cli, own).returncode == 0
    listed = cli("data", "list", "--catalog", own / "catalog.toml", "--json").stdout
    assert [one["prepared"] for one in json.loads(listed) if one["name"] == "tiny"] == ["yes"]
    other = write_tiny(tmp_path / "other")
    assert "outdated" in cli("data", "list", "--catalog", other).stdout
    assert "outdated: files or settings have changed" in cli("data", "info", "tiny", "--catalog", other).stdout
    assert cli("data", "prepare", "tiny", "--catalog", other).returncode == 0
    assert "outdated" not in cli("data", "list", "--catalog", other).stdout


def test_an_empty_folder_of_a_run_is_no_run(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    command = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST)
    assert cli(*command).returncode == 0
    (folder,) = tmp_path.glob("runs/**/seed-0")
    shutil.rmtree(folder)
    folder.mkdir()
    assert cli(*command, "--resume").returncode == 0


def test_predicting_with_an_unfinished_run_is_reported(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    assert cli("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST).returncode == 0
    (folder,) = tmp_path.glob("runs/**/seed-0")
    fails(cli("predict", folder, "--out", ".", "--catalog", own / "catalog.toml"), "a folder, not a file")
    fails(
        cli("predict", folder, "--out", "no/p.json", "--catalog", own / "catalog.toml"),
        "no/p.json: there is no folder",
    )
    Run(folder).write_manifest(Run(folder).read_manifest(), status="failed")
    done = cli("predict", folder, "--catalog", own / "catalog.toml")
    assert (done.returncode, "is failed, not finished" in done.stderr) == (0, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "hidden=0"], ["updn", "hidden must be at least 1, not 0"]),
        (["--loss", "rescale", "--set", "rescale.minimum=0"], ["minimum must be at least 1, not 0"]),
        (["--loss", "focal", "--set", "focal.alpha=2"], ["alpha must be in [0, 1]"]),
    ],
)
def test_an_option_out_of_range_is_refused(
    cli: CommandLine, own: Path, options: list[str], message: list[str]
) -> None:
    assert cli("data", "prepare", "tiny", "--catalog", own / "catalog.toml").returncode == 0
    fails(cli("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *options), *message)


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_spoils_no_preparation(cli: CommandLine, own: Path, tmp_path: Path) -> None:
    with room(8_000):
        done = prepare(cli, own)
    assert (done.returncode, "no space left for the features" in done.stderr.splitlines()[-1]) == (1, True)
    assert prepare(cli, own).returncode == 0
    catalog = own / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("minimum_answer_count = 2", "minimum_answer_count = 1"))
    with room(8_000):
        done = prepare(cli, own)
    assert (done.returncode, "prepared.h5: cannot be written" in done.stderr.splitlines()[-1]) == (1, True)
    assert not list(tmp_path.glob("data/tiny/.*"))
    assert prepare(cli, own).returncode == 0


@pytest.mark.parametrize(("size", "file"), [(4_000, "model.safetensors"), (10_000, "resume.pt")])
def test_what_the_disk_has_no_room_for_is_one_line(cli: CommandLine, own: Path, size: int, file: str) -> None:
    command = ("train", "updn", "--dataset", "tiny", "--catalog", own / "catalog.toml", *FAST)
    assert cli("data", "prepare", "tiny", "--catalog", own / "catalog.toml").returncode == 0
    with room(size):
        done = cli(*command)
    assert done.returncode == 1
    assert f"{file}: cannot be written" in done.stderr.splitlines()[-1]
    assert cli(*command, "--resume").returncode == 0


def test_debug_shows_the_traceback(vqabench: CommandLine) -> None:
    done = vqabench("train", "updm", "--debug")
    assert "Traceback" in done.stderr
    assert done.returncode != 0

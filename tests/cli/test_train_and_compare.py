from __future__ import annotations

import json
from pathlib import Path

import pytest
from vqabench_updn import UpDn

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.results import Run

FAST = ("--epochs", "2", "--set", "hidden=8", "--set", "embedding=8", "--set", "recipe.batch_size=16")


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "own")


def test_a_run_leaves_everything_that_a_later_look_needs(
    vqabench: CommandLine, catalog: Path, tmp_path: Path
) -> None:
    done = vqabench("train", "updn", "--dataset", "tiny", "--catalog", catalog, *FAST, "--set", "recipe.clip=none")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "tiny" / "updn").glob("*/seed-0")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "run.json",
        "epochs.jsonl",
        "model.safetensors",
        "scores.json",
        "predictions.val.json",
        "predictions.test.json",
    }
    manifest = Run(folder).read_manifest()
    assert (manifest.status, manifest.epoch, manifest.select) == ("finished", 2, "last")
    assert manifest.versions.keys() >= {"vqabench", "vqabench-updn", "torch", "python"}
    assert len((folder / "epochs.jsonl").read_text().splitlines()) == 2


def test_two_seeds_and_two_losses_make_two_rows(cli: CommandLine, catalog: Path) -> None:
    common = ("--dataset", "tiny", "--catalog", catalog, "--seeds", "0-1", *FAST)
    assert cli("train", "updn", *common).returncode == 0
    assert cli("train", "updn", "--loss", "rescale", *common).returncode == 0
    rows = json.loads(cli("compare", "--format", "json").stdout)["rows"]
    assert [(row["loss"], row["seeds"]) for row in rows] == [("plain", [0, 1]), ("rescale", [0, 1])]
    cell = rows[1]["scores"]["test"]["accuracy"]["all"]
    plain = rows[0]["scores"]["test"]["accuracy"]["all"]
    assert cell["gain"] == pytest.approx(cell["mean"] - plain["mean"])
    table = cli("compare").stdout
    assert "out-of-domain test" in table
    assert "in-domain val" in table
    markdown = cli("compare", "--format", "markdown", "--metric", "accuracy").stdout
    assert "| updn | ce-plain" in markdown
    csv = cli("compare", "--format", "csv").stdout.splitlines()
    assert csv[0].startswith("dataset,backbone,objective,loss,label")


def test_a_user_names_settings_in_folder_and_table(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    fixed = ("--label", "small", "--precision", "float32")
    command = ("train", "updn", "--dataset", "tiny", "--catalog", catalog, *FAST, *fixed)
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/tiny/updn/ce-plain@small/seed-0/scores.json").is_file()
    assert "ce-plain @small" in cli("compare").stdout
    assert "finished already" in cli(*command, "--resume").stderr
    for other in (("--set", "recipe.lr=0.1"), ("--precision", "bfloat16")):
        refused = cli(*command, "--resume", *other)
        assert refused.returncode == 2
        assert "began with" in refused.stderr


def test_mask_and_rescale_train_in_two_stages(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    common = ("--dataset", "tiny", "--catalog", catalog, *FAST)
    done = cli("train", "updn", "--loss", "mask+rescale", "--finetune-epochs", "3", *common)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "tiny" / "updn").glob("*/seed-0")
    epochs = [json.loads(line)["stage"] for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert epochs == ["train"] * 2 + ["finetune"] * 3


def test_a_run_can_start_from_another_with_any_strategy(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    sizes = ("--dataset", "tiny", "--catalog", catalog, *FAST[2:])
    assert cli("train", "updn", *sizes, "--epochs", "2").returncode == 0
    (origin,) = (tmp_path / "runs" / "tiny" / "updn").glob("*/seed-0")
    options = ("--from", origin, "--finetune-epochs", "2")
    done = cli("train", "updn", *sizes, "--loss", "mask+rescale", *options)
    assert done.returncode == 0, done.stderr
    assert "head.1.weight" in done.stderr  # it says which parameters are initialised anew
    (folder,) = (tmp_path / "runs" / "tiny" / "updn").glob("*mask+rescale*/seed-0")
    manifest = Run(folder).read_manifest()
    assert [stage["name"] for stage in manifest.stages] == ["finetune"]
    assert manifest.start_from == str(origin)


def test_predict_answers_as_the_run_did(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    where = ("--catalog", catalog)
    assert cli("train", "updn", "--dataset", "tiny", *where, *FAST, "--loss", "mask").returncode == 0
    (folder,) = (tmp_path / "runs" / "tiny" / "updn").glob("*/seed-0")
    done = cli("predict", folder, "--split", "test", "--out", "again.json", *where)
    assert done.returncode == 0, done.stderr
    own = folder / "predictions.test.json"
    kept = own.read_bytes()
    given = [{"question_id": one["question_id"], "answer": one["answer"]} for one in json.loads(kept)]
    assert json.loads((tmp_path / "again.json").read_bytes()) == given  # the official format, to the letter
    for written in ("run.json", "predictions.test.json"):
        refused = cli("predict", folder, "--out", folder / written, *where)
        assert (refused.returncode, "is not overwritten" in refused.stderr) == (2, True)
    for above in (Path("runs"), folder.relative_to(tmp_path).parent):
        message = f"{above} is a folder of runs; name one, such as {folder.relative_to(tmp_path)}"
        assert message in cli("predict", above, *where).stderr
    assert "valid endings: .json" in cli("predict", folder, "--out", "again.csv", *where).stderr
    own.unlink()
    assert cli("predict", folder, *where).returncode == 0
    assert own.read_bytes() == kept
    assert f"{own}: already holds these answers; nothing is written" in cli("predict", folder, *where).stderr
    scored = cli("evaluate", "again.json", "--dataset", "tiny", "--json", *where)
    assert json.loads(scored.stdout) == json.loads((folder / "scores.json").read_text())["test"]
    assert cli("predict", folder, "--split", "train", "--out", "train.json", *where).returncode == 0
    assert cli("predict", folder, "--shuffle-images", "3", *where).returncode == 0
    assert (folder / "predictions.test.other-images-3.json").is_file()


def test_json_is_all_that_stdout_holds(cli: CommandLine, catalog: Path) -> None:
    done = cli("train", "updn", "--dataset", "tiny", "--catalog", catalog, *FAST, "--json")
    assert json.loads(done.stdout)["rows"][0]["backbone"] == "updn"
    assert "epoch 2/2" in done.stderr
    assert "samples/s" in done.stderr


def test_selecting_on_test_warns_and_brands_every_table(cli: CommandLine, catalog: Path) -> None:
    common = ("--dataset", "tiny", "--catalog", catalog, *FAST)
    done = cli("train", "updn", *common, "--select", "test")
    assert "warning" in done.stderr
    for form in ("table", "markdown"):
        assert "‡" in cli("compare", "--format", form).stdout
    assert json.loads(cli("compare", "--format", "json").stdout)["rows"][0]["branded"] is True


def test_the_notes_of_a_backbone_are_kept_with_the_run(
    cli: CommandLine, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UpDn, "brands", ("it has seen the test",))
    common = ("--dataset", "tiny", "--catalog", catalog, *FAST)
    done = cli("train", "updn", "--loss", "mask", *common)
    assert "updn: no word vectors: words start at random" in done.stderr
    (folder,) = (tmp_path / "runs" / "tiny" / "updn").glob("*/seed-0")
    manifest = Run(folder).read_manifest()
    assert manifest.notes == ["no word vectors: words start at random"]
    assert manifest.pretraining == ["it has seen the test"]
    for form in ("table", "markdown"):
        table = " ".join(cli("compare", "--format", form).stdout.split())
        assert "‡ it has seen the test: not comparable with unmarked runs" in table
    assert json.loads(cli("compare", "--format", "json").stdout)["rows"][0]["branded"] is True


def test_a_strategy_that_a_backbone_advises_against_is_warned_of(
    cli: CommandLine, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UpDn, "advises_against", {"mask": "for a reason", "focal": "for another"})
    common = ("--dataset", "tiny", "--catalog", catalog, *FAST)
    assert "warning: updn with mask: for a reason" in cli("train", "updn", "--loss", "mask+rescale", *common).stderr
    assert "updn with" not in cli("train", "updn", "--loss", "rescale", *common).stderr


def test_tracking_test_records_and_does_not_select(cli: CommandLine, catalog: Path, tmp_path: Path) -> None:
    common = ("--dataset", "tiny", "--catalog", catalog, *FAST)
    assert cli("train", "updn", *common, "--track-test").returncode == 0
    (folder,) = (tmp_path / "runs" / "tiny" / "updn").glob("*/seed-0")
    lines = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert all("test_accuracy" in line for line in lines)
    assert Run(folder).read_manifest().epoch == 2


def test_a_configuration_file_says_what_the_command_line_can(
    cli: CommandLine, catalog: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.toml").write_text(
        'backbone = "updn"\nloss = "rescale"\ndataset = "tiny"\nepochs = 1\nseeds = [3]\n'
        "[set]\nhidden = 8\nembedding = 8\n[set.rescale]\nvariant = 'released'\n"
    )
    done = cli("train", "--config", "own.toml", "--catalog", catalog, "--epochs", "2")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "tiny" / "updn").glob("*/seed-3")
    assert folder.parent.name == "ce-rescale@embedding=8,epochs=2,hidden=8,rescale.variant=released"


def test_stored_answers_show_the_prior_and_what_can_be_concluded(
    cli: CommandLine, catalog: Path, tmp_path: Path
) -> None:
    where = ("--catalog", catalog)
    for loss in ("plain", "rescale"):
        common = ("--dataset", "tiny", "--loss", loss, *FAST, "--seeds", "0-1")
        assert cli("train", "updn", *common, *where, "--jobs", "1").returncode == 0
    plain, rescale = sorted((tmp_path / "runs" / "tiny" / "updn").iterdir())

    by_prior = cli("compare", "--by", "prior", *where)
    assert by_prior.returncode == 0, by_prior.stderr
    for head in ("Head", "Tail", "Against", "Reliance", "ECE", "Bound"):
        assert head in by_prior.stdout
    assert "100.00" in by_prior.stdout  # the bound: the vocabulary holds every answer
    lines = cli("compare", "--by", "prior", "--format", "csv", *where).stdout.splitlines()
    assert sum(",upper bound,prior,all,100.0," in line for line in lines) == 4  # two rows, two splits

    message = cli("compare", plain, rescale, "--explain", *where)
    assert message.returncode == 0, message.stderr
    assert message.stdout.startswith("A: updn ce-plain")
    assert "Conclusions" in message.stdout
    document = json.loads(cli("compare", plain, rescale, "--explain", "--format", "json", *where).stdout)
    assert document["splits"][0]["categories"]["all"]["questions"]["questions"] == 12
    swapped = cli("compare", plain, plain, "--explain", *where)
    assert (swapped.returncode, "both are the same configuration" in swapped.stderr) == (2, True)
    both = cli("compare", plain.parent, rescale, "--explain", *where)
    assert "holds 2 configurations (updn ce-plain" in both.stderr
    assert both.returncode == 2


def test_the_paper_has_nothing_on_a_data_set_of_ones_own(cli: CommandLine, catalog: Path) -> None:
    assert cli("train", "updn", "--dataset", "tiny", "--catalog", catalog, *FAST).returncode == 0
    assert "tiny: the paper has no results on this data set" in cli("compare", "--published").stdout

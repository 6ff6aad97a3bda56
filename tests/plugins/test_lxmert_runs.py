"""LXMERT through the real command line, on the tiny data set, with weights and without."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LxmertConfig, LxmertForPreTraining

from tests.conftest import CommandLine
from tests.tiny import WIDTH, write_tiny

SIZES: dict[str, Any] = {"hidden": 12, "heads": 3, "language_layers": 2, "object_layers": 1, "cross_layers": 1}
SETTINGS = SIZES | {"recipe.lr": 0.003, "dropout": 0, "recipe.batch_size": 10}
FAST = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "how", "many", "sheep", "what", "color", "is", "the", "?")
ANSWERS = ("no", "red", "2", "blue", "white")


def answers(path: Path) -> list[tuple[int, str]]:
    """Read a results file; a run's own has confidences, too."""
    return [(one["question_id"], one["answer"]) for one in json.loads(path.read_bytes())]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make up published weights, with their word pieces and answers."""
    made = tmp_path / "published"
    torch.manual_seed(3)
    config = LxmertConfig(
        vocab_size=len(PIECES),
        hidden_size=12,
        intermediate_size=48,
        num_attention_heads=3,
        l_layers=2,
        r_layers=1,
        x_layers=1,
        visual_feat_dim=WIDTH,
        num_qa_labels=len(ANSWERS),
    )
    LxmertForPreTraining(config).save_pretrained(made)
    (made / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    (made / "answers.json").write_text(json.dumps(ANSWERS))
    return made


@pytest.mark.parametrize("objective", ["ce", "bce"])
def test_it_learns_with_rescaling_under_both_objectives(cli: CommandLine, tmp_path: Path, objective: str) -> None:
    own = ("--dataset", "tiny", "--catalog", write_tiny(tmp_path / "own"), *FAST, "--set", "recipe.warmup=0")
    done = cli("train", "lxmert", *own, "--loss", "rescale", "--objective", objective, "--epochs", "8", "--json")
    assert done.returncode == 0, done.stderr
    assert "no pre-trained weights: starts at random" in done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["objective"], row["loss"], row["branded"]) == (objective, "rescale", False)
    (record,) = (tmp_path / "runs" / "tiny" / "lxmert").glob("*/seed-0/epochs.jsonl")
    losses = [json.loads(line)["loss"] for line in record.read_text().splitlines()]
    assert losses[-1] < 0.9 * losses[0]


def test_a_run_without_weights_answers_again_as_it_did(cli: CommandLine, tmp_path: Path) -> None:
    catalog = write_tiny(tmp_path / "own")
    done = cli("train", "lxmert", "--dataset", "tiny", "--catalog", catalog, *FAST)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "tiny" / "lxmert").glob("*/seed-0")
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["notes"] == [
        "no pre-trained weights: starts at random, with word pieces learnt from the training questions"
    ]
    again = cli("predict", folder, "--split", "test", "--out", "again.json", "--catalog", catalog)
    assert again.returncode == 0, again.stderr
    assert answers(tmp_path / "again.json") == answers(folder / "predictions.test.json")


def test_training_with_the_mask_warns(cli: CommandLine, tmp_path: Path) -> None:
    own = ("--dataset", "tiny", "--catalog", write_tiny(tmp_path / "own"), *FAST, "--epochs", "1")
    done = cli("train", "lxmert", *own, "--loss", "mask")
    assert done.returncode == 0, done.stderr
    assert "warning: lxmert with mask: the paper of the answer mask does not combine it" in done.stderr
    assert "lxmert with" not in cli("train", "lxmert", *own, "--loss", "rescale").stderr


def test_a_run_from_published_weights_is_branded_in_every_table(
    cli: CommandLine, folder: Path, tmp_path: Path
) -> None:
    catalog = write_tiny(tmp_path / "own")
    own = ("--dataset", "tiny", "--catalog", catalog, *FAST, "--epochs", "1")
    done = cli("train", "lxmert", *own, "--set", f"weights={folder}")
    assert done.returncode == 0, done.stderr
    assert f"lxmert: starts from the weights {folder}: the answer head knows 4 of the 6 answers" in done.stderr
    (run,) = (tmp_path / "runs" / "tiny" / "lxmert").glob("*/seed-0")
    manifest = json.loads((run / "run.json").read_text())
    assert "pre-trained on VQA v2" in manifest["pretraining"][0]
    assert len(manifest["notes"]) == 1
    assert cli("train", "lxmert", *own).returncode == 0
    rows = json.loads(cli("compare", "--format", "json").stdout)["rows"]
    assert sorted(row["branded"] for row in rows) == [False, True]
    for form in ("table", "markdown"):
        table = " ".join(cli("compare", "--format", form, COLUMNS="300").stdout.split())
        assert re.search(r"‡ the weights it started from \(SHA-256 \w+\) were pre-trained on VQA v2", table)
    again = cli("predict", run, "--split", "test", "--out", "again.json", "--catalog", catalog)
    assert again.returncode == 0, again.stderr
    assert answers(tmp_path / "again.json") == answers(run / "predictions.test.json")


def test_a_run_needs_nothing_but_its_folder_once_it_has_begun(
    cli: CommandLine, folder: Path, tmp_path: Path
) -> None:
    catalog = write_tiny(tmp_path / "own")
    own = ("--dataset", "tiny", "--catalog", catalog, *FAST, "--epochs", "1")
    assert cli("train", "lxmert", *own, "--set", f"weights={folder}").returncode == 0
    (run,) = (tmp_path / "runs" / "tiny" / "lxmert").glob("*/seed-0")
    shutil.rmtree(folder)
    again = cli("predict", run, "--split", "test", "--out", "again.json", "--catalog", catalog)
    assert again.returncode == 0, again.stderr
    assert answers(tmp_path / "again.json") == answers(run / "predictions.test.json")
    tuned = cli("train", "lxmert", *own[:-2], "--finetune-epochs", "1", "--from", run, "--label", "tuned")
    assert tuned.returncode == 0, tuned.stderr
    rows = json.loads(cli("compare", "--format", "json").stdout)["rows"]
    assert [row["branded"] for row in rows] == [True, True]  # what it started from has seen the same


def test_a_run_that_begins_twice_is_marked_once(cli: CommandLine, folder: Path, tmp_path: Path) -> None:
    own = ("--dataset", "tiny", "--catalog", write_tiny(tmp_path / "own"), *FAST, "--epochs", "1")
    command = ("train", "lxmert", *own, "--set", f"weights={folder}")
    assert cli(*command).returncode == 0
    (file,) = (tmp_path / "runs").glob("**/run.json")
    finished = json.loads(file.read_text())
    for name in ("model.safetensors", "scores.json", "epochs.jsonl"):  # as if stopped within its first epoch
        file.with_name(name).unlink()
    file.write_text(json.dumps(finished | {"status": "stopped", "epoch": None}))
    assert cli(*command, "--resume").returncode == 0
    again = json.loads(file.read_text())
    for name in ("pretraining", "notes", "parameters"):
        assert again[name] == finished[name]
    file.with_name("scores.json").unlink()
    shutil.rmtree(folder)
    assert cli(*command, "--resume").returncode == 0  # scores it again
    assert json.loads(file.read_text())["parameters"] == finished["parameters"]


def test_a_run_that_cannot_begin_leaves_no_folder(cli: CommandLine, tmp_path: Path) -> None:
    own = ("--dataset", "tiny", "--catalog", write_tiny(tmp_path / "own"), *FAST, "--epochs", "1")
    done = cli("train", "lxmert", *own, "--set", "weights=./nowhere")
    assert done.returncode == 2
    assert "there is no folder ./nowhere" in done.stderr
    assert len(done.stderr.strip().splitlines()[-1:]) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_names_of_the_hub_are_found_in_its_cache_when_offline(
    vqabench: CommandLine, folder: Path, tmp_path: Path
) -> None:
    cached = tmp_path / "hub" / "models--made--up"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, cached / "snapshots" / ("0" * 40))
    own = ("--dataset", "tiny", "--catalog", write_tiny(tmp_path / "own"), *FAST, "--epochs", "1")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = vqabench("train", "lxmert", *own, "--set", "weights=made/up", **offline)
    assert done.returncode == 0, done.stderr
    assert "starts from the weights made/up" in done.stderr
    other = vqabench("train", "lxmert", *own, "--set", "weights=made/down", **offline)
    assert other.returncode == 2
    assert "no folder made/down, and no repository of that name on the Hugging Face hub" in other.stderr
    assert "Traceback" not in other.stderr

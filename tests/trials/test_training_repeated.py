"""Runs that cannot be repeated: code that computes otherwise elsewhere, edited plugins, files that have rotted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.outcomes import assert_done, assert_refused
from tests.trials.conftest import Trial, forget_plugins

pytestmark = pytest.mark.slow

UPDN = ("updn", "--set", "hidden=8", "--set", "embedding=8")

HASHED = """
import torch
from torch import nn
from vqabench.api import Backbone, Output


class Model(Backbone):
    \"\"\"Numbers words in a way of its own.\"\"\"

    def __init__(self, spec, *, hidden: int = 8):
        super().__init__(spec)
        self.embedding = nn.EmbeddingBag(64, hidden)
        self.classifier = nn.Linear(hidden, len(spec.answers))

    def prepare_questions(self, questions):
        words = {words}
        return {{"own": torch.tensor([[number(word, words) for word in text.split()[:3] + ["", "", ""]][:3]
                                      for text in questions])}}

    def forward(self, batch):
        return Output(logits_BA=self.classifier(self.embedding(batch.extras["own"])))


def number(word, words):
    return {number}
"""
HASH = ("()", "hash(word) % 64")
SOUND = ("sorted({word for text in questions for word in text.split()} | {''})", "words.index(word) % 64")


def install(trial: Trial, name: str, numbering: tuple[str, str]) -> Path:
    words, number = numbering
    module = trial.install(name, HASHED.format(words=words, number=number))
    trial.declare(name, f"[vqabench.backbones]\n{name} = trial_{name}:Model\n")
    return module


def test_a_tokeniser_that_depends_on_hash_is_found_by_plugins_check(trial: Trial) -> None:
    install(trial, "hash", HASH)
    checked = trial.cli("plugins", "check", "hash", "--only", "processes")
    assert checked.returncode == 1
    assert "FAILED    processes: the questions' own differ in another process" in checked.stdout
    assert "hash()" in checked.stdout


def test_a_tokeniser_that_sorts_passes(trial: Trial) -> None:
    install(trial, "sorts", SOUND)
    assert_done(trial.cli("plugins", "check", "sorts", "--only", "processes"), "ok        processes")


def test_a_loss_that_depends_on_hash_is_found(trial: Trial) -> None:
    trial.install(
        "hashed_loss",
        "from vqabench.api import Loss\n\n\nclass Model(Loss):\n    '''A loss.'''\n\n"
        "    def forward(self, logits_BA, batch):\n        return logits_BA.mean() * (hash('a') % 1000)\n",
    )
    trial.declare("hashed_loss", "[vqabench.losses]\nhashed_loss = trial_hashed_loss:Model\n")
    checked = trial.cli("plugins", "check", "hashed_loss", "--only", "processes")
    assert (checked.returncode, "in another process" in checked.stdout) == (1, True)


def test_predict_keeps_stored_answers_where_an_edited_plugin_gives_others(trial: Trial) -> None:
    module = trial.plugin("edited")
    assert_done(trial.train("edited"))
    (run,) = trial.runs("edited")
    answers, scores = run / "predictions.test.json", run / "scores.json"
    before, scored = answers.read_bytes(), scores.read_bytes()
    assert_done(trial.cli("predict", run))
    assert answers.read_bytes() == before
    module.write_text(module.read_text().replace("pass", "logits = -logits"))
    forget_plugins()
    ended = trial.cli("predict", run)
    assert_refused(
        ended, "other source files of vqabench-edited", "different answers", "--out", "--force", str(answers.name)
    )
    assert (answers.read_bytes(), scores.read_bytes()) == (before, scored)
    ended = trial.cli("predict", run, "--out", "elsewhere.json")
    assert_done(ended, "other source files of vqabench-edited", "answers differ from those in")
    assert (trial.folder / "elsewhere.json").is_file()
    assert_done(trial.cli("predict", run, "--force"))
    assert answers.read_bytes() != before
    manifest = json.loads((run / "run.json").read_text())
    assert any("predictions.test.json" in note for note in manifest["notes"])
    shown = trial.cli("compare")  # the scores are those of the answers that are there now
    assert_done(shown)
    evaluated = trial.cli("evaluate", answers, "--dataset", "tiny", "--split", "test", "--json")
    stored = json.loads(scores.read_text())["test"]
    assert stored == json.loads(evaluated.stdout)


def test_a_run_that_is_scored_again_keeps_its_answers_where_an_edited_plugin_gives_others(trial: Trial) -> None:
    module = trial.plugin("rescored")
    assert_done(trial.train("rescored"))
    (run,) = trial.runs("rescored")
    before = (run / "predictions.test.json").read_bytes()
    scored = (run / "scores.json").read_bytes()
    (run / "scores.json").unlink()
    module.write_text(module.read_text().replace("pass", "logits = -logits"))
    forget_plugins()
    ended = trial.train("rescored", "--resume")
    assert_done(ended, "other source files of vqabench-rescored", "the stored answers are kept")
    assert (run / "predictions.test.json").read_bytes() == before
    assert (run / "scores.json").read_bytes() == scored


@pytest.fixture
def trained(trial: Trial) -> Path:
    assert_done(trial.train(*UPDN))
    (run,) = trial.runs("updn")
    return run


def spoil(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert content.count(old) > 0
    file.write_bytes(content.replace(old, new, 1))


def test_rotten_weights_are_neither_scored_nor_answered_with_nor_started_from(trial: Trial, trained: Path) -> None:
    weights = trained / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0x80  # another sign
    weights.write_bytes(content)
    before = (trained / "predictions.test.json").read_bytes()
    for command in (
        ("predict", trained),
        ("train", *UPDN, *trial.data, "--epochs", "1", "--set", "recipe.batch_size=16", "--resume"),
        ("train", *UPDN, *trial.data, "--from", trained),
    ):
        assert_refused(trial.cli(*command), "model.safetensors: damaged", "restore it")
    assert (trained / "predictions.test.json").read_bytes() == before


def test_rotten_scores_are_told_and_computed_again(trial: Trial, trained: Path) -> None:
    before = (trained / "scores.json").read_bytes()
    spoil(trained / "scores.json", b'"questions": 12', b'"questions": 13')
    shown = trial.cli("compare")
    assert "damaged" in shown.stderr, shown
    assert_done(trial.train(*UPDN, "--resume"))
    assert (trained / "scores.json").read_bytes() == before


def test_rotten_answers_are_told_and_given_again(trial: Trial, trained: Path) -> None:
    answers = trained / "predictions.test.json"
    before = answers.read_bytes()
    spoil(answers, b'"answer":"', b'"answer":"x')
    assert_refused(trial.cli("predict", trained), "predictions.test.json: damaged", "--force")
    assert_done(trial.train(*UPDN, "--resume"), "predictions.test.json: damaged")
    assert answers.read_bytes() == before


def test_a_checkpoint_whose_bytes_have_rotted_is_not_gone_on_with(trial: Trial) -> None:
    trial.plugin(
        "stops",
        "if self.training:\n    Model.calls = getattr(Model, 'calls', 0) + 1\n"
        "    if Model.calls == 6: raise ValueError('stop')",
    )
    train = ("train", "stops", "--dataset", "tiny", "--epochs", "3", "--set", "recipe.batch_size=16")
    assert_refused(trial.cli(*train), "stop", code=1)
    (run,) = trial.runs("stops")
    checkpoint = run / "resume.pt"
    content = bytearray(checkpoint.read_bytes())
    data = content.index(b"/data/0") + 64
    content[data + 64] ^= 0x80
    checkpoint.write_bytes(content)
    assert_refused(trial.cli(*train, "--resume"), "resume.pt: damaged", "--force")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00 not UTF-8", b"", b"\x00" * 100])
def test_weights_that_are_none_are_called_damaged(trial: Trial, trained: Path, content: bytes) -> None:
    (trained / "model.safetensors").write_bytes(content)
    assert_refused(trial.cli("predict", trained), "model.safetensors: damaged")


def test_a_folder_in_the_place_of_weights_cannot_be_read(trial: Trial, trained: Path) -> None:
    (trained / "model.safetensors").unlink()
    (trained / "model.safetensors").mkdir()
    ended = trial.cli("predict", trained)
    assert_refused(ended, "model.safetensors: a folder, not a file")
    assert "missing" not in ended.stderr

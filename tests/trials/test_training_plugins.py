"""Plugins that break their promises while they are trained and asked: each ends in one line that names them."""

from __future__ import annotations

import json
import signal

import pytest

from tests.outcomes import assert_done, assert_refused
from tests.trials.conftest import Trial

pytestmark = pytest.mark.slow

LOSS = """
import torch
from vqabench.api import Loss, plain_loss


class Model(Loss):
    \"\"\"A loss.\"\"\"

    def forward(self, logits_BA, batch):
        loss_BA = plain_loss(self.objective, logits_BA, batch.targets_BA)
        {body}
"""


UPDN = ("--set", "hidden=8", "--set", "embedding=8")

ENDS = {
    "system_exit_0": ("sys.exit(0)", "SystemExit: 0"),
    "system_exit_none": ("sys.exit()", "SystemExit: 0"),
    "system_exit_75": ("sys.exit(75)", "SystemExit: 75"),
    "system_exit_130": ("sys.exit(130)", "SystemExit: 130"),
    "system_exit_text": ("sys.exit('bye')", "SystemExit: bye"),
    "generator_exit": ("raise GeneratorExit('gone')", "GeneratorExit: gone"),
    "base_exception": ("raise BaseException('base')", "BaseException: base"),
    "stop_iteration": ("next(iter(()))", "StopIteration"),
    "key_error": ("{}['absent']", "KeyError: 'absent'"),
    "os_error": ("open('/nowhere/at/all')", "FileNotFoundError"),
    "recursion": ("(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
    "shape": ("self.classifier(logits)", "RuntimeError"),
    "cannot_spell": ("raise type('Odd', (Exception,), {'__str__': lambda s: 1 / 0})()", "Odd"),
}


@pytest.mark.parametrize("name", ENDS)
def test_whatever_a_forward_pass_raises_fails_the_run_and_names_plugin_file_and_line(
    trial: Trial, name: str
) -> None:
    body, message = ENDS[name]
    module = trial.plugin(name, body)
    line = module.read_text().splitlines().index(f"        {body}") + 1
    ended = trial.train(name)
    place = f"({module}, line {line})"
    assert_refused(ended, f"{name} (from vqabench-", message, place, f"vqabench plugins check {name}", code=1)
    (run,) = trial.runs(name)
    assert json.loads((run / "run.json").read_text())["status"] == "failed"


def test_a_keyboard_interrupt_that_a_plugin_raises_is_not_told_as_ctrl_c(trial: Trial) -> None:
    trial.plugin("interrupts", "raise KeyboardInterrupt")
    ended = trial.run("train", "interrupts", *trial.data, "--epochs", "1")
    assert_refused(ended, "interrupts (from vqabench-interrupts)", "KeyboardInterrupt", code=1)
    assert "Ctrl-C" not in ended.stderr
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # so that Ctrl-C does not raise the same, as in a process
    ended = trial.cli("plugins", "check", "interrupts", "--only", "output")
    signal.signal(signal.SIGINT, before)
    assert (ended.returncode, "KeyboardInterrupt" in ended.stdout) == (1, True)


HOOKS = {
    "class_body": ("class", "SystemExit(0)"),
    "init": ("__init__(self, spec)", "SystemExit(0)"),
    "start": ("start(self)", "GeneratorExit('x')"),
    "prepare_questions": ("prepare_questions(self, questions)", "SystemExit(3)"),
    "training_losses": ("training_losses(self, batch, criterion)", "SystemExit(0)"),
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_plugin_that_ends_the_program_elsewhere_fails_likewise(trial: Trial, name: str) -> None:
    hook, error = HOOKS[name]
    source = "from vqabench.api import Backbone, Output\nfrom torch import nn\n\n\nclass Model(Backbone):\n"
    if hook == "class":
        source += f"    raise {error}\n"
    else:
        source += "    layer = None\n"
        if name != "init":
            source += "    def __init__(self, spec):\n        super().__init__(spec)\n"
            source += "        self.layer = nn.Linear(2, 2)\n"
        source += f"    def {hook}:\n        raise {error}\n"
    trial.install(name, source)
    trial.declare(name, f"[vqabench.backbones]\n{name} = trial_{name}:Model\n")
    ended = trial.train(name)
    assert ended.returncode in (1, 2)
    assert_refused(ended, name, f"vqabench-{name.replace('_', '-')}", error[:10], "line ", code=ended.returncode)
    statuses = [json.loads((run / "run.json").read_text())["status"] for run in trial.runs(name)]
    assert set(statuses) <= {"failed"}


MALFORMED = {
    "a_row_too_few": "logits = logits[:-1]",
    "a_row_too_many": "logits = torch.cat([logits, logits[:1]])",
    "last_batch_short": "logits = logits if len(batch) == 16 else logits[:-1]",
    "a_column_too_few": "logits = logits[:, :-1]",
    "a_third_dimension": "logits = logits[None]",
    "integers": "logits = (100 * logits).long()",
    "booleans": "logits = logits > 0",
    "an_array": "logits = logits.detach().numpy()",
    "nothing": "logits = None",
    "no_output": "return logits",
    "a_tuple": "return (Output(logits_BA=logits),)",
    "penalties_a_list": "return Output(logits_BA=logits, penalties=[logits.sum()])",
    "a_penalty_per_question": "return Output(logits_BA=logits, penalties={'own': logits.sum(1)})",
    "auxiliary_without_weight": "return Output(logits_BA=logits, auxiliary={'own': logits})",
    "auxiliary_short": "return Output(logits_BA=logits, auxiliary={'own': (logits[:-1], 1.0)})",
}


@pytest.mark.parametrize("when", ["training", "answering"])
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_output_is_refused_in_training_and_in_answering(trial: Trial, name: str, when: str) -> None:
    condition = "self.training" if when == "training" else "not self.training"
    trial.plugin(name, f"if {condition}:\n    {MALFORMED[name]}")
    ended = trial.train(name)
    assert_refused(ended, f"{name} (from vqabench-", "must", f"vqabench plugins check {name}")


INFINITE = {
    "all_infinite": "logits = logits * 0 + float('inf')",
    "all_minus_infinite": "logits = logits * 0 - float('inf')",
    "one_infinite": "logits = logits.index_fill(1, torch.tensor([1]), float('inf'))",
    "not_a_number": "logits = logits * float('nan')",
}


@pytest.mark.parametrize("name", INFINITE)
def test_answers_whose_largest_logit_is_not_finite_are_refused(trial: Trial, name: str) -> None:
    trial.plugin(name, f"if not self.training:\n    {INFINITE[name]}")
    assert_refused(trial.train(name), "12 of 12 questions", "not a finite number", code=1)


def test_a_single_answer_may_be_ruled_out_with_minus_infinity(trial: Trial) -> None:
    trial.plugin("rules_out", "if not self.training:\n    logits[:, 0] = float('-inf')")
    assert_done(trial.train("rules_out"))


LOSSES = {
    "a_number_per_question": "return loss_BA.sum(1)",
    "a_number_per_answer": "return loss_BA",
    "a_list_of_one": "return loss_BA.sum(1).mean()[None]",
    "a_float": "return float(loss_BA.detach().mean())",
    "an_integer": "return loss_BA.mean().long()",
    "nothing": "return None",
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_is_no_scalar_is_refused_by_its_name(trial: Trial, name: str) -> None:
    trial.install(name, LOSS.format(body=LOSSES[name]))
    trial.declare(name, f"[vqabench.losses]\n{name} = trial_{name}:Model\n")
    ended = trial.train("updn", "--loss", name, *UPDN)
    assert_refused(ended, f"{name} (from vqabench-", "a scalar", f"vqabench plugins check {name}")


def test_a_loss_that_crashes_is_named_with_its_line(trial: Trial) -> None:
    module = trial.install("crashes", LOSS.format(body="return loss_BA.undefined()"))
    trial.declare("crashes", "[vqabench.losses]\ncrashes = trial_crashes:Model\n")
    ended = trial.train("updn", "--loss", "crashes", *UPDN)
    line = next(n for n, text in enumerate(module.read_text().splitlines(), 1) if "undefined" in text)
    assert_refused(ended, "crashes (from vqabench-crashes) failed", f"({module}, line {line})", code=1)


YIELDS = {
    "a_list": "return [criterion(self(batch), batch)]",
    "nothing_at_all": "yield from ()",
    "none_first": "yield None\n    yield criterion(self(batch), batch)",
    "a_vector": "yield criterion(self(batch), batch)[None]",
    "a_constant": "yield torch.tensor(1.0)",
}


@pytest.mark.parametrize("name", YIELDS)
def test_training_losses_of_another_form_are_refused(trial: Trial, name: str) -> None:
    module = trial.plugin(name)
    body = YIELDS[name].replace("\n", "\n    ")
    module.write_text(f"{module.read_text()}\n    def training_losses(self, batch, criterion):\n        {body}\n")
    assert_refused(trial.train(name), f"{name} (from vqabench-", f"vqabench plugins check {name}")


TOKENISERS = {
    "a_row_too_few": "{'own': torch.zeros(len(questions) - 1, 3)}",
    "a_row_too_many": "{'own': torch.zeros(len(questions) + 1, 3)}",
    "a_list": "[torch.zeros(len(questions))]",
    "lists": "{'own': [[1]] * len(questions)}",
    "a_number": "{'own': torch.zeros(())}",
}


@pytest.mark.parametrize("name", TOKENISERS)
def test_a_tokeniser_without_a_row_for_each_question_is_refused(trial: Trial, name: str) -> None:
    module = trial.plugin(name)
    own = f"\n    def prepare_questions(self, questions):\n        return {TOKENISERS[name]}\n"
    module.write_text(module.read_text() + own)
    assert_refused(trial.train(name), f"{name} (from vqabench-", "prepare_questions")


@pytest.mark.parametrize("where", ["import", "init", "forward"])
def test_a_plugin_that_changes_the_working_folder_moves_no_run(trial: Trial, where: str) -> None:
    elsewhere = trial.folder / "elsewhere"
    elsewhere.mkdir()
    move = f"os.chdir({str(elsewhere)!r})"
    name = f"moves_in_{where}"
    module = trial.plugin(name, move if where == "forward" else "pass")
    source = module.read_text()
    if where == "import":
        source += f"\n{move}\n"
    elif where == "init":
        source = source.replace("super().__init__(spec)", f"super().__init__(spec); {move}")
    module.write_text(source)
    assert_done(trial.train(name))
    assert len(trial.runs(name)) == 1
    assert not list(elsewhere.iterdir())


def test_what_a_plugin_prints_stays_out_of_the_document_on_stdout(trial: Trial) -> None:
    trial.plugin("prints", "print('a step')")
    ended = trial.train("prints", "--json")
    assert_done(ended)
    json.loads(ended.stdout)


ATTRIBUTES = {
    "objectives_a_number": "objectives = 5",
    "objectives_unknown": "objectives = ('hinge',)",
    "objectives_none": "objectives = None",
    "objectives_empty": "objectives = ()",
    "recipe_epochs_text": "recipe = Recipe(epochs='many')",
    "recipe_lr_none": "recipe = Recipe(lr=None)",
    "recipe_lr_negative": "recipe = Recipe(lr=-1.0)",
    "recipe_optimizer_unknown": "recipe = Recipe(optimizer='sgd')",
    "recipe_a_dictionary": "recipe = {'epochs': 3}",
    "advises_against_none": "advises_against = None",
    "advises_against_a_list": "advises_against = ['plain']",
    "declarations_a_list": "declarations = ['words']",
    "notes_a_number": "notes = 5",
    "notes_of_numbers": "notes = (5,)",
    "brands_a_number": "brands = 5",
    "brands_of_numbers": "brands = (5,)",
    "api_version_text": "api_version = '1'",
    "default_base_a_number": "default_base = 5",
    "forward_a_number": "forward = 5",
    "state_dict_a_number": "state_dict = 5",
    "parameters_a_number": "parameters = 5",
    "training_losses_none": "training_losses = None",
    "prepare_questions_a_number": "prepare_questions = 5",
    "start_a_number": "start = 5",
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_class_with_odd_attributes_trains_or_is_refused_by_name(trial: Trial, name: str) -> None:
    module = trial.plugin(name)
    source = module.read_text().replace("import Backbone,", "import Recipe, Backbone,")
    module.write_text(f"{source}\n    {ATTRIBUTES[name]}\n")
    ended = trial.train(name)
    if ended.returncode:
        last = ended.stderr.splitlines()[-1]
        assert_refused(ended, code=ended.returncode)
        assert ended.returncode in (1, 2)
        assert "error: " in last
        assert f"vqabench-{name.replace('_', '-')}" in last, last

"""`vqabench plugins check` and `new`, from an empty folder to a trained run."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.outcomes import fails
from tests.plugin_installation import install, install_fixture
from tests.tiny import write_tiny
from vqabench import api
from vqabench.errors import PluginError
from vqabench.plugins import BACKBONES, LOSSES, Plugin, available, load
from vqabench.testing import check_class

INSTALLED = [plugin for group in (BACKBONES, LOSSES) for plugin in available(group).plugins]
FIRST_PARTY = [plugin for plugin in INSTALLED if "vqabench" in plugin.distribution]
NAMES = {group: [plugin.name for plugin in FIRST_PARTY if plugin.group == group] for group in (BACKBONES, LOSSES)}
CHECKED_ALONE = ("updn", "lxmert")
"""Backbones that all other checks are run on by their own tests."""


def is_bad(status: str, message: str) -> bool:
    """Return whether a check failed, or an exemption from it is not needed."""
    return status == "failed" or "here it holds" in message


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[BACKBONES])
def test_first_party_backbones_keep_what_the_api_promises(cli: CommandLine, name: str) -> None:
    only = ("--only", "processes") if name in CHECKED_ALONE else ()
    done = cli("plugins", "check", name, "--json", *only)
    bad = [one for one in json.loads(done.stdout) if is_bad(one["status"], one["message"])]
    assert (done.returncode, bad) == (0, [])


@pytest.mark.parametrize("plugin", [one for one in FIRST_PARTY if one.group == LOSSES], ids=NAMES[LOSSES])
def test_first_party_losses_keep_what_the_api_promises(plugin: Plugin) -> None:
    assert [check for check in check_class(load(plugin)) if is_bad(check.status, check.message)] == []


@pytest.mark.slow
def test_a_wrapper_keeps_it_around_another_base_too(cli: CommandLine) -> None:
    done = cli("plugins", "check", "lmh", "--set", "base=lxmert")
    assert done.returncode == 0, done.stdout


def test_a_class_of_an_earlier_version_is_refused_when_the_api_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that states no version: it was written for the first one."""
    monkeypatch.setattr(api, "API_VERSION", 2)
    for plugin in INSTALLED:
        with pytest.raises(PluginError, match="built for version 1 of the plugin API"):
            load(plugin)


def make_environment(folder: Path) -> Path:
    """Create a virtual environment with the packages of this one; return its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    outer = sysconfig.get_path("purelib")
    (packages / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    return folder / "bin"


def run(*words: str | Path, where: Path, data: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(where), "VQABENCH_DATA": str(data)}
    return subprocess.run(
        list(map(str, words)), cwd=where, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_new_plugins_pass_their_own_tests_and_are_installed_listed_checked_trained_compared_and_removed(
    tmp_path: Path,
) -> None:
    programs, empty = make_environment(tmp_path / "venv"), tmp_path / "empty"
    empty.mkdir()

    def call(*words: str | Path) -> str:
        done = run(programs / "python", "-m", *words, where=empty, data=tmp_path / "data")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for name, *options in (("my-model",), ("my-loss", "--loss")):
        made = call("vqabench", "plugins", "new", name, *options)
        assert f"next: pip install -e './vqabench-{name}[test]' && vqabench plugins check {name}" in made
    folders = ("vqabench-my-model", "vqabench-my-loss")
    editable = [word for folder in folders for word in ("-e", f"./{folder}[test]")]
    call("pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "-q", *editable)
    call("pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", ".", *folders)
    listed = call("vqabench", "plugins", "list")
    assert "my-model" in listed
    assert "my-loss" in listed
    assert call("vqabench", "plugins", "check", "my-model").startswith("backbone my-model, from ")
    where = ("--dataset", "tiny", "--catalog", write_tiny(tmp_path / "own"), "--epochs", "1", "--set", "hidden=4")
    call("vqabench", "train", "my-model", "--loss", "my-loss", *where)
    assert "my-loss" in call("vqabench", "compare")
    call("pip", "uninstall", "-q", "-y", *folders)
    assert "my-" not in call("vqabench", "plugins", "list")


def test_a_new_plugin_is_not_written_where_it_cannot_be(cli: CommandLine, tmp_path: Path) -> None:
    for name in ("My", "a_b", "", "-a", "a--b", "a" * 51):
        fails(cli("plugins", "new", "--", name), "is not a valid plugin name")
    fails(cli("plugins", "new", "updn"), "backbone 'updn' exists already, from vqabench-updn")
    fails(cli("plugins", "new", "updn", "--loss"), "backbone 'updn' exists already, from vqabench-updn")
    fails(cli("plugins", "new", "baselines"), "a distribution vqabench-baselines is installed already")
    fails(cli("plugins", "new", "recipe", "--loss"), "'recipe' cannot name a loss")
    (tmp_path / "vqabench-mine").mkdir()
    fails(cli("plugins", "new", "mine"), "vqabench-mine: exists")
    (tmp_path / "vqabench-gone").symlink_to("nowhere")
    fails(cli("plugins", "new", "gone"), "vqabench-gone: exists")
    (tmp_path / "file").write_text("")
    fails(cli("plugins", "new", "other", "--in", "file"), "--in file: ", "is a file, not a folder")
    assert {path.name for path in tmp_path.iterdir()} == {"vqabench-mine", "vqabench-gone", "file"}


@pytest.mark.slow
def test_new_plugins_are_well_typed_and_well_formed(cli: CommandLine, tmp_path: Path) -> None:
    for words in (("mine",), ("my-loss", "--loss")):
        assert cli("plugins", "new", *words).returncode == 0
    folders = ("vqabench-mine", "vqabench-my-loss")
    commands = [(folder, command) for folder in folders for command in ("ruff check .", "ruff format --check .")]
    for folder, command in (*commands, (".", f"mypy --strict {' '.join(folders)}")):
        call = [sys.executable, "-m", *command.split()]
        done = subprocess.run(call, cwd=tmp_path / folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "options", "class_name"),
    [
        ("none", (), "NoneBackbone"),
        ("output", (), "OutputBackbone"),
        ("tensor", ("--loss",), "TensorLoss"),
        ("my-model", (), "MyModel"),
    ],
)
def test_a_new_plugin_s_class_has_a_name_of_its_own(
    cli: CommandLine, tmp_path: Path, name: str, options: tuple[str, ...], class_name: str
) -> None:
    assert cli("plugins", "new", name, *options).returncode == 0
    module = f"vqabench_{name.replace('-', '_')}"
    entry = f'{name} = "{module}:{class_name}"'
    assert entry in (tmp_path / f"vqabench-{name}" / "pyproject.toml").read_text()
    code = (tmp_path / f"vqabench-{name}" / module / "__init__.py").read_text()
    assert [node.name for node in ast.parse(code).body if isinstance(node, ast.ClassDef)] == [class_name]


def test_a_failed_check_is_reported_and_the_exit_code_is_1(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("plugins", "new", "idle")
    module = tmp_path / "vqabench-idle" / "vqabench_idle" / "__init__.py"
    module.write_text(
        module.read_text().replace(
            "        self.classifier =", "        self.more = nn.Linear(1, 1)\n        self.classifier ="
        )
    )
    install(tmp_path / "vqabench-idle", tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    done = cli("plugins", "check", "idle", "--only", "gradients", "--only", "padding")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "backbone idle, from vqabench-idle 0.1.0 (vqabench_idle:Idle)",
        "ok        padding: the same logits alone and in a padded batch",
        "FAILED    gradients: bce: no gradient reaches more.weight, more.bias",
        "1 passed, 1 failed",
        "If a check cannot apply to this class, declare that in its `declarations`, with the reason.",
    ]
    fails(cli("plugins", "check", "idle", "--set", "hidden=0"), "hidden must be at least 1")
    fails(cli("plugins", "check", "idel"), "unknown plugin 'idel': did you mean 'idle'")


def test_settings_that_a_loss_refuses_are_a_mistake_and_no_failed_check(cli: CommandLine) -> None:
    fails(cli("plugins", "check", "focal", "--set", "gamma=-1"), "gamma")
    fails(cli("plugins", "check", "focal", "--set", "focal.gamma=-1"), "gamma")
    fails(cli("plugins", "check", "mask", "--set", "dropout=2"), "dropout")
    fails(cli("plugins", "check", "updn", "--set", "recipe.lr=1"), "the checks use a recipe of their own")


@pytest.mark.parametrize(("fixture", "message"), [("other_api", "version 99"), ("broken", "cannot be loaded")])
def test_a_plugin_that_cannot_be_loaded_fails_its_check(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixture: str, message: str
) -> None:
    install_fixture(fixture, tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    (name,) = [one.name for one in available(BACKBONES).plugins if fixture in one.target]
    done = cli("plugins", "check", name)
    assert done.returncode == 1
    assert f"FAILED    load: backbone '{name}' of " in done.stdout
    assert message in done.stdout

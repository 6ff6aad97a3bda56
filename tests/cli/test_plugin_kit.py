"""`vqabench plugins check` and `new`, from an empty folder to a trained run."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_mistakes import fails
from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.plugins import BACKBONES, LOSSES, available

INSTALLED = [plugin for group in (BACKBONES, LOSSES) for plugin in available(group).plugins]
FIRST_PARTY = [plugin.name for plugin in INSTALLED if "vqabench" in plugin.distribution]
SMALL: dict[str, list[str]] = {
    "lxmert": ["hidden=32", "heads=2", "language_layers=1", "object_layers=1", "cross_layers=1"],
}
"""Settings of those that are large by default."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST_PARTY)
def test_first_party_plugins_keep_what_the_api_promises(cli: CommandLine, name: str) -> None:
    settings = [word for setting in SMALL.get(name, []) for word in ("--set", setting)]
    done = cli("plugins", "check", name, *settings, "--json")
    bad = [check for check in json.loads(done.stdout) if check["status"] == "failed"]
    assert (done.returncode, bad) == (0, [])


def install(source: Path, target: Path) -> None:
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "train"),
    [("my-model", (), ("my-model",)), ("my-loss", ("--loss",), ("updn", "--loss", "my-loss"))],
)
def test_a_new_plugin_passes_its_own_tests_and_is_installed_listed_checked_trained_compared_and_removed(
    cli: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: tuple[str, ...],
    train: tuple[str, ...],
) -> None:
    done = cli("plugins", "new", name, *options)
    assert done.returncode == 0, done.stderr
    assert f"next: pip install -e './vqabench-{name}[test]' && vqabench plugins check {name}" in done.stdout
    source, installed = tmp_path / f"vqabench-{name}", tmp_path / "installed"
    tested = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(source),
            str(source / "tests"),
        ],
        env={"PYTHONPATH": str(source), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    install(source, installed)
    monkeypatch.syspath_prepend(installed)
    assert name in cli("plugins", "list").stdout
    assert cli("plugins", "check", name).returncode == 0
    where = ("--dataset", "tiny", "--catalog", write_tiny(tmp_path / "own"), "--epochs", "1", "--set", "hidden=4")
    done = cli("train", *train, *where)
    assert done.returncode == 0, done.stderr
    assert name in cli("compare").stdout
    shutil.rmtree(installed)
    assert name not in cli("plugins", "list").stdout


def test_a_new_plugin_is_not_written_where_it_cannot_be(cli: CommandLine, tmp_path: Path) -> None:
    for name in ("My", "a_b", "", "-a", "a--b"):
        fails(cli("plugins", "new", "--", name), "cannot name a plugin")
    fails(cli("plugins", "new", "updn"), "backbone 'updn' is there already, from vqabench-updn")
    fails(cli("plugins", "new", "updn", "--loss"), "a distribution vqabench-updn is installed already")
    fails(cli("plugins", "new", "recipe", "--loss"), "'recipe' cannot name a loss")
    (tmp_path / "vqabench-mine").mkdir()
    fails(cli("plugins", "new", "mine"), "vqabench-mine: exists")
    (tmp_path / "file").write_text("")
    fails(cli("plugins", "new", "other", "--in", "file"), "file: File exists")
    assert {path.name for path in tmp_path.iterdir()} == {"vqabench-mine", "file"}


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


def test_a_check_that_fails_is_told_and_its_exit_code_is_1(
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
        "ok        padding: the same logits alone and in a padded batch",
        "FAILED    gradients: no gradient reaches more.weight, more.bias",
    ]
    fails(cli("plugins", "check", "idle", "--set", "hidden=0"), "hidden must be at least 1")
    fails(cli("plugins", "check", "idel"), "unknown plugin 'idel': did you mean 'idle'")

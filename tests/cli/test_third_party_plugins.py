"""Plugins of strangers: really installed, found, trained, and gone once they are removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.plugin_installation import install_fixture
from tests.tiny import write_tiny


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "own")


def names(cli: CommandLine) -> list[str]:
    return [plugin["name"] for plugin in json.loads(cli("plugins", "list", "--json").stdout)]


def test_a_backbone_is_installed_trained_and_removed(
    cli: CommandLine, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = install_fixture("words_only", tmp_path / "installed")
    monkeypatch.syspath_prepend(installed)
    assert "words-only" in names(cli)
    assert "hidden" in cli("plugins", "show", "words-only").stdout
    command = ("--dataset", "tiny", "--catalog", catalog, "--epochs", "2", "--loss", "mask+rescale")
    done = cli("train", "words-only", *command, "--finetune-epochs", "1", "--set", "hidden=4")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(cli("compare", "--format", "json").stdout)["rows"]
    assert (row["backbone"], row["loss"]) == ("words-only", "mask+rescale")
    shutil.rmtree(installed)
    assert "words-only" not in names(cli)
    gone = cli("train", "words-only", *command)
    assert (gone.returncode, "unknown backbone" in gone.stderr) == (2, True)


def test_backbones_are_built_over_others(
    cli: CommandLine, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install_fixture("nested", tmp_path / "installed"))
    assert "must be chosen" in cli("plugins", "show", "scaled").stdout
    assert "recipe: its base's" in cli("plugins", "show", "scaled").stdout
    common = ("--dataset", "tiny", "--catalog", catalog)
    small = ("--epochs", "1", "--set")
    done = cli("train", "scaled", *common)
    assert (done.returncode, "--set base=NAME" in done.stderr) == (2, True)
    done = cli("train", "scaled", *common, "--set", "base=twice")
    assert (done.returncode, "twice has a training procedure of its own" in done.stderr) == (2, True)

    done = cli("train", "updn", *common, *small, "hidden=4")
    assert done.returncode == 0, done.stderr
    (origin,) = (tmp_path / "runs" / "tiny" / "updn").iterdir()
    nested = ("--set", "base=scaled", "--set", "base.base=updn", "--set", "base.base.hidden=4")
    done = cli(
        "train", "twice", *common, *nested, "--loss", "mask+rescale", "--from", origin, "--finetune-epochs", "1"
    )
    assert done.returncode == 0, done.stderr
    # All of UpDn is found, two wrappers and a transform deep.
    assert (
        "parameters: 3 are initialised anew (base.inner.head.1.bias, base.inner.head.1.weight, base.scale)"
        in done.stderr
    )
    (run,) = (tmp_path / "runs" / "tiny" / "twice").glob("*/seed-0")
    assert cli("predict", run, "--catalog", catalog).returncode == 0
    done = cli("train", "twice", *common, *small, "base.hidden=4")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "runs" / "tiny" / "twice").glob("ce-plain@*base=updn*"))


def test_a_broken_plugin_stops_only_who_asks_for_it(
    cli: CommandLine, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install_fixture("broken", tmp_path / "installed"))
    assert cli("plugins", "list").returncode == 0
    done = cli("train", "broken", "--dataset", "tiny", "--catalog", catalog)
    assert done.returncode == 2
    assert "vqabench-broken" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    fine = ("train", "updn", "--dataset", "tiny", "--catalog", catalog, "--epochs", "1", "--set", "hidden=4")
    assert cli(*fine).returncode == 0


def test_of_two_backbones_with_one_name_the_distribution_chooses(
    cli: CommandLine, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("words_only", "clash"):
        monkeypatch.syspath_prepend(install_fixture(name, tmp_path / name))
    command = ("--dataset", "tiny", "--catalog", catalog, "--epochs", "1")
    done = cli("train", "words-only", *command)
    assert done.returncode == 2
    assert "vqabench-words-only:words-only" in done.stderr
    assert cli("train", "vqabench-words-only:words-only", *command).returncode == 0
    (folder,) = tmp_path.glob("runs/tiny/words-only/*/seed-0")
    assert cli("predict", folder, "--catalog", catalog).returncode == 0

"""The documentation is tested: its plugin trains, its commands and options exist, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.api import Recipe
from vqabench.bench.matrix import make_matrix, read_blocks
from vqabench.options import fields_of, options_of
from vqabench.paths import Paths
from vqabench.plugins import BACKBONES, LOSSES, available, load
from vqabench.testing import assert_conforms

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "plugins").glob("*/README.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def defined_by(page: Path) -> dict[str, Any]:
    """Run the Python of a page from top to bottom; gives what it defines, functions and imports included."""
    defined: dict[str, Any] = {"__name__": "documented"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec", dont_inherit=True), defined)
    return defined


def spelled(word: str) -> re.Pattern[str]:
    """Match a word that is not part of another: `--in` is not in `--index`."""
    return re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])")


def commands() -> list[list[str]]:
    """Every `vqabench ...` in a shell block, as words."""
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in re.split(r"&&|;|\bdo\b|\n", block):
                words = shlex.split(line, comments=True)
                if words[:1] == ["vqabench"]:
                    found.append(words[1:])
    return found


@pytest.mark.slow
def test_the_plugin_of_the_readme_installs_and_trains(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, installed = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    (python,) = blocks(ROOT / "README.md", "python")
    (toml,) = blocks(ROOT / "README.md", "toml")
    (source / "words_only.py").write_text(python)
    (source / "pyproject.toml").write_text(toml)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--target", str(installed)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=120)
    monkeypatch.syspath_prepend(installed)
    common = (
        "--dataset",
        "tiny",
        "--catalog",
        write_tiny(tmp_path / "own"),
        "--epochs",
        "1",
        "--set",
        "hidden=128",
    )
    done = cli("train", "words-only", "--loss", "rescale", *common)
    assert done.returncode == 0, done.stderr
    masked = cli("train", "words-only", "--loss", "mask", *common)
    assert masked.returncode == 2
    assert "mask (from vqabench): it builds on question features" in masked.stderr


@pytest.mark.slow
def test_the_plugin_of_the_readme_keeps_what_the_api_promises() -> None:
    assert_conforms(defined_by(ROOT / "README.md")["WordsOnly"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_stands_where_it_is_tested(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"^(    |\t)\s*\$? ?vqabench ", text, re.MULTILINE)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_option_of_the_documentation_exists(cli: CommandLine, words: list[str]) -> None:
    name = words[:2] if words[0] in ("data", "plugins") else words[:1]
    message = cli(*name, "--help", COLUMNS="200", TERM="dumb")
    assert message.returncode == 0
    for word in words:
        if word.startswith("--"):
            assert spelled(word.partition("=")[0]).search(message.stdout), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_every_strategy_and_option_that_the_readme_sets_exists(cli: CommandLine) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for part, option in re.findall(r"--set ([\w-]+)\.(\w+)=", text):
        if part == "recipe":
            assert option in fields_of(Recipe)
            continue
        message = json.loads(cli("plugins", "show", part, "--json").stdout)
        assert option in [one["name"] for one in message["options"]]


def test_every_snippet_on_plugins_runs_and_what_they_define_conforms() -> None:
    defined = defined_by(ROOT / "docs" / "plugins.md")
    defined["test_it_keeps_what_the_api_promises"]()
    kinds = [one for one in defined.values() if isinstance(one, type) and one.__module__ == "documented"]
    assert {kind.__name__ for kind in kinds} == {"Words", "Tempered", "Gated", "Twice", "Power"}
    for kind in kinds:
        assert_conforms(kind)
    (toml,) = blocks(ROOT / "docs" / "plugins.md", "toml")
    targets = re.findall(r':(\w+)"', toml)
    assert [defined[target].__name__ for target in targets] == ["Words", "Power"]


def test_the_matrix_of_the_page_on_running_is_one(tmp_path: Path) -> None:
    (toml,) = blocks(ROOT / "docs" / "running.md", "toml")
    path = tmp_path / "matrix.toml"
    path.write_text(toml)
    matrix = make_matrix(read_blocks(path, {"settings": {}}), Paths(tmp_path / "runs", tmp_path / "data"))
    assert len(matrix.cells) == 5 * (2 * 2 + 2) + 2 * 2
    assert [message.partition(":")[0] for message in matrix.undefined] == ["lmh is not defined for --objective ce"]


def test_the_page_on_strategies_has_every_part_with_its_options_and_objectives() -> None:
    text = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*)$", text, re.MULTILINE))
    for plugin in available(LOSSES).plugins:
        if plugin.distribution == "vqabench":
            kind = load(plugin)
            _, objectives, options, _, _ = map(str.strip, rows[plugin.name].split("|"))
            assert objectives == ", ".join(kind.objectives)
            given = dict(re.findall(r"`(\w+)=([^`]+)`", options))
            assert given == {name: str(option.default) for name, option in options_of(kind).items()}
    for plugin in available(BACKBONES).plugins:
        if plugin.distribution.startswith("vqabench-"):
            assert f"`{plugin.name}`" in text
            assert plugin.distribution in text


def test_every_path_in_the_guide_for_contributors_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`(\.?[\w-]+(?:/[\w.-]*)+|[\w-]+\.(?:py|toml|txt|md))`", text)
    assert len(paths) > 30
    for path in paths:
        assert "NAME" in path or path == "run.json" or (ROOT / path).exists(), path

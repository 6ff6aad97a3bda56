"""Every first-party plugin could live in a repository of its own, and every list of them has them all."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vqabench.plugins import BACKBONES, LOSSES, available

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
PACKAGES = {init.parent.name for folder in FOLDERS for init in folder.glob("vqabench_*/__init__.py")}
LINTER: dict[str, Any] = PROJECT["tool"]["importlinter"]
CONTRACTS: dict[str, Any] = {contract["name"]: contract for contract in LINTER["contracts"]}
API, OWN = "first-party plugins use the public API alone", "first-party plugins do not know one another"


def imported_by(source: str) -> Iterator[str]:
    """Return the modules that a file imports, at its top or within functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if node.module in ("vqabench", "tests"):  # what is named may be a module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def strangers(source: str, package: str, allowed: set[str]) -> set[str]:
    """Return imports that a plugin may not have: modules of this repository other than its own and `allowed`."""
    of_here = {name for name in imported_by(source) if name.startswith("vqabench") or name.split(".")[0] == "tests"}
    return {name for name in of_here - allowed if name.split(".")[0] != package}


def test_imports_are_found_however_they_are_spelled() -> None:
    source = "import vqabench.data\nfrom vqabench import losses, api\nfrom tests.tiny import WIDTH\nimport torch\n"
    source += "def late():\n    from vqabench_css.critical import critical_words\n    from . import own"
    found = {"vqabench.data", "vqabench.losses", "tests.tiny", "vqabench_css.critical"}
    assert strangers(source, "vqabench_updn", {"vqabench.api"}) == found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_plugin_imports_the_public_api_alone_and_its_tests_the_kit_besides(folder: Path) -> None:
    (package,) = (init.parent for init in folder.glob("vqabench_*/__init__.py"))
    public = {"vqabench.api", "vqabench.errors"}
    for part, allowed in ((package, public), (folder / "tests", public | {"vqabench.testing"})):
        sources = list(part.rglob("*.py"))
        assert sources
        for path in sources:
            found = strangers(path.read_text(encoding="utf-8"), package.name, allowed)
            assert not found, path.relative_to(ROOT)


def test_every_plugin_is_linted_typed_and_installed() -> None:
    assert set(LINTER["root_packages"]) == PACKAGES | {"vqabench"}
    assert set(CONTRACTS[API]["source_modules"]) == set(CONTRACTS[OWN]["modules"]) == PACKAGES
    paths = {f"plugins/{folder.name}" for folder in FOLDERS}
    assert set(PROJECT["tool"]["mypy"]["mypy_path"]) == paths
    files = [ROOT / name for name in ("requirements.txt", "requirements-dev.txt")]
    required = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert {f"-e {place}" for place in paths} == {line for line in required if line.startswith("-e plugins/")}


def test_all_of_the_library_but_its_public_modules_is_forbidden_to_plugins() -> None:
    modules = {
        path.stem
        for path in (ROOT / "vqabench").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    allowed = {"__init__", "api", "errors"}
    assert set(CONTRACTS[API]["forbidden_modules"]) == {f"vqabench.{module}" for module in modules - allowed}


@pytest.mark.parametrize("group", [BACKBONES, LOSSES])
def test_every_entry_point_of_this_repository_is_installed(group: str) -> None:
    installed = {(one.distribution, one.name, one.target) for one in available(group).plugins}
    declared = set()
    for path in (ROOT / "pyproject.toml", *(folder / "pyproject.toml" for folder in FOLDERS)):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        points = project.get("entry-points", {}).get(group, {})
        declared |= {(project["name"], name, target) for name, target in points.items()}
    assert declared
    assert declared <= installed, "run: pip install -r requirements-dev.txt"

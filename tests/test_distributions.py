"""Wheels and sdists of the library and every first-party plugin work outside the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.tiny import write_tiny
from vqabench import __version__

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
NAMES = [tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] for folder in PROJECTS]
PACKAGES = [name.replace("-", "_") for name in NAMES]


def run(*command: object, cwd: Path) -> str:
    """Run a command without this repository on its path, and return what it prints."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("VQABENCH_", "PYTHON"))
    }
    environment |= {"OMP_NUM_THREADS": "1", "VQABENCH_DATA": str(cwd / "data"), "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def required_by(names: list[str]) -> Iterator[str]:
    """Yield the installed distributions that these need, directly or not, without extras nobody requires."""
    seen: set[tuple[str, str]] = set()
    queue = [Requirement(name) for name in names]
    while queue:
        requirement = queue.pop()
        for extra in ("", *requirement.extras):
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needed = map(Requirement, distribution(name).requires or [])
            except PackageNotFoundError:
                continue  # pip names it if it is needed on this platform
            queue += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]
    yield from {name for name, _ in seen}


def link_dependencies(target: Path) -> None:
    """Link what the six distributions declare as dependencies, and nothing else, from this environment.

    Installing PyTorch once more would take longer than all other tests of this module together. An undeclared
    dependency is missing from `target`, as it would be for a user.
    """
    target.mkdir()
    for name in set(required_by(NAMES)) - set(NAMES):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = target / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build sdists, wheels from the sdists, install the wheels, and return the environment's `bin`."""
    folder = tmp_path_factory.mktemp("distributions")
    for project in PROJECTS:
        run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder / "sdists", cwd=project)
    sdists = sorted((folder / "sdists").iterdir())
    assert len(sdists) == len(PROJECTS)
    pip = [sys.executable, "-m", "pip"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    run(*pip, "wheel", *options, "--wheel-dir", folder / "wheels", *sdists, cwd=folder)

    environment = folder / "environment"
    venv.create(environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    link_dependencies(folder / "dependencies")
    (packages / "dependencies.pth").write_text(f"{folder / 'dependencies'}\n")
    # With dependencies, but without an index: pip refuses if a declared one is missing or too old.
    wheels = sorted((folder / "wheels").iterdir())
    run(*pip, "--python", environment / "bin" / "python", "install", "--no-index", "--quiet", *wheels, cwd=folder)
    return environment / "bin"


@pytest.mark.slow
def test_every_distribution_has_the_version_of_the_library() -> None:
    for folder in PROJECTS[1:]:
        assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_installed_wheels_list_their_plugins_and_train_outside_the_repository(
    installed: Path, tmp_path: Path
) -> None:
    imports = ", ".join(f"{package}.__file__" for package in PACKAGES)
    places = run(
        installed / "python", "-c", f"import {', '.join(PACKAGES)}; print({imports}, sep='\\n')", cwd=tmp_path
    )
    assert all(Path(place).is_relative_to(installed.parent) for place in places.split("\n")[:-1])
    listed = run(installed / "vqabench", "plugins", "list", cwd=tmp_path)
    for folder in PROJECTS:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for points in project["entry-points"].values():
            assert all(re.search(rf"\b{re.escape(name)}\b", listed) for name in points), points
    assert "digits-cp" in run(installed / "vqabench", "data", "list", cwd=tmp_path)

    catalog = write_tiny(tmp_path / "own")
    # A backbone of one plugin around one of another, around one of a third.
    settings: list[str | Path] = ["--dataset", "tiny", "--catalog", catalog, "--epochs", "1", "--objective", "bce"]
    run(installed / "vqabench", "train", "css-lmh", "--loss", "rescale", *settings, cwd=tmp_path)
    assert len(list(tmp_path.glob("runs/tiny/*/*/seed-0/scores.json"))) == 1

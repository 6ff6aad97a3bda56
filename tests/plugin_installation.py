"""Install a fixture's distribution with pip into a folder of its own, and run Python with it."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"
ROOT = Path(__file__).parents[1]


def install_fixture(name: str, target: Path) -> Path:
    """Install `tests/fixtures/<name>` into `target`, a folder for PYTHONPATH; return `target`."""
    shutil.copytree(_installed_once(name), target, dirs_exist_ok=True)
    return target


@functools.cache
def _installed_once(name: str) -> Path:
    """Install it once for all tests of this process: pip takes two seconds."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return install(FIXTURES / name, folder)


def install(source: Path, target: Path) -> Path:
    """Install a distribution into `target`; return `target`."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / source.name  # building writes next to the source
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(copy)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return target


def run_python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own with the folders in front of the installed packages."""
    folders = os.pathsep.join(str(folder) for folder in (*path, ROOT))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

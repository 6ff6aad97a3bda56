"""Fixtures for every test: the real samples, a disk that fills up, the command line."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from vqabench.cli import main

# PyTorch reads it when it is first imported. The models of the tests are so small that a second thread only waits,
# which takes a processor from another test.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes depends on what else the machine does.
settings.register_profile("vqabench", deadline=None)
settings.load_profile("vqabench")

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Compile the packages, which many short processes import, even if PYTHONDONTWRITEBYTECODE is set."""
    if not hasattr(config, "workerinput"):
        for package in (ROOT / "vqabench", *ROOT.glob("plugins/*/vqabench_*")):
            compileall.compile_dir(package, quiet=1)


@pytest.fixture(scope="session")
def samples() -> Path:
    """Return the folder of real VQA samples, or skip the test."""
    folder = os.environ.get("VQABENCH_TEST_DATA")
    if not folder:
        pytest.skip("no real samples: VQABENCH_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 1 MB, or skip the test if this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def resize(disk: Path, kilobytes: int) -> None:
    """Change the size of a small disk."""
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)


@pytest.fixture
def vqabench(tmp_path: Path) -> CommandLine:
    """Return a function that runs the command line in a process and an empty folder of its own."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("VQABENCH_")}
        inherited |= {"VQABENCH_DATA": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "vqabench", *map(str, arguments)],
            cwd=tmp_path,
            env=inherited | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    """Return the same function without the process: torch is imported once for all tests."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("VQABENCH_DATA", str(tmp_path / "data"))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        words = ["vqabench", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capfd.readouterr()
        code = exit_.value.code
        return subprocess.CompletedProcess(words, code if isinstance(code, int) else 1, out, err)

    return run

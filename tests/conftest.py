"""What every test may use: the real samples, a small data set of our own files, the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vqabench.cli import main

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def samples() -> Path:
    """Give the folder of real VQA samples, or skip the test."""
    folder = os.environ.get("VQABENCH_TEST_DATA")
    if not folder:
        pytest.skip("the real samples are not here: VQABENCH_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 1 MB, where this user may make one; `resize` makes it another size."""
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
    """Make a small disk another size."""
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)


@pytest.fixture
def vqabench(tmp_path: Path) -> CommandLine:
    """Give a function that runs the real command line in an empty folder of its own."""

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
    """Give the same function without a process of its own: the import of torch is paid once."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("VQABENCH_DATA", str(tmp_path / "data"))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        spelled = ["vqabench", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", spelled)
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capfd.readouterr()
        code = exit_.value.code
        return subprocess.CompletedProcess(spelled, code if isinstance(code, int) else 1, out, err)

    return run

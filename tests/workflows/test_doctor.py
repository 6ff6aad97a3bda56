"""The doctor finds each problem and names a command that fixes it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.conftest import CommandLine, resize
from tests.plugin_installation import install_fixture
from tests.tiny import write_tiny
from vqabench.workflows.doctor import check_folder, explain_no_gpu, read_quota

OTHER = "--data-dir DIR"


@pytest.fixture
def prepared(cli: CommandLine, tmp_path: Path) -> Path:
    """Prepare the tiny data set; return its folder."""
    catalog = write_tiny(tmp_path / "own")
    assert cli("data", "prepare", "tiny", "--catalog", catalog).returncode == 0
    return tmp_path / "data" / "tiny"


def examine(cli: CommandLine, tmp_path: Path) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the problems."""
    catalog = tmp_path / "own" / "catalog.toml"
    named = ["--catalog", catalog] if catalog.exists() else []
    done = cli("doctor", "--json", *named)
    message = json.loads(done.stdout)
    assert message["well"] == (done.returncode == 0)
    return done.returncode, [finding for finding in message["findings"] if finding["state"] != "ok"]


def test_a_sound_installation_has_no_problem(cli: CommandLine, prepared: Path, tmp_path: Path) -> None:
    code, problems = examine(cli, tmp_path)
    assert code == 0
    assert [problem for problem in problems if problem["state"] == "broken"] == []
    done = cli("doctor", "--catalog", tmp_path / "own" / "catalog.toml", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("torch", "device", "precision", "processors", "memory", "free", "backbones", "tiny", "train 60"):
        assert word in done.stdout
    assert len(done.stdout.splitlines()) < 24


def test_a_long_name_moves_no_line(cli: CommandLine, tmp_path: Path) -> None:
    catalog = write_tiny(tmp_path / "own")
    catalog.write_text(catalog.read_text().replace("[tiny", "[tiny-with-a-long-name"))
    assert cli("data", "prepare", "tiny-with-a-long-name", "--catalog", catalog).returncode == 0
    lines = cli("doctor", "--catalog", catalog, COLUMNS="200").stdout.splitlines()
    starts = {
        len(re.match(r"(ok +(data set \S+|versions|plugins) +)", line)[1])  # type: ignore[index]
        for line in lines
        if line.startswith("ok") and re.search("data set tiny|versions|plugins", line)
    }
    assert len(starts) == 1


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_last_array(file: Path) -> None:
    """Change a byte in the middle of an array: only its checksum shows it."""
    with h5py.File(file) as opened:
        place = opened["train"]["tokens"].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[place + 5] ^= 255
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("prepared.h5", cut),
        ("prepared.h5", lambda file: file.write_bytes(b"")),
        ("prepared.h5", lambda file: file.write_bytes(b"not HDF5" * 1000)),
        ("prepared.h5", lambda file: file.write_bytes(bytes(file.stat().st_size))),
        ("prepared.h5", flip_last_array),
        ("features.h5", cut),
        ("features.h5", Path.unlink),
        ("features.h5", lambda file: file.write_bytes(b"")),
    ],
    ids=["cut", "empty", "other", "zeros", "flipped", "features-cut", "features-gone", "features-empty"],
)
def test_a_damaged_data_set_is_found_and_fixed_by_the_command(
    cli: CommandLine, prepared: Path, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(prepared / name)
    code, problems = examine(cli, tmp_path)
    (problem,) = [problem for problem in problems if problem["state"] == "broken"]
    assert (code, problem["what"]) == (1, "data set tiny")
    assert name in problem["found"]
    fix = problem["fix"].replace("vqabench ", f"{sys.executable} -m vqabench ")
    subprocess.run(fix, shell=True, check=True, timeout=120, capture_output=True)
    assert examine(cli, tmp_path)[0] == 0


def test_data_prepared_from_other_files_is_a_note(cli: CommandLine, prepared: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "own" / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("minimum_answer_count = 2", "minimum_answer_count = 1"))
    code, problems = examine(cli, tmp_path)
    (note,) = [problem for problem in problems if problem["what"] == "data set tiny"]
    assert (code, note["state"]) == (0, "note")
    assert "vqabench data prepare tiny" in note["fix"]


@pytest.mark.parametrize(
    ("fixtures", "message", "fix"),
    [
        (["broken"], ["vqabench-broken", "line 3: importing it raises an error"], "pip uninstall vqabench-broken"),
        (
            ["words_only", "clash"],
            ["words-only is offered by"],
            "write vqabench-clash:words-only or vqabench-words-",
        ),
        (
            ["other_api"],
            ["vqabench-other-api", "version 99 of the plugin API"],
            "pip install --upgrade vqabench-oth",
        ),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_a_plugin_that_cannot_be_used_is_named(
    cli: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fixtures: list[str],
    message: list[str],
    fix: str,
) -> None:
    for name in fixtures:
        monkeypatch.syspath_prepend(install_fixture(name, tmp_path / name))
    code, problems = examine(cli, tmp_path)
    (problem,) = [problem for problem in problems if problem["what"] == "plugins"]
    assert (code, problem["state"]) == (1, "broken")
    assert all(part in problem["found"] for part in message)
    assert fix in problem["fix"]


def test_entry_points_that_cannot_be_read_are_named(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vqabench.backbones]\na = b c d\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    code, problems = examine(cli, tmp_path)
    assert code == 1
    assert any("malformed entry point" in problem["found"] for problem in problems)


def test_a_catalogue_that_is_not_one_is_a_finding(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "catalog.toml").write_text("[[[")
    code, problems = examine(cli, tmp_path)
    assert code == 1
    assert any("catalog.toml: not a catalogue in TOML" in problem["found"] for problem in problems)


def test_a_data_folder_that_is_a_file_is_reported(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    code, problems = examine(cli, tmp_path)
    (problem,) = [problem for problem in problems if problem["what"] == "data folder"]
    assert (code, problem["state"]) == (1, "broken")
    assert "is a file, not a folder" in problem["found"]
    assert "VQABENCH_DATA" in problem["fix"]


def test_a_folder_is_neither_made_nor_left_with_files(tmp_path: Path) -> None:
    assert check_folder("data folder", tmp_path / "a" / "b", OTHER).state == "ok"
    assert check_folder("data folder", tmp_path, OTHER).state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    found = check_folder("data folder", tmp_path / "link", OTHER)
    assert (found.state, "does not exist" in found.found) == ("broken", True)


def test_a_full_disk_is_reported(small_disk: Path) -> None:
    (small_disk / "filling").write_bytes(bytes(1 << 20))
    found = check_folder("data folder", small_disk, OTHER)
    assert (found.state, "No space left" in found.found) == ("broken", True)


def test_a_small_disk_is_told(small_disk: Path) -> None:
    resize(small_disk, 2048)
    found = check_folder("data folder", small_disk, OTHER)
    assert (found.state, "MB free" in found.found) == ("broken", True)


def test_a_disk_to_read_only_serves_data_that_is_prepared(
    cli: CommandLine, prepared: Path, small_disk: Path
) -> None:
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    shutil.copytree(prepared, small_disk / "tiny")
    subprocess.run(remount, check=True)
    message = json.loads(cli("doctor", "--json", "--data-dir", small_disk).stdout)["findings"]
    (folder,) = [finding for finding in message if finding["what"] == "data folder"]
    assert (folder["state"], "Read-only" in folder["found"]) == ("note", True)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    shutil.rmtree(small_disk / "tiny")
    subprocess.run(remount, check=True)
    assert check_folder("data folder", small_disk, OTHER).state == "broken"


@pytest.mark.parametrize(
    ("supported", "gpus", "visible", "state", "message"),
    [
        (True, 0, None, "ok", "no NVIDIA GPU"),
        (False, 0, "0", "ok", "no NVIDIA GPU"),
        (False, 1, None, "broken", "built without CUDA and cannot use this machine's GPU"),
        (False, 2, "0,1", "broken", "cannot use this machine's 2 GPUs"),
        (True, 2, "", "note", "CUDA_VISIBLE_DEVICES='' hides"),
        (True, 1, "-1", "note", "CUDA_VISIBLE_DEVICES='-1' hides"),
        (True, 1, None, "broken", "PyTorch cannot use this machine's GPU"),
    ],
)
def test_why_there_is_no_gpu(supported: bool, gpus: int, visible: str | None, state: str, message: str) -> None:
    found = explain_no_gpu(supported, gpus, visible)
    assert (found.state, message in found.found) == (state, True)
    assert bool(found.fix) == (state != "ok")


@pytest.mark.parametrize(
    ("content", "quota"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), ("1 0", None), (None, None)],
)
def test_the_processors_of_a_container_are_read(tmp_path: Path, content: str | None, quota: float | None) -> None:
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    assert read_quota(tmp_path / "cpu.max") == quota

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import resize
from tests.region_sources import bottom_up, boxes_of, leftovers, regions_of, write_table
from vqabench.data.features import conversion, writer
from vqabench.data.features.conversion import ConversionOptions, convert_features
from vqabench.data.features.store import FeatureStore, open_features
from vqabench.errors import InputError, VqabenchError

SKIP = ConversionOptions(broken="skip")


def convert(source: Path, destination: Path, *arguments: Any, **options: Any) -> FeatureStore:
    convert_features([source], destination, range(10_000), *arguments, **options)
    return open_features(destination)


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from vqabench.data.features import writer
from vqabench.data.features.conversion import convert_features
writer.SHARD_IMAGES = 8
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
def convert(name):
    convert_features([source], folder / name, range(10_000))
def is_joining():
    return any(folder.glob(".f.h5.shards-*/features.h5"))
began = time.perf_counter()
convert("whole.h5")
seconds = time.perf_counter() - began
kills = {False: 0, True: 0}
while sum(kills.values()) < 16 or min(kills.values()) < 5:
    child = os.fork()
    if not child:
        convert("f.h5")
        os._exit(0)
    if kills[True] < kills[False]:
        while not is_joining() and not (folder / "f.h5").exists():
            time.sleep(0.0005)
    time.sleep(random.uniform(0, seconds / 3))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1]:
        kills[is_joining()] += 1
    if (folder / "f.h5").exists():
        assert (folder / "f.h5").read_bytes() == (folder / "whole.h5").read_bytes()
        (folder / "f.h5").unlink()
convert("f.h5")
"""


@pytest.mark.slow
def test_a_conversion_killed_anywhere_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.tsv", {n: 1 + n % 4 for n in range(1, 160)})
    with source.open("a") as file:
        file.write(bottom_up(5, 2, regions_of(5, 2), boxes_of(5, 2)))  # repeats an image of an early shard
    subprocess.run([sys.executable, "-c", KILLS, source, tmp_path], check=True)
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert leftovers(tmp_path) == []


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a table of 20 images whose conversion has stopped at a broken row, after shards of 8, 8 and 1."""
    monkeypatch.setattr(writer, "SHARD_IMAGES", 8)
    monkeypatch.setattr(conversion, "SHARD_IMAGES", 8)
    source = write_table(folder / "t.tsv", {n: 1 + n % 4 for n in range(1, 20)})
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join([*lines[:17], bottom_up(99, 2, np.full((2, 3), np.nan, np.float32)), *lines[17:]]))
    with pytest.raises(InputError, match="not finite"):
        convert(source, folder / "f.h5")
    return source


def spoil_rows(folder: Path) -> None:
    (folder / "000001.rows").write_bytes(b"half")


def spoil_entries(folder: Path) -> None:
    (folder / "000001.entries").write_bytes(b"half")


def lose_entries(folder: Path) -> None:
    """Leave what a kill leaves between rows and entries."""
    (folder / "000001.entries").rename(folder / "000001.part")


def lose_rows(folder: Path) -> None:
    """Leave what a kill leaves while shards are deleted."""
    (folder / "000001.rows").unlink()


def leave_more(folder: Path) -> None:
    """Leave half a shard more, and half of the joined file."""
    (folder / "000003.rows").write_bytes(b"half")
    (folder / "features.part").write_bytes(b"half")


@pytest.mark.parametrize(
    ("damage", "images"),
    [(spoil_rows, 8), (spoil_entries, 8), (lose_entries, 8), (lose_rows, 8), (leave_more, 17)],
)
def test_only_whole_shards_are_continued_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, images: int
) -> None:
    source = interrupted(tmp_path, monkeypatch)
    (shards,) = tmp_path.glob(".f.h5.shards-*")
    damage(shards)
    said: list[str] = []
    convert(source, tmp_path / "f.h5", SKIP, say=said.append)
    assert said[1] == f"continuing after the {images} images that are done"
    assert said[-1].startswith("1 broken row left out (images 99)")
    convert(source, tmp_path / "whole.h5", SKIP)
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert leftovers(tmp_path) == []


def test_shards_of_other_sources_or_settings_are_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = interrupted(tmp_path, monkeypatch)
    said: list[str] = []
    convert(source, tmp_path / "f.h5", ConversionOptions("float32", broken="skip"), say=said.append)
    assert not any("continuing" in line for line in said)
    assert leftovers(tmp_path) == []
    interrupted(tmp_path, monkeypatch)
    assert convert(write_table(source, {9: 3}), tmp_path / "f.h5").image_ids.tolist() == [9]
    assert leftovers(tmp_path) == []


def test_what_a_kill_leaves_beside_features_that_are_whole_is_deleted(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.tsv", {7: 2, 8: 2})
    convert(source, tmp_path / "f.h5")
    (tmp_path / "f.h5.json").unlink()  # it is written last
    (tmp_path / ".f.h5.shards-0").mkdir()
    for left in (".f.h5.shards-0/000000.rows", ".f.h5.lock", ".f.h5.journal", ".f.h5.journal.lock", ".f.h5.part-1"):
        (tmp_path / left).touch()
    assert convert(source, tmp_path / "f.h5").image_ids.tolist() == [7, 8]
    assert leftovers(tmp_path) == []


def test_two_processes_do_not_write_the_same_features(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t.tsv", {7: 2})
    with (
        writer.only_writer(tmp_path / "f.h5"),
        pytest.raises(VqabenchError, match="another process is making these features"),
    ):
        convert(source, tmp_path / "f.h5")
    assert convert(source, tmp_path / "f.h5").image_ids.tolist() == [7]


@pytest.mark.parametrize(("images", "done"), [(40, 16), (9, 9)])
def test_a_full_disk_is_one_line_and_space_lets_it_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Path, images: int, done: int
) -> None:
    """Of 40 images the shards do not fit; of 9 their copy does not."""
    monkeypatch.setattr(writer, "SHARD_IMAGES", 4 if images == 40 else 9)
    rows = (bottom_up(n, 4, regions_of(n, 4, 5_000)) for n in range(1, images + 1))
    (tmp_path / "t.tsv").write_text("".join(rows))
    (small_disk / "ballast").write_bytes(bytes(300_000))
    with pytest.raises(VqabenchError, match=r"disk: no space left for the features; .*No space left") as caught:
        convert(tmp_path / "t.tsv", small_disk / "f.h5")
    assert not isinstance(caught.value, InputError)
    assert not (small_disk / "f.h5").exists()
    resize(small_disk, 16_000)
    said: list[str] = []
    convert(tmp_path / "t.tsv", small_disk / "f.h5", say=said.append)
    assert said[1] == f"continuing after the {done} images that are done"
    convert(tmp_path / "t.tsv", tmp_path / "whole.h5")
    assert (small_disk / "f.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert leftovers(small_disk) == []


def test_joining_needs_space_for_one_shard_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Path
) -> None:
    monkeypatch.setattr(writer, "SHARD_IMAGES", 1)
    resize(small_disk, 3_000)
    rows = (bottom_up(n, 4, regions_of(n, 4, 5_000)) for n in range(1, 41))  # 1.6 MB, and 1 MB reserved for HDF5
    (tmp_path / "t.tsv").write_text("".join(rows))
    assert convert(tmp_path / "t.tsv", small_disk / "f.h5").counts.tolist() == [4] * 40


def test_a_limit_on_the_size_of_files_is_told_like_a_full_disk(tmp_path: Path) -> None:
    rows = (bottom_up(n, 4, regions_of(n, 4, 5_000)) for n in range(1, 20))
    (tmp_path / "t.tsv").write_text("".join(rows))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(VqabenchError, match="no space left for the features"):
            convert(tmp_path / "t.tsv", tmp_path / "f.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

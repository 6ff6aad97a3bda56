from __future__ import annotations

import gzip
import threading
import zipfile
from pathlib import Path

import pytest

from vqabench.errors import InputError
from vqabench.files.packed import list_members, open_packed, split_member


def read(path: Path, *wanted: str) -> bytes:
    with open_packed(path, *wanted) as stream:
        return stream.read()


def make_zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return path


def test_the_content_decides_how_a_file_is_read_not_its_name(tmp_path: Path) -> None:
    make_zip(tmp_path / "zipped.json", a_json=b"text")
    (tmp_path / "packed.zip").write_bytes(gzip.compress(b"text"))
    (tmp_path / "plain.gz").write_bytes(b"text")
    assert {read(tmp_path / name) for name in ("zipped.json", "packed.zip", "plain.gz")} == {b"text"}


def test_of_a_zip_the_only_file_that_may_be_meant_is_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "f.zip", a_json=b"one", a_txt=b"two")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._a.json", b"not this")
        archive.writestr("folder.json/", b"")
    assert read(path, ".json") == b"one"
    assert read(Path(f"{path}::a.txt")) == b"two"
    with pytest.raises(InputError, match=r"f\.zip: holds a\.json, a\.txt; name one as .*f\.zip::MEMBER"):
        read(path)


def test_of_several_the_one_without_the_word_that_is_not_meant_is_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "f.zip", a_json=b"one", Multi_json=b"two")
    assert read(path, ".json", "Multi") == b"one"
    assert read(make_zip(tmp_path / "only.zip", Multi_json=b"two"), ".json", "Multi") == b"two"


def test_a_member_that_is_not_there_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "f.zip", glove_6B_50d_txt=b"")
    with pytest.raises(InputError, match=r"unknown member 'glove\.6B\.5d\.txt'.*glove\.6B\.50d\.txt"):
        read(Path(f"{path}::glove.6B.5d.txt"))


def test_a_member_of_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_bytes(b"text")
    with pytest.raises(InputError, match=r"plain\.txt: is not a zip, so it has no member 'a'; name only the file"):
        read(tmp_path / "plain.txt::a")


def test_threads_read_members_of_one_zip_at_once(tmp_path: Path) -> None:
    contents = {f"{n}_npz": bytes([n]) * 300_000 for n in range(20)}
    members, others = list_members(make_zip(tmp_path / "f.zip", readme_txt=b"", **contents), (".npz",))
    found: dict[str, bytes] = {}
    threads = [threading.Thread(target=lambda one=one: found.update({one.name: one.read()})) for one in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name.replace("_", "."): content for name, content in contents.items()}
    assert [member.size for member in members] == [300_000] * 20
    assert others == "1 .txt"


def test_a_path_is_split_at_its_first_double_colon() -> None:
    assert split_member(Path("a/f.zip::b/c::d")) == (Path("a/f.zip"), "b/c::d")
    assert split_member(Path("a/f.json")) == (Path("a/f.json"), "")

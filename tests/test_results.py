from __future__ import annotations

import threading
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from vqabench.errors import InputError, VqabenchError
from vqabench.files.atomic import write_file, write_through
from vqabench.results import LONGEST_LABEL, Run, find_runs, format_label, run_folder

VALUES = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.text(max_size=60))
CHANGES = st.dictionaries(st.text(min_size=1, max_size=20), VALUES, max_size=6)


def test_a_short_label_spells_every_change() -> None:
    assert format_label({"rescale.variant": "released", "epochs": 3}) == "epochs=3,rescale.variant=released"
    assert format_label({}) == ""
    assert format_label({"recipe.clip": None}) == "recipe.clip=none"


@given(CHANGES)
def test_a_label_is_always_the_name_of_one_folder(changes: dict[str, object]) -> None:
    label = format_label(changes)
    assert len(label) <= LONGEST_LABEL
    folder = run_folder(Path("runs"), "d", "b", "ce-plain", label, 0)
    assert len(folder.parts) == 5
    assert ".." not in folder.parts


@given(CHANGES, CHANGES)
def test_two_configurations_never_share_a_label(first: dict[str, object], second: dict[str, object]) -> None:
    assert format_label({"a": "1,b=2"}) != format_label({"a": "1", "b": "2"})
    spelled = [
        sorted((key, "none" if value is None else str(value)) for key, value in changes.items())
        for changes in (first, second)
    ]
    if spelled[0] != spelled[1]:
        assert format_label(first) != format_label(second)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"whole")

    def fail(part: Path) -> None:
        part.write_bytes(b"ha")
        raise OSError("disk full")

    with pytest.raises(VqabenchError, match="file: cannot be written: disk full"):
        write_through(path, fail)
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_only_whole_lines_of_finished_epochs_are_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.keep_epochs(3) == 0
    for epoch in (1, 2, 3):
        run.append_epoch({"epoch": epoch})
    with run.epochs_file.open("a") as lines:
        lines.write('{"epoch": 4, "lo')
    assert run.keep_epochs(4) == 3
    assert run.keep_epochs(2) == 2
    assert run.epochs_file.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'


def test_a_link_is_written_through_and_a_device_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_file(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"content"
    for other in (Path("/dev/null"), tmp_path):
        with pytest.raises(InputError, match="not a file"):
            write_file(other, b"content")
    assert Path("/dev/null").is_char_device()


def test_every_run_is_found_once(tmp_path: Path) -> None:
    for name in ("a/seed-0", "a/seed-1", "b/seed-0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    found = [run.folder for run in find_runs([tmp_path / "a", tmp_path, tmp_path / "b"])]
    assert found == [tmp_path / "a/seed-0", tmp_path / "a/seed-1", tmp_path / "b/seed-0"]


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        list(find_runs([tmp_path]))


def test_a_run_whose_lock_is_held_for_an_instant_can_be_trained(tmp_path: Path) -> None:
    held = FileLock(tmp_path / ".seed-0.lock", thread_local=False)
    held.acquire()
    threading.Timer(0.05, held.release).start()
    with Run(tmp_path / "seed-0").lock():
        pass


def test_a_run_that_another_process_trains_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "seed-0")
    with FileLock(tmp_path / ".seed-0.lock"):
        assert run.is_locked()
        with pytest.raises(InputError, match="another process is training it"), run.lock():
            pass
    assert not run.is_locked()

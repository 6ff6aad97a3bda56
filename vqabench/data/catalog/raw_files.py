"""A data set's folder of raw files: what is there, what is fetched, and `fetched.json`, the record of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import filelock
import msgspec

from vqabench.data.catalog.download import Patience, download
from vqabench.data.catalog.entries import Counts, SourceFile
from vqabench.data.catalog.integrity import find_fault, hash_content, looks_like_web_page
from vqabench.errors import InputError, VqabenchError, first_few
from vqabench.events import Emit, Warn
from vqabench.files.atomic import read_json, write_file, write_through
from vqabench.files.folders import list_files_below

AGAIN = "vqabench data fetch --force fetches it again"


class FileRecord(msgspec.Struct, frozen=True):
    """One file that was fetched, or made of fetched ones."""

    source: str
    """A URL, a path, or the data set it was made of."""
    size: int
    sha256: str
    date: str
    """UTC, ISO 8601."""


class Record(msgspec.Struct):
    """`fetched.json`."""

    files: dict[str, FileRecord] = {}
    counts: dict[str, Counts] = {}
    """What the files were counted to hold; empty until they were."""
    made_of: dict[str, str] = {}
    """Of derived splits: each input's name and SHA-256."""


@dataclass(frozen=True)
class Way:
    """How files are to be got."""

    own_folder: Path | None = None
    """Where the user has some already."""
    offline: bool = False
    force: bool = False
    patience: Patience = field(default_factory=Patience)


def record_file(folder: Path) -> Path:
    """Name the record of a folder."""
    return folder / "fetched.json"


def read_record(folder: Path) -> Record:
    """Read what was fetched into a folder. Raises InputError where the record is damaged."""
    path = record_file(folder)
    return read_json(path, Record, "delete it, and fetch again") if path.is_file() else Record()


def write_record(folder: Path, record: Record) -> None:
    """Write it down."""
    write_file(record_file(folder), msgspec.json.format(msgspec.json.encode(record), indent=2))


def describe_file(path: Path, source: str) -> FileRecord:
    """Describe a file as it is now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return FileRecord(source, path.stat().st_size, hash_content(path), now)


def holds_all(folder: Path, names: Collection[str]) -> bool:
    """Tell at a glance, by names and sizes, whether a folder holds files that were fetched."""
    try:
        files = read_record(folder).files
        return all((folder / name).stat().st_size == files[name].size for name in names)
    except (InputError, OSError, KeyError):
        return False


@contextmanager
def one_at_a_time(folder: Path, emit: Emit) -> Iterator[None]:
    """Keep other processes from fetching into the same folder meanwhile; waits for one that does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        emit(f"{folder}: another vqabench is fetching; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def get_files(folder: Path, files: Mapping[str, SourceFile], way: Way, emit: Emit) -> Record:
    """Get every file into a folder that lacks it; gives the record, which forgets counts where one is new.

    Raises InputError where a file that is there is not what it was or should be, or one is missing offline;
    VqabenchError where one cannot be fetched.
    """
    record = _read_or_forget(folder) if way.force else read_record(folder)
    if way.force:
        shutil.rmtree(_coming(folder), ignore_errors=True)
    lacking = [name for name, file in files.items() if way.force or not _is_there(folder / name, file, record)]
    sources = _find_own(lacking, way.own_folder) if way.own_folder else {}
    taken = [name for name in lacking if name in sources and _take(sources[name], folder / name, files[name], emit)]
    for name in taken:
        _note(folder, name, str(sources[name].absolute()), record)
    missing = [name for name in lacking if name not in taken]
    unpacked = _explain_unpacked(missing, way.own_folder) if way.own_folder else ""
    if missing and way.offline:
        raise InputError(
            f"{folder}: missing, and --offline forbids downloading: {first_few(missing)}; "
            + (unpacked or "put them there, or name their folder with --from")
        )
    if unpacked:
        emit(Warn(unpacked))
    try:
        for name in missing:
            _fetch(folder, name, files[name], record, way.patience, emit)
    finally:
        with suppress(OSError):  # not empty: what has come of a file is kept
            _coming(folder).rmdir()
    if not missing:
        shutil.rmtree(_coming(folder), ignore_errors=True)
    return record


def _read_or_forget(folder: Path) -> Record:
    try:
        return read_record(folder)
    except InputError:
        return Record()


def _is_there(path: Path, file: SourceFile, record: Record) -> bool:
    """Tell whether a file is there already. Raises InputError where it is there, but not the right one."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a file, but a file must be downloaded there; move it away")
    if not path.is_file():
        return False
    fault = find_fault(path, path.name, file)
    known = record.files.get(path.name)
    if fault:
        raise InputError(f"{path}: not the expected file: {fault}; {AGAIN}")
    if known and not file.has_checksum:
        check_unchanged(path, known)
    if known is None:
        _note(path.parent, path.name, "was there already", record)
    return True


def check_unchanged(path: Path, known: FileRecord, advice: str = AGAIN) -> None:
    """Raise InputError where a file is no longer the one that was recorded."""
    if not path.is_file() or (found := hash_content(path)) != known.sha256:
        what = f"SHA-256 {found}, not {known.sha256}" if path.is_file() else "gone"
        raise InputError(f"{path}: changed since {known.date} ({what}); {advice}")


def _find_own(names: Collection[str], folder: Path) -> dict[str, Path]:
    """Find files by their names in or below a folder, the first one each. Raises InputError without a folder."""
    if not folder.is_dir():
        raise InputError(
            f"--from {folder}: {'that is a file, not a' if folder.exists() else 'there is no such'} folder"
        )
    found: dict[str, Path] = {}
    for path in list_files_below(folder):
        if path.name in names:
            found.setdefault(path.name, path)
    return found


def _explain_unpacked(missing: Collection[str], folder: Path) -> str:
    """Say what to do where a folder holds the unpacked JSON of missing archives; empty where it does not."""
    if not any(name.endswith(".zip") for name in missing):
        return ""
    splits: dict[str, dict[str, Path]] = {}
    for path in list_files_below(folder):
        name = path.name.lower()
        kind = next((kind for kind in ("questions", "annotations") if kind in name), None)
        split = next((split for mark, split in (("train", "train"), ("val", "test")) if mark in name), None)
        if kind and split and ".json" in name and "multiplechoice" not in name:
            splits.setdefault(split, {}).setdefault(kind, path.absolute())
    if not splits:
        return ""
    given = ", ".join(
        f"{split} = {{ {', '.join(f'{kind} = {json.dumps(str(path))}' for kind, path in sorted(files.items()))} }}"
        for split, files in sorted(splits.items(), reverse=True)
    )
    return (
        f"{folder} holds unpacked JSON, which cannot be verified with the archives' checksums. Use the "
        "JSON files as they are, in a catalogue of your own (docs/datasets.md, Your own files), with --catalog: "
        '[my-data] / title = "my data" / test_domain = "in-domain" / features = "FILE" / '
        f"validation = {{ share = 0.05 }} / splits = {{ {given} }} (on separate lines). For VQA-CP, then run: "
        "vqabench data rebuild-cp my-data --test-ids FILE --out DIR"
    )


def _take(source: Path, path: Path, file: SourceFile, emit: Emit) -> bool:
    """Copy a file that the user has, if it is the right one; the copy is what is checked."""
    faults: list[str | None] = []

    def copy(part: Path) -> None:
        shutil.copyfile(source, part)
        faults.append(find_fault(part, path.name, file) or _find_page(part))
        if faults[0]:
            raise ValueError

    try:
        write_through(path, copy)
    except ValueError:
        emit(Warn(f"{source}: not used, because it is not the expected file: {faults[0]}"))
        return False
    except OSError as error:
        raise VqabenchError(f"{source}: cannot be copied to {path.parent}: {error.strerror or error}") from error
    emit(f"{path.name}: taken from {source}")
    return True


def _find_page(path: Path) -> str | None:
    with path.open("rb") as stream:
        return "it is a web page" if looks_like_web_page(stream.read(1024)) else None


def _fetch(folder: Path, name: str, file: SourceFile, record: Record, patience: Patience, emit: Emit) -> None:
    """Fetch one file, in a folder of its own until it is whole and checked."""
    coming = _coming(folder)
    coming.mkdir(exist_ok=True)
    fetched, url = download(name, file, coming, emit, patience)
    fetched.replace(folder / name)
    _note(folder, name, url, record)


def _coming(folder: Path) -> Path:
    return folder / "coming"


def _note(folder: Path, name: str, source: str, record: Record) -> None:
    record.files[name] = describe_file(folder / name, source)
    record.counts.clear()
    write_record(folder, record)

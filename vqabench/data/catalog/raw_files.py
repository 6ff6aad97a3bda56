"""Get the raw files of a data set into its folder, and record them in `fetched.json`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from vqabench.data.catalog.download import RetryPolicy, download
from vqabench.data.catalog.entries import SourceFile, SplitCounts
from vqabench.data.catalog.integrity import find_fault, looks_like_web_page
from vqabench.errors import InputError, VqabenchError, first_few
from vqabench.events import Emit, Warn
from vqabench.files.atomic import hash_file, holding, read_json, write_file, write_through
from vqabench.files.folders import list_files_below

AGAIN = "to fetch it again, use vqabench data fetch --force"


class FileRecord(msgspec.Struct, frozen=True):
    """A file that was fetched, or made from fetched ones."""

    source: str
    """A URL, a path, or the data set it was made from."""
    size: int
    sha256: str
    date: str
    """UTC, ISO 8601."""


class FetchRecord(msgspec.Struct):
    """The content of `fetched.json`."""

    files: dict[str, FileRecord] = {}
    counts: dict[str, SplitCounts] = {}
    """Split -> counts of its files; empty until they are counted."""
    made_of: dict[str, str] = {}
    """For derived splits: name -> SHA-256 of the files they were made from."""


@dataclass(frozen=True)
class FetchOptions:
    """How to get files."""

    own_folder: Path | None = None
    """A folder with files that the user already has."""
    offline: bool = False
    force: bool = False
    retry: RetryPolicy = field(default_factory=RetryPolicy)


def read_record(folder: Path) -> FetchRecord:
    """Read the record of a folder. Raises InputError if it is damaged."""
    path = folder / "fetched.json"
    return read_json(path, FetchRecord, "delete it, and fetch again") if path.is_file() else FetchRecord()


def write_record(folder: Path, record: FetchRecord) -> None:
    """Write the record of a folder."""
    write_file(folder / "fetched.json", msgspec.json.format(msgspec.json.encode(record), indent=2))


def describe_file(path: Path, source: str) -> FileRecord:
    """Return the record of a file in its present state."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return FileRecord(source, path.stat().st_size, hash_file(path), now)


def holds_all(folder: Path, names: Collection[str]) -> bool:
    """Return whether a folder holds files as recorded, by names and sizes alone: fast, and no proof."""
    try:
        files = read_record(folder).files
        return all((folder / name).stat().st_size == files[name].size for name in names)
    except (InputError, OSError, KeyError):
        return False


def fetch_lock(folder: Path, emit: Emit) -> AbstractContextManager[None]:
    """Hold the lock of a folder; wait if another process is fetching into it."""
    folder.mkdir(parents=True, exist_ok=True)
    message = f"{folder}: another vqabench process is fetching; waiting for it"
    return holding(folder / ".lock", lambda: emit(message))


def get_files(folder: Path, files: Mapping[str, SourceFile], options: FetchOptions, emit: Emit) -> FetchRecord:
    """Get the missing files into a folder; return its record, without counts if a file is new.

    Raises InputError if an existing file is not the expected one, or one is missing offline; VqabenchError if one
    cannot be fetched.
    """
    partial = folder / "coming"  # holds files whose download is not complete
    if options.force:
        record = FetchRecord()
        with suppress(InputError):  # a damaged record does not matter if everything is fetched again
            record = read_record(folder)
        shutil.rmtree(partial, ignore_errors=True)
    else:
        record = read_record(folder)
    lacking = [name for name, file in files.items() if options.force or not _is_there(folder / name, file, record)]
    sources = _find_own(lacking, options.own_folder) if options.own_folder else {}
    taken = [name for name in lacking if name in sources and _take(sources[name], folder / name, files[name], emit)]
    for name in taken:
        _add(folder, name, str(sources[name].absolute()), record)
    missing = [name for name in lacking if name not in taken]
    unpacked = _explain_unpacked(missing, options.own_folder) if options.own_folder else ""
    if missing and options.offline:
        raise InputError(
            f"{folder}: missing, and --offline forbids downloading: {first_few(missing)}; "
            + (unpacked or "put them there, or name their folder with --from")
        )
    if unpacked:
        emit(Warn(unpacked))
    try:
        for name in missing:
            partial.mkdir(exist_ok=True)
            fetched, url = download(name, files[name], partial, emit, options.retry)
            fetched.replace(folder / name)
            _add(folder, name, url, record)
    finally:
        with suppress(OSError):  # not empty: part of a file is kept for the next call
            partial.rmdir()
    if not missing:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _is_there(path: Path, file: SourceFile, record: FetchRecord) -> bool:
    """Return whether a file exists. Raises InputError if it is not the expected one."""
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
        _add(path.parent, path.name, "was there already", record)
    return True


def check_unchanged(path: Path, known: FileRecord, advice: str = AGAIN) -> None:
    """Raise InputError if a file is not the recorded one any more."""
    if not path.is_file() or (found := hash_file(path)) != known.sha256:
        what = f"SHA-256 {found}, not {known.sha256}" if path.is_file() else "gone"
        raise InputError(f"{path}: changed since {known.date} ({what}); {advice}")


def _find_own(names: Collection[str], folder: Path) -> dict[str, Path]:
    """Return the first file of each name in or below a folder. Raises InputError if there is no such folder."""
    if not folder.is_dir():
        raise InputError(
            f"--from {folder}: {'that is a file, not a' if folder.exists() else 'there is no such'} folder"
        )
    return {path.name: path for path in reversed(list_files_below(folder)) if path.name in names}


def _explain_unpacked(missing: Collection[str], folder: Path) -> str:
    """Return advice if a folder holds the unpacked JSON of missing archives; empty if it does not."""
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
    """Copy the user's file if it is the expected one; return whether it is."""

    def copy(part: Path) -> None:
        # The copy is checked, not the source, which may change in between.
        shutil.copyfile(source, part)
        with part.open("rb") as stream:
            page = looks_like_web_page(stream.read(1024))
        fault = find_fault(part, path.name, file) or ("it is a web page" if page else None)
        if fault:
            raise ValueError(fault)

    try:
        write_through(path, copy)
    except ValueError as fault:
        emit(Warn(f"{source}: not used, because it is not the expected file: {fault}"))
        return False
    except OSError as error:
        raise VqabenchError(f"{source}: cannot be copied to {path.parent}: {error.strerror or error}") from error
    emit(f"{path.name}: taken from {source}")
    return True


def _add(folder: Path, name: str, source: str, record: FetchRecord) -> None:
    record.files[name] = describe_file(folder / name, source)
    record.counts.clear()
    write_record(folder, record)

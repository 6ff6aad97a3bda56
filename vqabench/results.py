"""The run folder: `runs/<dataset>/<backbone>/<objective>-<loss>[@label]/seed-<n>/`.

Every file is written beside its name and renamed, so that a reader or a kill never sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import msgspec

from vqabench.errors import InputError, VqabenchError

Status = Literal["running", "finished", "stopped", "failed"]
BUSY = "another process is training it"
LONGEST_LABEL = 80


class Manifest(msgspec.Struct, kw_only=True, forbid_unknown_fields=False):
    """`run.json`: what was run, on what, with what, and how it ended."""

    dataset: str
    backbone: str
    objective: str
    loss: str
    label: str
    """What the user calls the settings, or every one that differs from the defaults, in short."""
    seed: int
    options: dict[str, dict[str, Any]]
    """Part -> its options, as resolved: `backbone`, `base`, each transform, the loss."""
    bases: dict[str, str] = {}
    """Label -> backbone, for a backbone that is built over others."""
    distributions: dict[str, str]
    """Label of each part -> the distribution that its plugin came from."""
    recipe: dict[str, Any]
    stages: list[dict[str, Any]]
    """Name, loss and epochs of each stage."""
    select: Literal["last", "val", "test"]
    """How the epoch was chosen. `test` brands every table made from the run."""
    test_domain: Literal["out-of-domain", "in-domain"] = "out-of-domain"
    """What the test split is to the training split."""
    vocabulary: Literal["train", "train+test"] = "train"
    """Whose questions the answers were taken from. `train+test` brands likewise."""
    track_test: bool = False
    start_from: str | None = None
    """The run whose weights this one started from."""
    pretraining: list[str] = []
    """What the weights that the backbone brought along took from test questions: brands likewise."""
    notes: list[str] = []
    """What a reader of its numbers must know."""
    fingerprint: str
    """Of the prepared data."""
    questions: dict[str, int] = {}
    """Split -> its number of questions; empty in runs of earlier versions."""
    test_ids: str = ""
    """`hash_ids` of the test questions, likewise."""
    versions: dict[str, str]
    """Of vqabench, its plugins, Python and PyTorch."""
    sources: dict[str, str] = {}
    """Distribution of each plugin -> SHA-256 of its source files."""
    checksums: dict[str, str] = {}
    """SHA-256 of the weights, the answers and the scores that the finished run wrote, by file name."""
    device: str
    precision: str
    threads: int
    processes: int = 1
    """How many trained it together."""
    pieces: int = 1
    """Pieces that each batch was cut into, where memory was not enough for the whole."""
    parameters: int
    started: str
    """UTC, ISO 8601."""
    seconds: float = 0.0
    status: Status = "running"
    failure: str = ""
    epoch: int | None = None
    """The chosen epoch, counted from 1 over all stages."""

    def __post_init__(self) -> None:
        missing = {"backbone", *self.bases} - self.options.keys()
        if missing:
            raise ValueError(f"options lack {', '.join(sorted(missing))}")

    def brands(self) -> list[str]:
        """Tell what its training, or that of the weights it began with, took from the test split."""
        vocabulary = "the answer vocabulary was made of train and test"
        chosen = "the epoch was chosen on the test split"
        return [chosen] * (self.select == "test") + [vocabulary] * (self.vocabulary != "train") + self.pretraining


class Run:
    """One run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest_file = folder / "run.json"
        self.epochs_file = folder / "epochs.jsonl"
        self.weights_file = folder / "model.safetensors"
        self.scores_file = folder / "scores.json"
        self.resume_file = folder / "resume.pt"
        self._lock_file = folder.with_name(f".{folder.name}.lock")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training the run. Raises InputError where one does.

        A run that comes to nothing leaves no folders behind that were not there.
        """
        new = [parent for parent in self.folder.parents if not parent.exists()]
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with holding(self._lock_file, self._refuse):
                yield
        finally:
            for parent in new if not self.folder.exists() else ():
                with suppress(OSError):  # another run has come to be in it
                    parent.rmdir()

    def is_locked(self) -> bool:
        """Return whether another process is training the run."""
        from filelock import FileLock, Timeout

        if not self._lock_file.exists():
            return False
        try:
            with FileLock(self._lock_file, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # whoever trains the run reports it
            return False

    def _refuse(self) -> NoReturn:
        raise InputError(f"{self.folder}: {BUSY}")

    def predictions_file(self, split: str) -> Path:
        """Give the name of a split's predictions."""
        return self.folder / f"predictions.{split}.json"

    def read_manifest(self) -> Manifest:
        """Read `run.json`. Raises InputError where it is missing or damaged."""
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: there is no such run")
        seeds = sorted(folder.name for folder in self.folder.glob("seed-*"))
        if seeds and not self.manifest_file.exists():
            raise InputError(f"{self.folder}: holds runs, and is none: name one, such as {self.folder / seeds[0]}")
        return read_json(self.manifest_file, Manifest, "not a run, or a damaged one: train it again with --force")

    def write_manifest(self, manifest: Manifest) -> None:
        """Write `run.json`."""
        write_file(self.manifest_file, msgspec.json.format(msgspec.json.encode(manifest), indent=2))

    def check_file(self, path: Path, advice: str) -> None:
        """Check a file of the run against the checksum in its manifest, where there is one.

        Raises InputError, with advice, where the file has changed since the run wrote it.
        """
        recorded = self.read_manifest().checksums.get(path.name) if self.manifest_file.is_file() else None
        if recorded is not None and path.is_file() and hash_file(path) != recorded:
            raise InputError(f"{path}: damaged: its content has changed since the run wrote it; {advice}")

    def append_epoch(self, record: Mapping[str, Any]) -> None:
        """Add a line to `epochs.jsonl`. Raises VqabenchError where the disk is full."""
        with _naming(self.epochs_file), self.epochs_file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")

    def read_epochs(self) -> list[dict[str, Any]]:
        """Read the records of `epochs.jsonl`, in its order, broken lines left out; none where there is no file."""
        if not self.epochs_file.is_file():
            return []
        lines = self.epochs_file.read_bytes().splitlines()
        return [json.loads(line) for line in lines if _epoch_of(line) is not None]

    def keep_epochs(self, count: int) -> int:
        """Drop the lines of epochs behind the first `count`, and broken ones; give how many are left."""
        if not self.epochs_file.is_file():
            return 0
        kept = [
            line for line in self.epochs_file.read_bytes().splitlines() if _epoch_of(line) in range(1, count + 1)
        ]
        write_file(self.epochs_file, b"".join(line + b"\n" for line in kept))
        return len(kept)

    def parts(self) -> set[Path]:
        """Give what a killed process had begun to write: files of ours beside their names, and of safetensors."""
        return {*self.folder.glob(".*.part-*"), *self.folder.glob(".tmp??????")}

    def has_begun(self) -> bool:
        """Tell whether the folder holds any whole file: a full disk, or a kill, may have left none."""
        return self.folder.exists() and not self.parts().issuperset(self.folder.iterdir())

    def sweep(self) -> None:
        """Delete what a killed process had begun to write."""
        for part in self.parts():
            part.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete what a finished run needs no more, where a kill came before that was done."""
        with suppress(InputError, OSError), self.lock():  # another process may be at it, or it is somebody else's
            self.resume_file.unlink(missing_ok=True)

    def begin_anew(self, manifest: Manifest) -> None:
        """Put a beginning in the place of all that the folder holds. A kill leaves the one run or the other."""
        self.resume_file.unlink(missing_ok=True)  # first: the new run must not go on from it
        self.write_manifest(manifest)
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.manifest_file:
                path.unlink()

    def clear(self) -> None:
        """Delete the run, if there is one. Raises OSError where that is not allowed."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


@contextmanager
def holding(lock_file: Path, when_taken: Callable[[], object]) -> Iterator[None]:
    """Hold a lock. Where another process has it, do something, such as to raise an error, then wait for it."""
    from filelock import FileLock, Timeout  # only where something is made: it loads asyncio and more

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        when_taken()
        lock.acquire()
    try:
        yield
    finally:
        lock_file.unlink(missing_ok=True)  # while it is held: whoever waits has a file of no name
        lock.release()


def _epoch_of(line: bytes) -> int | None:
    """Give the epoch that a line of `epochs.jsonl` is about; None where the line is broken."""
    try:
        epoch = json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):
        return None
    return epoch if isinstance(epoch, int) else None


def run_folder(runs: Path, dataset: str, backbone: str, strategy: str, label: str, seed: int) -> Path:
    """Give the folder of a run; `strategy` is `<objective>-<loss>`."""
    name = f"{strategy}@{label}" if label else strategy
    return runs / dataset / _safe(backbone) / _safe(name) / f"seed-{seed}"


def spell_label(changes: Mapping[str, object]) -> str:
    """Spell the settings that differ from the defaults as a user writes them, in a form fit for a folder's name."""
    words = [(key, "none" if value is None else str(value)) for key, value in sorted(changes.items())]
    spelled = ",".join(f"{key}={value}" for key, value in words)
    plain = all(re.fullmatch(r"[A-Za-z0-9._+-]*", word) for pair in words for word in pair)
    if plain and len(spelled) <= LONGEST_LABEL:
        return spelled
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:8]
    return f"{_safe(spelled)[: LONGEST_LABEL - 9]}~{digest}"


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._,=+@~-]", "_", name)


def find_runs(paths: list[Path]) -> Iterator[Run]:
    """Find every run in or below the given folders, each once, in the order of their names.

    Raises InputError where a path does not exist or holds no run.
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if not path.is_dir():
            raise InputError(
                f"{path}: {'that is a file, not a' if path.exists() else 'there is no such'} folder of runs"
            )
        folders = sorted(Path(folder) for folder, _, files in os.walk(path) if "run.json" in files)
        if not folders:
            raise InputError(f"{path}: holds no run (no run.json in it or below)")
        for folder in folders:
            place = folder.stat()
            if (place.st_dev, place.st_ino) not in seen:
                seen.add((place.st_dev, place.st_ino))
                yield Run(folder)


Decoded = TypeVar("Decoded")


def read_json(path: Path, kind: type[Decoded], advice: str) -> Decoded:
    """Decode a JSON file of the run folder. Raises InputError where it is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise InputError(f"{path}: missing: {advice}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}: {advice}") from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file beside its name, then rename it."""
    write_through(path, lambda part: part.write_bytes(content))


def find_place(path: Path) -> Path:
    """Give the file that a name stands for, links followed.

    Raises InputError where no file can be written there: no such folder, or something else, such as a device.
    """
    place = path.resolve()
    if not place.parent.is_dir():
        raise InputError(f"{path}: there is no folder {place.parent}")
    if place.exists() and not place.is_file():
        raise InputError(f"{path}: not a file, so it cannot be written")
    return place


def find_output(path: Path) -> Path:
    """Give the file that a user's output goes to, which is none of a run's own. Raises as `find_place` does."""
    place = find_place(path)
    if place.exists() and (place.parent / "run.json").is_file():
        raise InputError(f"{path}: that is a file of a run's, which is not written over; choose another name")
    return place


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside the name `path`, then rename it. Raises as `find_place` does."""
    path = find_place(path)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        with _naming(path):
            write(part)
            with part.open("rb+") as written:
                os.fsync(written.fileno())  # or a power failure might leave the new name on nothing
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file could not be written where an error does not, as on a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise VqabenchError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise

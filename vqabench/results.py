"""The run folder: `runs/<dataset>/<backbone>/<objective>-<loss>[@label]/seed-<n>/`.

Every file is written to a temporary file and renamed, so that neither a reader nor a kill leaves half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec

from vqabench.errors import InputError
from vqabench.files.atomic import hash_file, holding, naming, open_own, read_file, read_json, write_file

Status = Literal["running", "finished", "stopped", "failed"]
BUSY = "another process is training it"
BEGIN = "begin with: vqabench train NAME"
"""Advice to a user who has no runs."""
LONGEST_LABEL = 80
DEEPEST = 16
"""How deeply tables and lists of a manifest may be nested: more is a damaged or hostile file."""

Name = Annotated[str, msgspec.Meta(max_length=1000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Manifest(msgspec.Struct, kw_only=True, frozen=True):
    """`run.json`: the configuration of a run, its data, versions, checksums and outcome."""

    dataset: Name
    backbone: Name
    objective: Name
    loss: Name
    label: Name
    """The user's name for the settings, or those that differ from the defaults."""
    seed: Count
    config: dict[str, Any] = {}
    """The options of `vqabench train` that were given, by their keys in TOML files; empty in earlier versions."""
    options: dict[str, dict[str, Any]]
    """Part -> all its options: `backbone`, `base`, each transform, the loss."""
    bases: dict[str, str] = {}
    """Label -> backbone, for a backbone that wraps others."""
    distributions: dict[str, str]
    """Label of each part -> the distribution of its plugin."""
    recipe: dict[str, Any]
    stages: list[dict[str, Any]]
    """Name, loss and epochs of each stage."""
    select: Literal["last", "val", "test"]
    """How the epoch was chosen. `test` marks every table made from the run."""
    test_domain: Literal["out-of-domain", "in-domain"] = "out-of-domain"
    """Whether the test split has the answer priors of training."""
    vocabulary: Literal["train", "train+test"] = "train"
    """The splits that the answer vocabulary comes from. `train+test` marks tables too."""
    track_test: bool = False
    start_from: str | None = None
    """The run whose weights this one started from."""
    pretraining: list[str] = []
    """Which test questions pre-trained weights have seen, in words: marks tables too."""
    notes: list[str] = []
    """Remarks for readers of its numbers."""
    fingerprint: str
    """Hash of the files and settings that the prepared data was made from."""
    questions: dict[str, int] = {}
    """Split -> its number of questions; empty in runs of earlier versions."""
    test_ids: str = ""
    """`hash_ids` of the test questions; empty in runs of earlier versions."""
    versions: dict[str, str]
    """Versions of vqabench, its plugins, Python and PyTorch."""
    sources: dict[str, str] = {}
    """Distribution of each plugin -> SHA-256 of its source files."""
    checksums: dict[str, str] = {}
    """SHA-256 of the weights, answers and scores of a finished run, by file name."""
    device: str
    precision: str
    threads: Count
    processes: Count = 1
    """How many processes trained it together."""
    pieces: Count = 1
    """Pieces that each batch was split into, because memory was not enough for the whole."""
    parameters: Count
    started: str
    """Time of the start in UTC, in the format of ISO 8601."""
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e10)] = 0.0
    status: Status = "running"
    failure: str = ""
    epoch: Count | None = None
    """The chosen epoch, counted from 1 over all stages."""

    def __post_init__(self) -> None:
        missing = {"backbone", *self.bases} - self.options.keys()
        if missing:
            raise ValueError(f"options lack {', '.join(sorted(missing))}")
        for stage in self.stages:
            if type(stage.get("epochs")) is not int or not 0 <= stage["epochs"] < 2**63:
                raise ValueError("each stage needs epochs, a whole number")
        if not _is_shallow([self.config, self.options, self.recipe, self.stages], DEEPEST):
            raise ValueError("config, options, recipe or stages are nested too deeply")

    def brands(self) -> list[str]:
        """Return how its training, or that of the weights it started from, used the test split."""
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
        """Keep other processes from training the run. Raises InputError if another one trains it.

        Folders made for a run that never began are removed again.
        """
        new = [parent for parent in self.folder.parents if not parent.exists()]
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Patience, because another process's `is_locked` may hold the lock for an instant.
            with holding(self._lock_file, self._refuse, patience=0.2):
                yield
        finally:
            for parent in new if not self.folder.exists() else ():
                with suppress(OSError):  # another run may be in it by now
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
        except OSError:  # training the run will fail for the same reason, and report it
            return False

    def _refuse(self) -> NoReturn:
        raise InputError(f"{self.folder}: {BUSY}")

    def predictions_file(self, split: str) -> Path:
        """Return the file of a split's predictions."""
        return self.folder / f"predictions.{split}.json"

    def read_manifest(self) -> Manifest:
        """Read `run.json`. Raises InputError if it is missing or damaged."""
        names = self._list()
        if names is None:
            raise InputError(f"{self.folder}: there is no such run")
        if self.manifest_file.name not in names and not self.has_begun():
            # Data set, backbone, strategy and seed: runs are at most four folders deep.
            below = (path for depth in range(1, 5) for path in sorted(self.folder.glob("*/" * depth + "run.json")))
            first = next(below, None)
            if first is not None:
                raise InputError(f"{self.folder} is a folder of runs; name one, such as {first.parent}")
            raise InputError(f"{self.folder}: not a run: there is no run.json in it")
        return read_json(self.manifest_file, Manifest, "the run is damaged; train it again with --force")

    def write_manifest(self, manifest: Manifest, **changes: Any) -> None:
        """Write `run.json`: a manifest with some of its fields changed."""
        changed = msgspec.structs.replace(manifest, **changes)
        write_file(self.manifest_file, msgspec.json.format(msgspec.json.encode(changed), indent=2))

    def check_file(self, path: Path, advice: str) -> None:
        """Raise InputError, with advice, if a file has changed since the run wrote it.

        Runs of earlier versions have no checksums.
        """
        recorded = self.read_manifest().checksums.get(path.name) if self.manifest_file.is_file() else None
        if recorded is not None and path.is_file() and hash_file(path) != recorded:
            raise InputError(f"{path}: damaged: its content has changed since the run wrote it; {advice}")

    def append_epoch(self, record: Mapping[str, Any]) -> None:
        """Add a line to `epochs.jsonl`. Raises VqabenchError if the disk is full."""
        with naming(self.epochs_file), open(self.epochs_file, "a", encoding="utf-8", opener=open_own) as lines:
            lines.write(json.dumps(record) + "\n")

    def read_epochs(self) -> list[dict[str, Any]]:
        """Read the records of `epochs.jsonl` without broken lines; an empty list if there is no file.

        Raises InputError if it cannot be read.
        """
        return [record for _, record in self._read_epoch_lines()]

    def keep_epochs(self, count: int) -> int:
        """Keep the lines of the first `count` epochs, without broken ones; return how many are left.

        A link is replaced by a file of the run's own, because later epochs are appended to it.
        """
        if not os.path.lexists(self.epochs_file):
            return 0
        kept = [line for line, record in self._read_epoch_lines() if 1 <= record["epoch"] <= count]
        write_file(self.epochs_file, b"".join(line + b"\n" for line in kept))
        return len(kept)

    def _read_epoch_lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        if not self.epochs_file.exists():
            return
        for line in read_file(self.epochs_file).splitlines():
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                record = msgspec.json.decode(line, type=dict[str, Any])
                if type(record.get("epoch")) is int:
                    yield line, record

    def has_begun(self) -> bool:
        """Return whether the folder holds any complete file of a run; a kill or a full disk may have left none.

        Raises InputError if the folder cannot be read.
        """
        return any(not _PARTIAL.fullmatch(path.name) for path in self._written())

    def _list(self) -> list[str] | None:
        """Return the names in the folder; None if there is no folder. Raises InputError if it cannot be read."""
        try:
            return [path.name for path in self.folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            if self.folder.is_symlink():
                raise InputError(
                    f"{self.folder}: a link to {self.folder.readlink()}, which is not a folder"
                ) from None
            return None
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be read: {error.strerror}") from error

    def _written(self) -> list[Path]:
        """Return the files and folders that a run has written; others in its folder are the user's."""
        return [self.folder / name for name in self._list() or () if _WRITTEN.fullmatch(name)]

    def sweep(self) -> None:
        """Delete the partial files of a killed process."""
        for path in self._written():
            if _PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete the resume state of a finished run, which remains if the process was killed at its end."""
        # Another process may be using it, or the folder may belong to another user.
        with suppress(InputError, OSError), self.lock():
            self.resume_file.unlink(missing_ok=True)

    def begin_anew(self, manifest: Manifest) -> None:
        """Replace the run in the folder by a new one. A killed process leaves either the old or the new one."""
        self.resume_file.unlink(missing_ok=True)  # first, because the new run must not continue from it
        self.write_manifest(manifest)
        self._delete(self.manifest_file)

    def clear(self) -> None:
        """Delete the run, if there is one, but no files of the user's. Raises OSError if that is not allowed."""
        self._delete()
        with suppress(OSError):  # there is no folder, or it holds files of the user's
            self.folder.rmdir()

    def _delete(self, *kept: Path) -> None:
        """Delete everything that a run has written except the files `kept`; links are not followed."""
        for path in self._written():
            if path in kept:
                continue
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            elif path.name == "wandb":
                shutil.rmtree(path)
            else:
                for log in path.glob("events.out.tfevents.*"):
                    log.unlink()
                with suppress(OSError):  # it holds files of the user's
                    path.rmdir()


_PARTIAL = re.compile(r"\..+\.part-\d+|\.tmp.{6}")
"""Names of the partial files of a killed process: ours, and those of safetensors."""
_WRITTEN = re.compile(
    r"run\.json|epochs\.jsonl|model\.safetensors|scores\.json|resume\.pt|predictions\..+\.json|tensorboard|wandb"
    rf"|wandb\.jsonl|{_PARTIAL.pattern}"
)
"""Names of everything that a run writes into its folder."""


def _is_shallow(value: object, depth: int) -> bool:
    """Return whether tables and lists are nested no more deeply than `depth`."""
    if not isinstance(value, dict | list):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(part, depth - 1) for part in parts)


def run_folder(runs: Path, dataset: str, backbone: str, strategy: str, label: str, seed: int) -> Path:
    """Return the folder of a run; `strategy` is `<objective>-<loss>`."""
    name = f"{strategy}@{label}" if label else strategy
    return runs / dataset / _safe(backbone) / _safe(name) / f"seed-{seed}"


def format_label(changes: Mapping[str, object]) -> str:
    """Return changed settings as on the command line; shortened, with a hash, if they cannot name a folder."""
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
    """Yield every run in or below the given folders, once, in the order of their names. Links are followed.

    A folder that cannot be read, and a broken link, are yielded too: reading them as runs reports what is wrong.
    Raises InputError if a path does not exist or holds no run.
    """
    seen: set[str] = set()
    for path in paths:
        if not path.is_dir():
            if path.exists():
                raise InputError(f"{path}: that is a file, not a folder of runs")
            raise InputError(f"{path}: there is no such folder of runs; {BEGIN}")
        folders = list(_walk(path))
        if not folders:
            raise InputError(f"{path}: holds no run (no run.json in it or below); {BEGIN}")
        for folder in folders:
            place = os.path.realpath(folder)
            if place not in seen:
                seen.add(place)
                yield Run(folder)


def _walk(top: Path) -> Iterator[Path]:
    """Yield the folders of runs below a folder, and what cannot be read. Cycles of links are followed once."""
    seen = {str(folder) for folder in top.resolve().parents}  # a link to one of them leads back here
    left = [top]
    while left:
        folder = left.pop()
        place = os.path.realpath(folder)
        if place in seen:
            continue
        seen.add(place)
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        except OSError:
            yield folder
            continue
        if any(entry.name == "run.json" for entry in entries):
            yield folder
        else:
            left += [folder / entry.name for entry in entries if _may_hold_runs(entry)]


def _may_hold_runs(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a broken link that may have led to one."""
    try:
        entry.stat()
        return entry.is_dir()
    except OSError:
        return not entry.name.startswith(".")

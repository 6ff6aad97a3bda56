"""Read the catalogue of data sets: `datasets.toml`, and the user's own catalogues."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError, first_few, unknown
from vqabench.files.atomic import read_file

Positive = Annotated[int, msgspec.Meta(ge=1)]


class SourceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file to fetch: its URLs, and how to verify it."""

    urls: tuple[str, ...]
    """Mirrors, the preferred one first."""
    sha256: str | None = None
    git_blob: str | None = None
    """Git's id of the content: SHA-1 of `blob <size>`, a zero byte, and the content."""
    size: Positive | None = None
    """In bytes."""

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("urls must name at least one mirror")
        for url in self.urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
                raise ValueError(f"urls: {url!r} is not an http or https URL")
        for name, digest, length in (("sha256", self.sha256, 64), ("git_blob", self.git_blob, 40)):
            if digest is not None and not re.fullmatch(rf"[0-9a-f]{{{length}}}", digest):
                raise ValueError(f"{name} must be {length} hexadecimal digits in lower case, not {digest!r}")

    @property
    def has_checksum(self) -> bool:
        """Return whether the content can be verified to the byte."""
        return bool(self.sha256 or self.git_blob)


class SplitCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The published sizes of a split. Those of train include a `val` that is carved from it."""

    questions: Positive | None = None
    images: Positive | None = None
    """With questions."""
    answers: Positive | None = None
    """Of all annotators."""

    def find_difference(self, found: SplitCounts) -> str | None:
        """Return the first count that differs from this expectation; None if all agree."""
        for key in self.__struct_fields__:
            wanted, there = getattr(self, key), getattr(found, key)
            if wanted not in (None, there):
                return f"holds {there:,} {key}, but the catalogue expects {wanted:,}"
        return None


class Derivation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"parent": "from"}):
    """A data set made by splitting another one by a list of test questions, as VQA-CP is made from VQA."""

    parent: str
    test_ids: str
    """Name in this data set's `files`."""


class Carving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The share of the training images whose questions become the validation split."""

    share: float
    """Of the training images, in (0, 1)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1, not {self.share}")

    def choose(self, images: Collection[ImageId]) -> set[ImageId]:
        """Return the chosen images. Each is drawn by its own id, independent of the others."""
        digests = {image: hashlib.sha256(f"{self.seed}:{image}".encode()).digest() for image in images}
        return {image for image, digest in digests.items() if int.from_bytes(digest[:8]) / 2**64 < self.share}


SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
"""Training, in-domain validation, out-of-domain test."""
LARGEST = 1 << 22
"""Bytes of a catalogue."""

Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class SplitFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The files of a split's questions and annotations; several are concatenated."""

    questions: Names
    annotations: Names = ()
    """Without annotations, the split can be answered but not scored."""


class Subset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Named questions of a split, which tables show by themselves; subsets may overlap."""

    ids: str
    """A file with their ids, in any form that a list of test questions may have."""
    of: SplitName = "test"


class DatasetEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One data set of a catalogue."""

    title: str
    licence: str = "not stated"
    citation: str = ""
    generator: Literal["digits"] | None = None
    """Set if the data set is generated instead of read."""
    splits: dict[SplitName, SplitFiles] = {}
    subsets: dict[str, Subset] = {}
    """Named parts of splits, in the order of their columns in `compare --by subset`."""
    test_domain: Literal["out-of-domain", "in-domain"] = "out-of-domain"
    """Whether the answer priors of `test` differ from those of training; tables use this name."""
    validation: Carving | None = None
    """Carves the split `val` out of train: some of the images, with all their questions."""
    files: dict[str, SourceFile] = {}
    """Files for `vqabench data fetch`, by name. If there are any, other paths are relative to their folder."""
    derived: Derivation | None = None
    """Set if the data set is made from another one's questions."""
    counts: dict[SplitName, SplitCounts] = {}
    """Expected sizes, checked when the data set is fetched."""
    features: tuple[str, ...] = ()
    features_from: str = ""
    """Where to get region features that cannot be fetched; the user names them in `data prepare`."""
    repeated_questions: Literal["refuse", "drop"] = "refuse"
    """Questions in two splits. `drop` removes those of `val` and `test` from `train`, and of `test` from `val`."""
    images_without_features: Literal["refuse", "skip"] = "refuse"
    """`skip`: their questions count for vocabulary and priors, but are not used in training or testing."""
    broken_features: Literal["refuse", "skip"] = "refuse"
    """Truncated, repeated or undecodable rows of features: `skip` leaves them out."""
    features_without_boxes: Literal["refuse", "whole-image"] = "refuse"
    """`whole-image`: every region's box is the whole image, for backbones that do not use boxes."""
    feature_precision: Literal["float16", "float32"] = "float16"
    object_names: str | None = None
    """A file with the names of object classes, one per line; of synonyms (`a,b`) the first is used."""
    word_vectors: str | None = None
    """A GloVe text file: a word and its numbers per line."""
    minimum_answer_count: Positive = 9
    """Questions whose most common answer it must be, for an answer to enter the vocabulary."""
    vocabulary: Literal["train", "train+test"] = "train"
    """Splits that count for the vocabulary. The paper's code uses both; runs with both are marked in tables."""
    question_length: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 14
    recipe: dict[str, Any] = {}
    """Changes to every backbone's recipe on this data set, whose size may require another schedule."""

    def __post_init__(self) -> None:
        for name in self.files:
            if not re.fullmatch(r"\w[\w.-]{0,199}", name):  # it could lead out of the folder, or be hidden
                raise ValueError(
                    f"files: {name!r} is not a valid file name: up to 200 letters, digits, '.', '_' and '-' only"
                )
            if name == "fetched.json":
                raise ValueError(f"files: {name!r} is reserved for the record of fetched files")
        for name in self.subsets:
            if not re.fullmatch(r"\w[\w .-]{0,39}", name):  # it becomes the head of a column
                raise ValueError(
                    f"subsets: {name!r} is not a valid name: up to 40 letters, digits, spaces and . _ - only"
                )


PARTS: dict[str, type[msgspec.Struct]] = {
    "splits": SplitFiles,
    "counts": SplitCounts,
    "files": SourceFile,
    "subsets": Subset,
}
"""Keys whose values are tables of tables."""
Understood = TypeVar("Understood", bound=msgspec.Struct)


def read_catalog(own: Path | Sequence[Path] | None) -> dict[str, tuple[DatasetEntry, Path]]:
    """Read the bundled catalogue and the user's own; return entries with the folders of their catalogues.

    Without catalogues of the user, those of `$VQABENCH_CATALOG` are read. Raises InputError, naming file and key,
    if a catalogue is invalid, or two of the user's have an entry of the same name.
    """
    package = Path(__file__).parents[2]
    bundled = package / "datasets.toml"  # in a checkout, it is at the root instead
    entries = _read_entries(bundled if bundled.is_file() else package.parent / "datasets.toml")
    owners: dict[str, Path] = {}
    if isinstance(own, Path):
        own = [own]
    if not own:
        named = os.environ.get("VQABENCH_CATALOG", "")
        own = [Path(one) for one in ([named] if Path(named).exists() else named.split(os.pathsep)) if one]
    for path in {path.absolute(): path for path in own}.values():  # each once
        for name, entry in _read_entries(path).items():
            if name in owners:
                raise InputError(f"{path}: [{name}] is also in {owners[name]}; rename one of them")
            entries[name], owners[name] = entry, path
    return entries


def _read_entries(path: Path) -> dict[str, tuple[DatasetEntry, Path]]:
    try:
        content = read_file(path, LARGEST)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such catalogue") from None
    except ValueError as error:  # a name that holds a zero byte
        raise InputError(f"{path}: the catalogue cannot be read: {error}") from error
    try:
        tables = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a catalogue: TOML must be UTF-8, but byte {error.start} is not") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not a catalogue in TOML: {error}") from error
    except RecursionError:
        raise InputError(f"{path}: not a catalogue: tables are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path}: not a catalogue: a number in it has thousands of digits") from error
    return {name: (_convert(name, table, path), path.parent.absolute()) for name, table in tables.items()}


def _convert(name: str, table: object, path: Path) -> DatasetEntry:
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):  # it becomes the name of folders
        raise InputError(
            f"{path}: {name!r} is not a valid name of a data set: up to 100 letters, digits, '.', '_' and '-' only"
        )
    if not isinstance(table, Mapping):
        raise InputError(f"{path}: {name!r} must be a table, as in [{name}]")
    where = f"{path}: [{name}]"
    fields: dict[str, Any] = dict(table)
    if isinstance(fields.get("features"), str):
        fields["features"] = [fields["features"]]
    splits = fields.get("splits", {})
    if isinstance(splits, Mapping):  # a split may name a single file without brackets
        fields["splits"] = {
            split: {key: [one] if isinstance(one, str) else one for key, one in files.items()}
            if isinstance(files, Mapping)
            else files
            for split, files in splits.items()
        }
    _check_parts(fields, where)
    _check_names(fields, where)
    entry = _understand(fields, DatasetEntry, where)
    _check_complete(name, entry, where)
    return entry


def _check_parts(fields: Mapping[str, Any], where: str) -> None:
    """Raise InputError if a table inside an entry is invalid; done first, because the message names the table."""
    for key, kind in PARTS.items():
        parts = fields.get(key)
        if isinstance(parts, Mapping):
            for name, part in parts.items():
                if key in ("splits", "counts") and name not in SPLITS:
                    raise InputError(f"{where}: {key}: {unknown('split', name, SPLITS)}")
                _understand(part, kind, f"{where}: {key}.{name}")
    for key, kind in (("validation", Carving), ("derived", Derivation)):
        if isinstance(fields.get(key), Mapping):
            _understand(fields[key], kind, f"{where}: {key}")


def _check_names(fields: Mapping[str, Any], where: str) -> None:
    """Raise InputError if a file name is not valid."""
    named = {key: fields.get(key) for key in ("features", "object_names", "word_vectors")}
    for split, files in fields["splits"].items() if isinstance(fields.get("splits"), Mapping) else ():
        named |= {f"splits.{split}.{kind}": names for kind, names in files.items()}
    for key, names in named.items():
        for name in names if isinstance(names, list) else [names]:
            if isinstance(name, str) and (not name or "\0" in name or any(len(p) > 255 for p in name.split("/"))):
                raise InputError(f"{where}: {key}: {name[:40]!r} is not a valid file name")


def _understand(table: object, kind: type[Understood], where: str) -> Understood:
    keys = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in table if isinstance(table, Mapping) else ():
        if key not in keys:
            raise InputError(f"{where}: {unknown('key', key, keys)}")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        message = re.sub(r"`\$\.?", "`", str(error)).replace(" - at ``", "")
        raise InputError(f"{where}: {_reword(message)}{_valid_values(message)}") from error


def _reword(message: str) -> str:
    """Return an error of msgspec in the terms of TOML, the key first."""
    message, _, key = message.partition(" - at ")
    for name, word in _KINDS.items():
        message = re.sub(rf"(?<=[`|] )?\b{name}\b(?= \||`)", word, message)
    message = (
        message.replace("`", "").replace(" | null", "").replace("Object missing required field ", "needs the key ")
    )
    message = re.sub(r"^Expected (.*), got ", r"must be \1, not ", message)
    message = re.sub(r"^Expected ", "must be ", message).replace("not a number", "not a number with a point")
    return f"{key.strip('`')}: {message}" if key else message


_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "date": "a date",
    "datetime": "a time",
    "time": "a time",
}


def _valid_values(message: str) -> str:
    """Return the valid values if an error is about a key with a few of them; empty otherwise."""
    key = re.search(r"Invalid enum value.* - at `(\w+)`", message)
    hint = get_type_hints(DatasetEntry).get(key[1]) if key else None
    kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
    values = [value for kind in kinds for value in get_args(kind)]
    return f"; valid: {', '.join(values)}" if values else ""


def _check_complete(name: str, entry: DatasetEntry, where: str) -> None:
    if entry.generator:
        return
    if entry.derived:
        if entry.splits:
            raise InputError(
                f"{where}: is derived from {entry.derived.parent}, which makes its splits; remove splits"
            )
        if entry.derived.test_ids not in entry.files:
            raise InputError(f"{where}: derived.test_ids: {unknown('file', entry.derived.test_ids, entry.files)}")
    elif "train" not in entry.splits or not entry.splits["train"].annotations:
        raise InputError(f"{where}: needs [{name}.splits.train] with questions and annotations")
    if "val" in entry.splits and entry.validation:
        raise InputError(f"{where}: has a val split, but validation makes another one; remove one of them")
    uncounted = entry.counts.keys() - (entry.splits.keys() or {"train", "test"})
    if uncounted:
        raise InputError(f"{where}: counts: there is no split {first_few(sorted(uncounted))}")
    if not entry.features and not entry.features_from:
        raise InputError(
            f"{where}: needs features = [...], the files with region features, or features_from = '...', "
            "where users can get them"
        )

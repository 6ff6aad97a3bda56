"""The catalogue of data sets: `datasets.toml`, and whatever a user's own catalogue adds to it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import platformdirs

from vqabench.data.annotation_reading import reading_annotations
from vqabench.data.annotation_table import AnnotationTable, concatenate
from vqabench.data.annotations import (
    Annotation,
    Question,
    check_answers,
    match,
    pair,
    read_annotations,
    read_questions,
)
from vqabench.data.carving import Carving
from vqabench.data.feature_choice import read_choice
from vqabench.data.sources import Counts, Derivation, SourceFile, check_names
from vqabench.errors import InputError, first_few, unknown

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""Training, in-domain validation, out-of-domain test."""


Positive = Annotated[int, msgspec.Meta(ge=1)]
Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class SplitFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a split's questions and annotations lie; several files are read one behind the other."""

    questions: Names
    annotations: Names


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a catalogue says of one data set."""

    title: str
    licence: str = "not stated"
    citation: str = ""
    generator: Literal["digits"] | None = None
    """A data set that is made here instead of read."""
    splits: dict[Split, SplitFiles] = {}
    validation: Carving | None = None
    """Makes the split `val` of some of the training images, with all their questions."""
    files: dict[str, SourceFile] = {}
    """Files that `vqabench data fetch` gets, by name; the other paths are then relative to their folder."""
    derived: Derivation | None = None
    """A data set that is made of another one's questions."""
    counts: dict[Split, Counts] = {}
    """Checked when the data set is fetched."""
    features: tuple[str, ...] = ()
    features_from: str = ""
    """Where region features may come from, where they cannot be fetched: the user names them when preparing."""
    images_without_features: Literal["refuse", "skip"] = "refuse"
    """`skip`: questions about them count for vocabulary and priors, but are neither trained on nor tested."""
    broken_features: Literal["refuse", "skip"] = "refuse"
    """What becomes of a truncated, repeated or undecodable row of features: `skip` keeps the others without it."""
    feature_precision: Literal["float16", "float32"] = "float16"
    object_names: str | None = None
    """Names of the classes that the features number: one a line, of synonyms (`a,b`) the first."""
    word_vectors: str | None = None
    """A GloVe text file: a word and its numbers a line."""
    minimum_answer_count: Positive = 9
    """An answer enters the vocabulary if it is the most common one of so many training questions."""
    vocabulary: Literal["train", "train+test"] = "train"
    """Whose questions count for the vocabulary. The paper's code takes both; tables of such runs are branded."""
    question_length: Positive = 14
    recipe: dict[str, Any] = {}
    """What every backbone's recipe is changed to on this data set: its size may ask for other steps."""

    def __post_init__(self) -> None:
        check_names(self.files)


@dataclass(frozen=True)
class Dataset:
    """One data set: its entry, and where its files lie."""

    name: str
    entry: Entry
    source: Path
    """The folder that the entry's paths are relative to."""
    folder: Path
    """Where its prepared form lies."""
    chosen_features: tuple[Path, ...] = ()
    """Files with region features that the user names now; where neither does, those that were named before."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Name the splits that it has."""
        carved = ["val"] if self.entry.validation else []
        return tuple(split for split in SPLITS if split in (*self.entry.splits, *carved))

    @property
    def prepared_file(self) -> Path:
        """Name the file that everything but the features is prepared into."""
        return self.folder / "prepared.h5"

    @property
    def features_file(self) -> Path:
        """Name the file that the region features are prepared into."""
        return self.folder / "features.h5"

    def has_features(self) -> bool:
        """Tell whether it is known which files hold region features. Raises as `feature_files` does."""
        return bool(self._named_features())

    def feature_files(self) -> list[Path]:
        """Give the files that hold region features.

        Raises InputError where none is named, or `features.json`, which remembers them, is damaged.
        """
        named = self._named_features()
        if not named:
            raise InputError(
                f"{self.name}: no region features yet; name them once: vqabench data prepare {self.name} "
                f"--features FILE. They may come from {self.entry.features_from}"
            )
        return named

    def _named_features(self) -> list[Path]:
        in_catalog = [self.source / name for name in self.entry.features]
        return in_catalog or list(self.chosen_features or read_choice(self.folder))

    def question_files(self) -> list[Path]:
        """Give the files that hold questions and annotations."""
        names = [name for split in self.entry.splits.values() for name in (*split.questions, *split.annotations)]
        return [self.source / name for name in dict.fromkeys(names)]

    def see_complete(self) -> None:
        """Raise InputError where what is to be fetched is not there, or features are not named."""
        archives = [Path(str(path).partition("::")[0]) for path in self.question_files()]
        missing = [path.name for path in archives if not path.is_file()]
        if self.entry.files and missing:
            raise InputError(
                f"{self.source}: lacks {first_few(missing)}: vqabench data fetch {self.name} gets them"
            )
        self.feature_files()

    def files(self) -> list[Path]:
        """Give every file that the data set is read from."""
        optional = [name for name in (self.entry.word_vectors, self.entry.object_names) if name]
        others = [self.source / name for name in optional]
        return list(dict.fromkeys([*self.question_files(), *self.feature_files(), *others]))

    def read_questions(self, split: str) -> list[Question]:
        """Read a split's questions. Raises InputError where a file is broken."""
        questions = self._read_question_files(self._source_of(split))
        return [questions[row] for row in self._rows(split, questions)]

    def read_split(self, split: str) -> tuple[list[Question], AnnotationTable]:
        """Read a split's questions and, in the same order, their annotations.

        Raises InputError where a file is broken, there are no questions, the two do not belong together, or
        a question has other than ten answers.
        """
        return self._part(split, *self._read_files(self._source_of(split)))

    def read_splits(self) -> dict[str, tuple[list[Question], AnnotationTable]]:
        """Read every split as `read_split` does, each file once."""
        whole = {split: self._read_files(split) for split in self.entry.splits}
        return {split: self._part(split, *whole[self._source_of(split)]) for split in self.splits}

    def read_records(self) -> tuple[list[Question], list[Annotation]]:
        """Read the questions of all splits and, in the same order, their annotations as they were written.

        Raises InputError as `read_split` does.
        """
        questions = [question for split in self.entry.splits for question in self._read_question_files(split)]
        names = [name for files in self.entry.splits.values() for name in files.annotations]
        annotations = [annotation for name in names for annotation in read_annotations(self.source / name)]
        check_answers(annotations, self.name)
        return questions, pair(questions, annotations, self.name)

    def count(self, split: Split) -> Counts:
        """Count what a split's files hold, before any of it is carved off. Raises as `read_split` does."""
        questions, table = self._read_files(split)
        images = len({question.image_id for question in questions})
        return Counts(questions=len(questions), images=images, answers=table.answers.codes.size)

    def _source_of(self, split: str) -> Split:
        """Name the split whose files hold this one."""
        return "train" if split == "val" and self.entry.validation else split  # type: ignore[return-value]

    def _read_question_files(self, split: Split) -> list[Question]:
        names = self.entry.splits[split].questions
        return [question for name in names for question in read_questions(self.source / name)]

    def _read_files(self, split: Split) -> tuple[list[Question], AnnotationTable]:
        files = self.entry.splits[split]
        with ExitStack() as stack:
            readers = [stack.enter_context(reading_annotations(self.source / name)) for name in files.annotations]
            questions = self._read_question_files(split)
            table = concatenate([read() for read in readers])
        where = f"{self.name}, split {split}"
        if not questions:
            raise InputError(f"{where}: there are no questions in {first_few(files.questions)}")
        return questions, table.take(match(questions, table.question_ids.tolist(), table.image_ids, where))

    def _part(
        self, split: str, questions: list[Question], annotations: AnnotationTable
    ) -> tuple[list[Question], AnnotationTable]:
        """Take the part of some files' questions that is a split."""
        rows = self._rows(split, questions)
        if not rows:
            raise InputError(f"{self.name}: validation.share leaves the split {split} no image")
        return [questions[row] for row in rows], annotations.take(rows)

    def _rows(self, split: str, questions: Sequence[Question]) -> Sequence[int]:
        """Tell which of a file's questions are of the split."""
        carving = self.entry.validation
        if carving is None or split == "test":
            return range(len(questions))
        chosen = carving.choose({question.image_id for question in questions})
        return [row for row, asked in enumerate(questions) if (asked.image_id in chosen) == (split == "val")]


def data_folder(given: Path | None) -> Path:
    """Choose where data lives: the folder given, `$VQABENCH_DATA`, or the platform's data folder."""
    if given is not None:
        return given
    from_environment = os.environ.get("VQABENCH_DATA")
    return Path(from_environment) if from_environment else platformdirs.user_data_path("vqabench", False)


def read_catalog(own: Path | None) -> dict[str, tuple[Entry, Path]]:
    """Read the catalogue that comes with vqabench, then the user's own: entries and the folders they are in.

    Raises InputError, naming the file and the key, where a catalogue cannot be understood.
    """
    own = own or (Path(os.environ["VQABENCH_CATALOG"]) if os.environ.get("VQABENCH_CATALOG") else None)
    return _read_entries(_bundled_catalog()) | (_read_entries(own) if own else {})


def find_dataset(name: str, own_catalog: Path | None, data_dir: Path | None) -> Dataset:
    """Find a data set by its name. Raises InputError, with the nearest name, if there is none."""
    catalog = read_catalog(own_catalog)
    if name not in catalog:
        raise InputError(f"{unknown('dataset', name, catalog)}; your own come with --catalog FILE")
    entry, source = catalog[name]
    folder = data_folder(data_dir) / name
    if entry.generator:
        made = msgspec.structs.replace(entry, splits=_made_here(SPLITS), features=("features.h5",))
        return Dataset(name, made, folder / "raw", folder)
    if entry.derived:
        entry = msgspec.structs.replace(entry, splits=_made_here(("train", "test")))
    return Dataset(name, entry, folder / "raw" if entry.files else source, folder)


def _made_here(splits: Sequence[Split]) -> dict[Split, SplitFiles]:
    """Name the files that are written here instead of fetched."""
    return {split: SplitFiles((f"{split}_questions.json",), (f"{split}_annotations.json",)) for split in splits}


def _bundled_catalog() -> Path:
    """Find `datasets.toml`: in the installed package, or at the root of the checkout."""
    package = Path(__file__).parents[1]
    candidates = (package / "datasets.toml", package.parent / "datasets.toml")
    return next(path for path in candidates if path.is_file())


def _read_entries(path: Path) -> dict[str, tuple[Entry, Path]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such catalogue") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a catalogue: TOML is written in UTF-8") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a catalogue in TOML: {error}") from error
    return {name: (_convert(name, table, path), path.parent.absolute()) for name, table in tables.items()}


def _convert(name: str, table: object, path: Path) -> Entry:
    if not re.fullmatch(r"\w[\w.-]*", name):  # it becomes the name of folders
        raise InputError(f"{path}: {name!r} cannot name a data set: letters, digits, '.', '_' and '-' only")
    if not isinstance(table, Mapping):
        raise InputError(f"{path}: {name!r} must be a table, as in [{name}]")
    fields: dict[str, Any] = dict(table)
    for key in fields:
        if key not in Entry.__struct_fields__:
            raise InputError(f"{path}: [{name}]: {unknown('key', key, Entry.__struct_fields__)}")
    if isinstance(fields.get("features"), str):
        fields["features"] = [fields["features"]]
    splits = fields.get("splits", {})
    if isinstance(splits, Mapping):
        fields["splits"] = {split: _listed(files) for split, files in splits.items()}
    try:
        entry = msgspec.convert(fields, Entry)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: [{name}]: {error}{_valid_values(str(error))}") from error
    _check_complete(name, entry, path)
    return entry


def _valid_values(message: str) -> str:
    """Name what is valid where an error is about a key with a few values."""
    key = re.search(r"Invalid enum value.* - at `\$\.(\w+)`", message)
    hint = get_type_hints(Entry)[key[1]] if key else None
    kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
    values = [value for kind in kinds for value in get_args(kind)]
    return f"; valid: {', '.join(values)}" if values else ""


def _listed(files: object) -> object:
    """Let a split name one file where it may name several."""
    if not isinstance(files, Mapping):
        return files
    return {key: [value] if isinstance(value, str) else value for key, value in files.items()}


def _check_complete(name: str, entry: Entry, path: Path) -> None:
    if entry.generator:
        return
    where = f"{path}: [{name}]"
    if entry.derived:
        if entry.splits:
            raise InputError(
                f"{where}: is derived from {entry.derived.parent}, which makes its splits; drop splits"
            )
        if entry.derived.test_ids not in entry.files:
            raise InputError(f"{where}: derived.test_ids: {unknown('file', entry.derived.test_ids, entry.files)}")
    elif "train" not in entry.splits:
        raise InputError(f"{where}: needs [{name}.splits.train] with questions and annotations")
    if "val" in entry.splits and entry.validation:
        raise InputError(f"{where}: has a val split; validation would carve another from train")
    uncounted = entry.counts.keys() - (entry.splits.keys() or {"train", "test"})
    if uncounted:
        raise InputError(f"{where}: counts: there is no split {first_few(sorted(uncounted))}")
    if not entry.features and not entry.features_from:
        raise InputError(
            f"{where}: needs features = [...], the files with region features, or features_from = '...', "
            "where users may get them"
        )

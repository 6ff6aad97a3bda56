"""One data set: where its files lie, and what they hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import platformdirs

from vqabench.data.annotation_table import AnnotationTable, concatenate, read_annotation_table
from vqabench.data.annotations import Question, match, read_questions
from vqabench.data.catalog import SPLITS, Entry, Split, SplitFiles, read_catalog
from vqabench.data.file_choice import FileChoice, read_choice
from vqabench.data.packed_files import split_member
from vqabench.data.sources import Counts
from vqabench.errors import InputError, first_few, unknown


@dataclass(frozen=True)
class Dataset:
    """One data set: its entry, and where its files lie."""

    name: str
    entry: Entry
    source: Path
    """The folder that the entry's paths are relative to."""
    folder: Path
    """Where its prepared form lies."""
    named: FileChoice | None = None
    """Files that the user names now."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Name the splits that it has."""
        carved = ["val"] if self.entry.validation else []
        return tuple(split for split in SPLITS if split in (*self.entry.splits, *carved))

    @property
    def chosen(self) -> FileChoice:
        """Give the files that the user names where the entry names none, now or before.

        Raises InputError where the record of those named before is damaged.
        """
        return self.named or read_choice(self.folder)

    @property
    def prepared_file(self) -> Path:
        """Name the file that everything but the features is prepared into."""
        return self.folder / "prepared.h5"

    @property
    def features_file(self) -> Path:
        """Name the file that the region features are prepared into."""
        return self.folder / "features.h5"

    def has_features(self) -> bool:
        """Tell whether it is known which files hold region features."""
        return bool(self.entry.features or self.chosen.features)

    def feature_files(self) -> list[Path]:
        """Give the files that hold region features. Raises InputError where none is named."""
        if not self.has_features():
            raise InputError(
                f"{self.name}: no region features yet; name them once: vqabench data prepare {self.name} "
                f"--features FILE. They may come from {self.entry.features_from}"
            )
        return [self.source / name for name in self.entry.features or self.chosen.features]

    @property
    def word_vectors_file(self) -> Path | None:
        """Give the file of word vectors, if one is named."""
        name = self.entry.word_vectors or self.chosen.word_vectors
        return self.source / name if name else None

    def question_files(self) -> list[Path]:
        """Give the files that hold questions and annotations."""
        names = [name for split in self.entry.splits.values() for name in (*split.questions, *split.annotations)]
        return [self.source / name for name in dict.fromkeys(names)]

    def archives(self) -> list[Path]:
        """Give the files that hold questions and annotations, without the names of members."""
        return list(dict.fromkeys(split_member(path)[0] for path in self.question_files()))

    def see_questions(self) -> None:
        """Raise InputError, saying how to get them, where files of questions or annotations are not there."""
        missing = [path for path in self.archives() if not path.is_file()]
        if not missing:
            return
        fetched = [path for path in missing if path.name in self.entry.files or self.entry.derived]
        if fetched:
            names = first_few(path.name for path in fetched)
            raise InputError(f"{self.source}: lacks {names}: vqabench data fetch {self.name} gets them")
        raise InputError(f"{self.name}: {len(missing)} of its files are missing: {first_few(missing)}")

    def files(self) -> list[Path]:
        """Give every file that the data set is read from."""
        names = [self.source / self.entry.object_names] if self.entry.object_names else []
        vectors = [self.word_vectors_file] if self.word_vectors_file else []
        return list(dict.fromkeys([*self.question_files(), *self.feature_files(), *names, *vectors]))

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

    def read_splits(self) -> Raw:
        """Read every split as `read_split` does, each file once."""
        whole = {split: self._read_files(split) for split in self.entry.splits}
        return {split: self._part(split, *whole[self._source_of(split)]) for split in self.splits}

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
        questions = self._read_question_files(split)
        table = concatenate([read_annotation_table(self.source / name) for name in files.annotations])
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


Raw = dict[str, tuple[list[Question], AnnotationTable]]
"""Split -> its questions and, in the same order, their annotations."""


def data_folder(given: Path | None) -> Path:
    """Choose where data lives: the folder given, `$VQABENCH_DATA`, or the platform's data folder."""
    if given is not None:
        return given
    from_environment = os.environ.get("VQABENCH_DATA")
    return Path(from_environment) if from_environment else platformdirs.user_data_path("vqabench", False)


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

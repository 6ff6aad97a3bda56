"""A data set: its files, including those that the user chose, and its questions."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import platformdirs

from vqabench.data.catalog.entries import SPLITS, DatasetEntry, SplitCounts, SplitFiles, SplitName, read_catalog
from vqabench.data.vqa.annotation_table import AnnotationTable, concatenate, read_annotation_table
from vqabench.data.vqa.annotations import Question, match, read_questions
from vqabench.data.vqa.id_lists import read_test_ids
from vqabench.errors import InputError, VqabenchError, counted, first_few, unknown
from vqabench.files.atomic import hash_file, read_json, write_file
from vqabench.files.folders import require_file
from vqabench.files.packed import split_member


class FileChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files named by the user: absolute paths, or `F.zip::MEMBER` for a member of an archive."""

    features: tuple[str, ...] = ()
    word_vectors: str | None = None


def remember_choice(folder: Path, choice: FileChoice) -> None:
    """Write the chosen files next to the prepared data."""
    write_file(folder / "chosen.json", msgspec.json.encode(choice))


def check_chosen(option: str, file: Path, may_be_folder: bool = False) -> str:
    """Return the absolute path of a file or folder. Raises InputError if it does not exist."""
    real, _ = split_member(file)
    if not real.exists():
        raise InputError(f"{option} {real}: there is no such file")
    if not (may_be_folder and real.is_dir()):
        require_file(real, f"file for {option}")
    return str(file.absolute())


@dataclass(frozen=True)
class Dataset:
    """A data set: its entry in the catalogue, and the paths of its files."""

    name: str
    entry: DatasetEntry
    source: Path
    """Folder that the entry's paths are relative to."""
    folder: Path
    """Folder of its prepared form."""
    named: FileChoice | None = None
    """Files that the user names in this call; None for those named before."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of its splits."""
        carved = ["val"] if self.entry.validation else []
        return tuple(split for split in SPLITS if split in (*self.entry.splits, *carved))

    @property
    def scored(self) -> tuple[str, ...]:
        """Return the splits that have annotations. The others can be answered but not scored."""
        return tuple(split for split in self.splits if self.entry.splits[self._source_of(split)].annotations)

    @property
    def chosen(self) -> FileChoice:
        """Return the files that the user names, in this call or before.

        Raises InputError if the record of those named before is damaged.
        """
        path = self.folder / "chosen.json"
        if self.named or not path.is_file():
            return self.named or FileChoice()
        return read_json(path, FileChoice, "delete it, and name the files again with data prepare --features FILE")

    @property
    def prepared_file(self) -> Path:
        """Return the path of the prepared data, except features."""
        return self.folder / "prepared.h5"

    @property
    def features_file(self) -> Path:
        """Return the path of the prepared region features."""
        return self.folder / "features.h5"

    def has_features(self) -> bool:
        """Return whether files of region features are named, by the catalogue or the user."""
        return bool(self.entry.features or self.chosen.features)

    def feature_files(self) -> list[Path]:
        """Return the files of region features. Raises InputError if none are named."""
        if not self.has_features():
            raise InputError(
                f"{self.name}: no region features yet; name them once: vqabench data prepare {self.name} "
                f"--features FILE. They may come from {self.entry.features_from}"
            )
        return [self.source / name for name in self.entry.features or self.chosen.features]

    @property
    def word_vectors_file(self) -> Path | None:
        """Return the file of word vectors; None if none is named."""
        name = self.entry.word_vectors or self.chosen.word_vectors
        return self.source / name if name else None

    def question_files(self) -> list[Path]:
        """Return the files of questions and annotations."""
        names = [name for split in self.entry.splits.values() for name in (*split.questions, *split.annotations)]
        return [self.source / name for name in dict.fromkeys(names)]

    def archives(self) -> list[Path]:
        """Return the files of questions and annotations, archives instead of their members."""
        return list(dict.fromkeys(split_member(path)[0] for path in self.question_files()))

    def check_questions_readable(self) -> None:
        """Raise InputError, with the command that gets them, if files of questions or annotations are missing."""
        missing = []
        for path in self.archives():
            if path.exists():
                require_file(path, "file of questions or annotations")
            else:
                missing.append(path)
        fetched = [path.name for path in missing if path.name in self.entry.files or self.entry.derived]
        if fetched:
            missing_files = f"{counted(len(fetched), 'file')} missing ({first_few(fetched)})"
            raise InputError(f"{self.source}: {missing_files}; run: vqabench data fetch {self.name}")
        if missing:
            raise InputError(f"{self.name}: {len(missing)} of its files are missing: {first_few(missing)}")

    def files(self) -> list[Path]:
        """Return every file that the data set is prepared from."""
        names = [self.source / self.entry.object_names] if self.entry.object_names else []
        vectors = [self.word_vectors_file] if self.word_vectors_file else []
        return list(dict.fromkeys([*self.question_files(), *self.feature_files(), *names, *vectors]))

    def read_questions(self, split: str) -> list[Question]:
        """Read a split's questions. Raises InputError if a file is broken."""
        questions = self._read_question_files(self._source_of(split))
        return [questions[row] for row in self._rows(split, questions)]

    def read_split(self, split: str) -> tuple[list[Question], AnnotationTable]:
        """Read a split's questions and, in the same order, their annotations.

        Raises InputError if a file is broken, there are no questions, questions and annotations do not match, a
        question does not have ten answers, or the split has no annotations.
        """
        self.require_scored(split)
        return self._part(split, *self._read_files(self._source_of(split)))

    def require_scored(self, split: str) -> None:
        """Raise InputError if a split has no annotations, or there is no such split."""
        if split not in self.splits:
            raise InputError(unknown(f"split of {self.name}", split, self.splits))
        if split not in self.scored:
            raise InputError(
                f"{self.name}: the catalogue has no annotations for the split {split}, so it cannot be scored; "
                "vqabench predict RUN answers it"
            )

    def read_splits(self) -> Raw:
        """Read every split that has annotations as `read_split` does, each file once."""
        whole = {split: self._read_files(split) for split, files in self.entry.splits.items() if files.annotations}
        return {split: self._part(split, *whole[self._source_of(split)]) for split in self.scored}

    def read_unanswered(self) -> dict[str, list[Question]]:
        """Read the questions of every split that has no annotations."""
        return {split: self.read_questions(split) for split in self.splits if split not in self.scored}

    def read_subsets(self, known: Mapping[str, Collection[int]]) -> dict[str, dict[str, set[int]]]:
        """Read the subsets of each split, whose question ids are `known`: split -> name -> ids.

        Raises InputError if the data set has none, or a file is missing, broken or without questions of the split.
        """
        if not self.entry.subsets:
            raise InputError(f"{self.name}: the catalogue names no subsets of it")
        found: dict[str, dict[str, set[int]]] = {}
        for name, subset in self.entry.subsets.items():
            path = self.source / subset.ids
            require_file(path, f"list of the questions of the subset {name}")
            ids = read_test_ids(path)
            own = ids & set(known.get(subset.of, ()))
            if not own:
                raise InputError(f"{path}: none of its {len(ids):,} questions is in the split {subset.of}")
            found.setdefault(subset.of, {})[name] = own
        return found

    def find_repeated(self, split: str) -> set[int]:
        """Return the questions to leave out of a split, because later splits contain them."""
        if self.entry.repeated_questions == "refuse" or split == "test":
            return set()
        source = self._source_of(split)
        later = [other for other in self.entry.splits if SPLITS.index(other) > SPLITS.index(source)]
        ids = {one.question_id for other in later for one in self._read_question_files(other)}
        return ids & {one.question_id for one in self._read_question_files(source)} if ids else ids

    def count(self, split: SplitName) -> SplitCounts:
        """Count a split's files, before `val` is carved from train. Raises as `read_split` does."""
        if not self.entry.splits[split].annotations:
            questions, answers = self._read_question_files(split), None
        else:
            questions, table = self._read_files(split)
            answers = table.answers.codes.size
        images = len({question.image_id for question in questions})
        return SplitCounts(questions=len(questions), images=images, answers=answers)

    def _source_of(self, split: str) -> SplitName:
        """Return the split whose files contain this one: train for a `val` that is carved from it."""
        return "train" if split == "val" and self.entry.validation else split  # type: ignore[return-value]

    def _read_question_files(self, split: SplitName) -> list[Question]:
        names = self.entry.splits[split].questions
        return [question for name in names for question in read_questions(self.source / name)]

    def _read_files(self, split: SplitName) -> tuple[list[Question], AnnotationTable]:
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
        """Return the questions of some files that are in the split."""
        rows = self._rows(split, questions)
        if not rows:
            why = "repeated_questions" if self.entry.validation is None else "validation.share"
            raise InputError(f"{self.name}: {why} leaves no question in the split {split}")
        return [questions[row] for row in rows], annotations.take(rows)

    def _rows(self, split: str, questions: Sequence[Question]) -> Sequence[int]:
        """Return the positions of the questions that are in the split."""
        rows: Sequence[int] = range(len(questions))
        if repeated := self.find_repeated(split):
            rows = [row for row in rows if questions[row].question_id not in repeated]
        carving = self.entry.validation
        if carving is None or split == "test":
            return rows
        chosen = carving.choose({questions[row].image_id for row in rows})
        return [row for row in rows if (questions[row].image_id in chosen) == (split == "val")]


Raw = dict[str, tuple[list[Question], AnnotationTable]]
"""Split -> its questions and, in the same order, their annotations."""


def data_folder(given: Path | None) -> Path:
    """Return the data folder: the one given, `$VQABENCH_DATA`, or the platform's."""
    return given or Path(os.environ.get("VQABENCH_DATA") or platformdirs.user_data_path("vqabench", False))


def find_dataset(name: str, own_catalog: Path | Sequence[Path] | None, data_dir: Path | None) -> Dataset:
    """Return the data set of that name. Raises InputError, with the nearest name, if there is none."""
    catalog = read_catalog(own_catalog)
    if name not in catalog:
        raise InputError(f"{unknown('dataset', name, catalog)}; add your own with --catalog FILE")
    entry, source = catalog[name]
    folder = data_folder(data_dir) / name
    # Splits that are written here instead of fetched have files of these names.
    written = {one: SplitFiles((f"{one}_questions.json",), (f"{one}_annotations.json",)) for one in SPLITS}
    if entry.generator:
        made = msgspec.structs.replace(entry, splits=written, features=("features.h5",))
        return Dataset(name, made, folder / "raw", folder)
    if entry.derived:
        splits = {split: files for split, files in written.items() if split != "val"}
        entry = msgspec.structs.replace(entry, splits=splits)
    return Dataset(name, entry, folder / "raw" if entry.files else source, folder)


def hash_questions(dataset: Dataset) -> dict[Path, str]:
    """Return the SHA-256 of each file with questions or annotations, for `check_questions`.

    Raises InputError if one cannot be read.
    """
    return {path: hash_file(path) for path in dataset.archives()}


NOT_SCORED = (
    "nothing was scored. Put the old file back and repeat the command (train: with --resume), or train again with "
    "--force on the new one"
)


def check_questions(known: Mapping[Path, str], consequence: str = NOT_SCORED) -> None:
    """Raise VqabenchError if files with questions or annotations have changed since they were hashed.

    Call it after reading them, so that what was read is what was hashed.
    """
    changed = [path for path, digest in known.items() if not path.is_file() or hash_file(path) != digest]
    if changed:
        raise VqabenchError(f"{first_few(changed)}: changed while this command was running, so {consequence}")

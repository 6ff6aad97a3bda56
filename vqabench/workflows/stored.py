"""Stored answers of runs, with the data sets of their questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from vqabench.data.catalog.dataset import Dataset
from vqabench.data.prepare.fingerprint import fingerprint_of
from vqabench.data.prepare.preparation import summarise
from vqabench.data.prepare.prepared import read_vocabulary
from vqabench.data.vqa.annotation_table import AnnotationTable
from vqabench.data.vqa.annotations import Question
from vqabench.errors import InputError
from vqabench.evaluation.prior import TrainPrior, count_train_prior
from vqabench.evaluation.rows import Row
from vqabench.evaluation.run_answers import (
    Breakdown,
    RunAnswers,
    break_down,
    break_down_by_subset,
    read_answered,
)
from vqabench.paths import Paths
from vqabench.results import Manifest, Run


@dataclass
class OpenedDataset:
    """One data set, read."""

    dataset: Dataset
    fingerprint: str
    questions: dict[str, dict[int, Question]]
    """Split -> the questions by their ids."""
    tables: dict[str, AnnotationTable]
    """Split -> their annotations."""

    @cached_property
    def prior(self) -> TrainPrior:
        """Return the prior of the training questions."""
        return count_train_prior(self.tables["train"])

    @cached_property
    def subsets(self) -> dict[str, dict[str, set[int]]]:
        """Return split -> subset -> question ids. Raises InputError if there are none, or one is broken."""
        return self.dataset.read_subsets({split: set(questions) for split, questions in self.questions.items()})

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the answer vocabulary."""
        return read_vocabulary(self.dataset)


@dataclass
class StoredAnswers:
    """Reads each data set once, when it is needed; nothing is fetched or prepared."""

    paths: Paths
    say: Callable[[str], None]
    opened: dict[str, OpenedDataset] = field(default_factory=dict)

    def open(self, run: Run, manifest: Manifest) -> OpenedDataset:
        """Return the data set of a run. Raises InputError if it is not prepared, or has changed since."""
        found = self._open(manifest.dataset)
        if manifest.fingerprint != found.fingerprint:
            raise InputError(f"{run.folder}: it was trained on different data than {manifest.dataset} holds now")
        return found

    def open_any(self, rows: Sequence[Row]) -> OpenedDataset:
        """Return the data set of some rows. Raises InputError if it is not prepared, or no row saw it as it is."""
        found = self._open(rows[0].dataset)
        if found.fingerprint not in {row.fingerprint for row in rows}:
            raise InputError(f"{rows[0].dataset} has changed since these runs were trained")
        return found

    def _open(self, name: str) -> OpenedDataset:
        if name in self.opened:
            return self.opened[name]
        dataset = self.paths.dataset(name)
        summary = summarise(dataset)
        if summary is None or not summary.current:
            raise InputError(f"{name} is not prepared; run: vqabench data prepare {name}")
        self.say(f"{name}: reading questions and annotations")
        raw = dataset.read_splits()
        if fingerprint_of(dataset) != summary.fingerprint:
            raise InputError(
                f"{name}: its files have changed since it was prepared; run: vqabench data prepare {name}"
            )
        self.opened[name] = OpenedDataset(
            dataset,
            summary.fingerprint,
            {split: {one.question_id: one for one in questions} for split, (questions, _) in raw.items()},
            {split: table for split, (_, table) in raw.items()},
        )
        return self.opened[name]

    def read(self, run: Run, manifest: Manifest, split: str) -> tuple[AnnotationTable, RunAnswers]:
        """Read a run's answers to a split. Raises InputError as `open` and `read_answered` do."""
        return read_answered(run, split, self.open(run, manifest).tables[split])

    def break_down(self, run: Run, manifest: Manifest, split: str) -> Breakdown:
        """Compute the breakdown of a run's answers to a split. Raises as `read` does."""
        data = self.open(run, manifest)
        table, answered = self.read(run, manifest, split)
        return break_down(answered, table, data.prior, data.vocabulary)

    def break_down_by_subset(self, run: Run, manifest: Manifest, split: str) -> Breakdown:
        """Compute the accuracies of a run on the subsets of a split. Raises as `read` does.

        Raises InputError, too, if the data set has no subsets, or one of them is broken.
        """
        data = self.open(run, manifest)
        table, answered = self.read(run, manifest, split)
        return break_down_by_subset(answered, table, data.subsets.get(split, {}))

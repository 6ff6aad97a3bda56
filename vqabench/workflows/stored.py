"""Data sets beside the answers that runs have stored: what any later number is computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from vqabench.data.annotation_table import AnnotationTable
from vqabench.data.annotations import Question
from vqabench.data.dataset import Dataset
from vqabench.data.fingerprint import fingerprint_of
from vqabench.data.preparation import summarise
from vqabench.data.prepared import read_vocabulary
from vqabench.errors import InputError
from vqabench.evaluation.answered import Answered, read_answered
from vqabench.evaluation.breakdowns import Breakdown, break_down
from vqabench.evaluation.rows import Row
from vqabench.evaluation.train_prior import TrainPrior, count_train_prior
from vqabench.results import Manifest, Run
from vqabench.workflows.places import Places


@dataclass
class Opened:
    """One data set, read."""

    dataset: Dataset
    fingerprint: str
    questions: dict[str, dict[int, Question]]
    """Split -> the questions by their ids."""
    tables: dict[str, AnnotationTable]
    """Split -> their annotations."""

    @cached_property
    def prior(self) -> TrainPrior:
        """Give the prior of its training questions."""
        return count_train_prior(self.tables["train"])

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Give the answers that models choose from."""
        return read_vocabulary(self.dataset)


@dataclass
class Stored:
    """Reads data sets as they are needed, each once; nothing is fetched or prepared."""

    places: Places
    say: Callable[[str], None]
    opened: dict[str, Opened] = field(default_factory=dict)

    def open(self, run: Run, manifest: Manifest) -> Opened:
        """Give the data set of a run. Raises InputError where it is not prepared, or has changed since."""
        if manifest.dataset not in self.opened:
            self.opened[manifest.dataset] = self._open(manifest.dataset)
        found = self.opened[manifest.dataset]
        if manifest.fingerprint != found.fingerprint:
            raise InputError(f"{run.folder}: it was trained on different data than {manifest.dataset} holds now")
        return found

    def open_any(self, rows: Sequence[Row]) -> Opened:
        """Give the data set of some rows. Raises InputError where it is not prepared, or none of them saw it so."""
        name = rows[0].dataset
        if name not in self.opened:
            self.opened[name] = self._open(name)
        found = self.opened[name]
        if found.fingerprint not in {row.fingerprint for row in rows}:
            raise InputError(f"{name} has changed since these runs were trained")
        return found

    def _open(self, name: str) -> Opened:
        dataset = self.places.dataset(name)
        summary = summarise(dataset)
        if summary is None or not summary.current:
            raise InputError(f"{name} is not prepared here; vqabench data prepare {name} does it")
        self.say(f"{name}: reading questions and annotations")
        raw = dataset.read_splits()
        if fingerprint_of(dataset) != summary.fingerprint:
            raise InputError(
                f"{name}: its files have changed since it was prepared; run: vqabench data prepare {name}"
            )
        return Opened(
            dataset,
            summary.fingerprint,
            {split: {one.question_id: one for one in questions} for split, (questions, _) in raw.items()},
            {split: table for split, (_, table) in raw.items()},
        )

    def read(self, run: Run, manifest: Manifest, split: str) -> tuple[AnnotationTable, Answered]:
        """Read what a run answered to a split. Raises InputError as `open` and `read_answered` do."""
        return read_answered(run, split, self.open(run, manifest).tables[split])

    def break_down(self, run: Run, manifest: Manifest, split: str) -> Breakdown:
        """Take a run's answers to a split apart. Raises as `read` does."""
        data = self.open(run, manifest)
        table, answered = self.read(run, manifest, split)
        return break_down(answered, table, data.prior, data.vocabulary)

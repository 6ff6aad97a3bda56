"""Data sets beside the answers that runs have stored: what any later number is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vqabench.data.annotation_table import AnnotationTable
from vqabench.data.annotations import Question
from vqabench.data.prepared import read_vocabulary
from vqabench.errors import InputError
from vqabench.evaluation.answered import Answered, read_answered
from vqabench.evaluation.breakdowns import Breakdown, break_down
from vqabench.evaluation.train_prior import TrainPrior, count_train_prior
from vqabench.results import Manifest, Run
from vqabench.workflows.places import Places


@dataclass(frozen=True)
class Opened:
    """One data set, read."""

    questions: dict[str, dict[int, Question]]
    """Split -> the questions by their ids."""
    tables: dict[str, AnnotationTable]
    """Split -> their annotations."""
    prior: TrainPrior
    vocabulary: tuple[str, ...]
    fingerprint: str


@dataclass
class Stored:
    """Reads data sets as they are needed, each once."""

    places: Places
    say: Callable[[str], None]
    opened: dict[str, Opened] = field(default_factory=dict)

    def open(self, run: Run, manifest: Manifest) -> Opened:
        """Give the data set of a run. Raises InputError where it is not there, or has changed since."""
        name = manifest.dataset
        if name not in self.opened:
            dataset = self.places.dataset(name)
            vocabulary, fingerprint = read_vocabulary(dataset, self.say)
            raw = dataset.read_splits()
            self.opened[name] = Opened(
                {split: {one.question_id: one for one in questions} for split, (questions, _) in raw.items()},
                {split: table for split, (_, table) in raw.items()},
                count_train_prior(raw["train"][1]),
                vocabulary,
                fingerprint,
            )
        if manifest.fingerprint != self.opened[name].fingerprint:
            raise InputError(f"{run.folder}: it was trained on other data than {name} holds now")
        return self.opened[name]

    def read(self, run: Run, manifest: Manifest, split: str) -> tuple[AnnotationTable, Answered]:
        """Read what a run answered to a split. Raises InputError as `open` and `read_answered` do."""
        return read_answered(run, split, self.open(run, manifest).tables[split])

    def break_down(self, run: Run, manifest: Manifest, split: str) -> Breakdown:
        """Take a run's answers to a split apart. Raises as `read` does."""
        data = self.open(run, manifest)
        table, answered = self.read(run, manifest, split)
        return break_down(answered, table, data.prior, data.vocabulary)

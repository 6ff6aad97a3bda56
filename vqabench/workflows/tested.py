"""A data set as runs were tested on it, where its files are still here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vqabench.data.annotation_table import AnnotationTable
from vqabench.data.annotations import Question
from vqabench.data.dataset import Dataset
from vqabench.data.prepared import Prepared, prepare
from vqabench.evaluation.rows import Row
from vqabench.training.progress import Progress
from vqabench.workflows.stored import Opened, Stored


@dataclass(frozen=True)
class Tested:
    """One split of a data set, with its annotations and images."""

    prepared: Prepared
    opened: Opened
    split: str
    """`test`, or `val` where there is no other."""
    rows: dict[int, int]
    """Question id -> row of the prepared split."""

    @property
    def dataset(self) -> Dataset:
        """Give the data set."""
        return self.opened.dataset

    @property
    def questions(self) -> dict[int, Question]:
        """Give the questions by their ids."""
        return self.opened.questions[self.split]

    @property
    def table(self) -> AnnotationTable:
        """Give the annotations."""
        return self.opened.tables[self.split]


def read_tested(rows: Sequence[Row], stored: Stored, progress: Progress) -> Tested:
    """Read what the runs of one data set were tested on; nothing is fetched or prepared.

    Raises InputError where the data set is not prepared, or is now in a state that none of them saw.
    """
    opened = stored.open_any(rows)
    dataset = opened.dataset
    prepared = prepare(dataset, progress.say)
    split = "test" if "test" in dataset.scored else "val"
    numbered = {number: row for row, number in enumerate(prepared.splits[split].question_ids.tolist())}
    return Tested(prepared, opened, split, numbered)

"""A data set as runs were tested on it, where its files are still here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vqabench.data.annotation_table import AnnotationTable
from vqabench.data.annotations import Question
from vqabench.data.dataset import Dataset
from vqabench.data.preparation import summarise
from vqabench.data.prepared import Prepared, prepare
from vqabench.errors import InputError
from vqabench.evaluation.rows import Row
from vqabench.training.progress import Progress
from vqabench.workflows.stored import Opened, Stored


@dataclass(frozen=True)
class Tested:
    """One split of a data set, with its annotations and images."""

    dataset: Dataset
    prepared: Prepared
    opened: Opened
    split: str
    """`test`, or `val` where there is no other."""
    rows: dict[int, int]
    """Question id -> row of the prepared split."""

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
    dataset = stored.places.dataset(rows[0].dataset)
    summary = summarise(dataset)
    if summary is None or not summary.current:
        raise InputError(f"{dataset.name} is not prepared here; vqabench data prepare {dataset.name} does it")
    seen = [row for row in rows if row.fingerprint == summary.fingerprint]
    if not seen:
        raise InputError(f"{dataset.name} is not here as these runs saw it: it has changed since")
    progress.say(f"{dataset.name}: reading questions and annotations")
    opened = stored.open(seen[0].runs[0], seen[0].manifests[0])
    prepared = prepare(dataset, progress.say)
    split = "test" if "test" in dataset.splits else "val"
    numbered = {number: row for row, number in enumerate(prepared.splits[split].question_ids.tolist())}
    return Tested(dataset, prepared, opened, split, numbered)

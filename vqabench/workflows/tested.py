"""A data set as runs were tested on it, where its files are still here."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from vqabench.data.annotation_table import AnnotationTable
from vqabench.data.annotations import Question
from vqabench.data.dataset import Dataset
from vqabench.data.preparation import summarise
from vqabench.data.prepared import Prepared, prepare
from vqabench.errors import InputError
from vqabench.training.progress import Progress
from vqabench.workflows.places import Places


@dataclass(frozen=True)
class Tested:
    """One split of a data set, with its annotations."""

    dataset: Dataset
    prepared: Prepared
    split: str
    """`test`, or `val` where there is no other."""
    questions: dict[int, Question]
    """By their ids."""
    table: AnnotationTable
    rows: dict[int, int]
    """Question id -> row of the prepared split."""


def read_tested(name: str, fingerprints: Container[str], places: Places, progress: Progress) -> Tested:
    """Read what runs were tested on; nothing is fetched or prepared.

    Raises InputError where the data set is not prepared, or is now in none of the states with these fingerprints.
    """
    dataset = places.dataset(name)
    summary = summarise(dataset)
    if summary is None or not summary.current:
        raise InputError(f"{name} is not prepared here; vqabench data prepare {name} does it")
    if summary.fingerprint not in fingerprints:
        raise InputError(f"{name} is not here as these runs saw it: it has changed since")
    prepared = prepare(dataset, progress.say)
    split = "test" if "test" in dataset.splits else "val"
    questions, table = dataset.read_split(split)
    rows = {number: row for row, number in enumerate(prepared.splits[split].question_ids.tolist())}
    return Tested(dataset, prepared, split, {asked.question_id: asked for asked in questions}, table, rows)

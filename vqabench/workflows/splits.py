"""Split the questions of a data set anew: the functions behind `vqabench data rebuild-cp` and `data resplit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from vqabench.data.catalog import changing_priors
from vqabench.data.catalog.changing_priors import AnswerGroup, groups_of
from vqabench.data.catalog.dataset import Dataset, hash_questions
from vqabench.data.catalog.derivation import write_split
from vqabench.data.prepare.preparation import Say, generate, read_raw
from vqabench.data.vqa.annotations import hash_ids
from vqabench.data.vqa.id_lists import read_test_ids
from vqabench.errors import InputError
from vqabench.paths import Paths

SHARE = 1 / 3
"""Default share of all questions in the test."""


@dataclass(frozen=True)
class Derived:
    """A new data set, made by splitting another one."""

    name: str
    catalog: Path
    train_questions: int
    test_questions: int
    shift: changing_priors.Shift
    has_features: bool
    """Whether its catalogue names region features, copied from its source."""


def rebuild_cp(name: str, test_ids: Path, out: Path, paths: Paths, say: Say) -> Derived:
    """Split all questions of a data set by a list of test questions, as VQA-CP is published.

    Raises InputError if the list names a question that the data set does not have.
    """
    dataset = paths.dataset(name)
    ids = read_test_ids(test_ids)
    read = _read_everything(dataset, say)
    in_test = changing_priors.split_by_ids(read.ids, ids)
    record = {"method": "test question ids", "file": test_ids.name, "listed_ids_sha256": hash_ids(ids)}
    title = f"{dataset.entry.title}, split by the test questions of {test_ids.name}"
    return _derive(read, out, f"{name}-cp", title, in_test, record)


def resplit(name: str, share: float, seed: int, out: Path, paths: Paths, say: Say) -> Derived:
    """Split all questions of a data set so that the priors change. Raises InputError if that is not possible."""
    if not 0 < share < 1:
        raise InputError(f"--share must be above 0 and below 1, not {share}")
    dataset = paths.dataset(name)
    read = _read_everything(dataset, say)
    in_test = changing_priors.resplit(read.groups, share, seed)
    record = {"method": "re-split with changing priors; not VQA-CP", "share": share, "seed": seed}
    title = f"{dataset.entry.title}, re-split with changing priors (not VQA-CP)"
    # The name is also that of the folder of prepared data: other settings need another one.
    parts = [f"share{share:g}"] * (share != SHARE) + [f"seed{seed}"] * (seed != 0)
    return _derive(read, out, "-".join([f"{name}-resplit", *parts]), title, in_test, record)


def _derive(
    read: _Read, out: Path, name: str, title: str, in_test: Sequence[bool], record: dict[str, Any]
) -> Derived:
    shift = changing_priors.measure_shift(read.groups, in_test)
    record = {"source": read.dataset.name, **record, "shift": asdict(shift)}
    test_ids = set(compress(read.ids, in_test))
    catalog = write_split(read.dataset, out, name, title, test_ids, record, read.hashes)
    return Derived(name, catalog, in_test.count(False), in_test.count(True), shift, read.dataset.has_features())


@dataclass(frozen=True)
class _Read:
    dataset: Dataset
    ids: list[int]
    groups: list[AnswerGroup]
    hashes: dict[Path, str]
    """SHA-256 of the files, for `check_questions`."""


def _read_everything(dataset: Dataset, say: Say) -> _Read:
    """Read the ids and groups of all annotated questions. Raises InputError if one is in two splits."""
    generate(dataset, say)
    dataset.check_questions_readable()
    hashes = hash_questions(dataset)
    tables = [table for _, table in read_raw(dataset).values()]
    ids = [question_id for table in tables for question_id in table.question_ids.tolist()]
    return _Read(dataset, ids, [group for table in tables for group in groups_of(table)], hashes)

"""Annotations as columns, from which soft targets, priors and scores are computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.vqa.annotations import (
    ANNOTATORS,
    Annotation,
    Answer,
    ImageId,
    check_ids,
    read_annotations,
    require_ten_answers,
)
from vqabench.data.vqa.answers import modal_answer, normalise


class Numbering(dict[str, int]):
    """Number strings from 0, in the order of their first occurrence."""

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        return number

    def number(self, texts: Collection[str]) -> NDArray[np.int32]:
        """Return the numbers of strings, int32 [N], adding those that are new."""
        return np.fromiter(map(self.__getitem__, texts), np.int32, len(texts))


CHUNK = 10_000
"""Questions whose records are objects at the same time: these take ten times the memory of columns."""


@dataclass(frozen=True)
class Categorical:
    """An array of strings with few distinct values."""

    names: Sequence[str]
    """The distinct strings."""
    codes: NDArray[np.int32]
    """Indices into `names`, of any shape."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: NDArray[Any]) -> Categorical:
        """Return the rows at some positions (int or bool)."""
        return Categorical(self.names, self.codes[rows])

    def strings(self) -> list[str]:
        """Return the strings of a one-dimensional array."""
        return list(map(self.names.__getitem__, self.codes.tolist()))

    def regroup(self, form: Callable[[str], str]) -> Categorical:
        """Apply a function to all strings, once per distinct one that occurs."""
        occurs = np.zeros(len(self.names), bool)
        occurs[self.codes] = True
        forms = Numbering()
        form_of = np.full(len(self.names), -1, np.int32)
        form_of[occurs] = forms.number([form(self.names[code]) for code in np.flatnonzero(occurs).tolist()])
        return Categorical(list(forms), form_of[self.codes] if len(form_of) else self.codes)

    def number(self, numbers: Mapping[str, int]) -> NDArray[np.int64]:
        """Return the number of each string, -1 for those without one: int64, of the shape of `codes`."""
        number: NDArray[np.int64] = np.array([numbers.get(name, -1) for name in self.names], np.int64)[self.codes]
        return number

    def counts(self) -> dict[str, int]:
        """Return how often each string occurs, without those that do not."""
        counts = np.bincount(self.codes.ravel(), minlength=len(self.names))
        return {name: int(count) for name, count in zip(self.names, counts, strict=True) if count}


@dataclass(frozen=True)
class AnnotationTable:
    """The annotations of N questions with ten answers each."""

    question_ids: NDArray[np.int64]
    """[N]."""
    image_ids: Sequence[ImageId]
    question_types: Categorical
    """[N]."""
    answer_types: Categorical
    """[N]."""
    modal_answers: Categorical
    """[N]: the most common answer, normalised."""
    answers: Categorical
    """[N, 10], as written."""
    records: NDArray[np.int8]
    """[N, 10]: index of the first record that agrees in all fields but the answer; 0 to 9 if all ids differ."""

    def __len__(self) -> int:
        return len(self.question_ids)

    def take(self, chosen: Sequence[int]) -> AnnotationTable:
        """Return the questions at some rows, in this order."""
        if chosen == range(len(self)):
            return self
        rows = np.array(chosen, np.int64)
        columns = {name: column[rows] for name, column in vars(self).items() if name != "image_ids"}
        return AnnotationTable(image_ids=[self.image_ids[row] for row in chosen], **columns)

    def choose(self, question_ids: Container[int]) -> AnnotationTable:
        """Return the questions with some ids, in the order of this table."""
        chosen = [row for row, number in enumerate(self.question_ids.tolist()) if number in question_ids]
        return self if len(chosen) == len(self) else self.take(chosen)


def read_annotation_table(path: Path) -> AnnotationTable:
    """Read an annotations file. Raises InputError if it is broken or a question does not have ten answers."""
    table = tabulate(require_ten_answers(read_annotations(path), str(path)))
    check_ids(table.question_ids.tolist(), path)
    return table


def tabulate(annotations: Iterable[Annotation]) -> AnnotationTable:
    """Convert records to columns. Raises ValueError unless every question has ten answers."""
    numberings = Numbering(), Numbering(), Numbering(), Numbering()
    iterator = iter(annotations)
    parts = [_tabulate_few(few, *numberings) for few in iter(lambda: list(islice(iterator, CHUNK)), [])]
    question_ids, image_ids, *codes, records = zip(*(parts or [_tabulate_few([], *numberings)]), strict=True)
    types, answer_types, modal_answers, answers = (
        Categorical(list(names), np.concatenate(parts)) for names, parts in zip(numberings, codes, strict=True)
    )
    return AnnotationTable(
        np.concatenate(question_ids),
        [*chain.from_iterable(image_ids)],
        types,
        answer_types,
        modal_answers,
        answers,
        np.concatenate(records),
    )


def _tabulate_few(
    few: Sequence[Annotation], types: Numbering, answer_types: Numbering, modal: Numbering, texts: Numbering
) -> tuple[Any, ...]:
    """Return the columns, with numbers for strings."""
    # Millions of records pass here, so every loop is one of `map`, `list` or NumPy, not of Python statements.
    if any(count != ANNOTATORS for count in map(len, _column(few, "answers"))):
        raise ValueError("a question does not have ten answers")
    answers = list(chain.from_iterable(_column(few, "answers")))
    modal_answers = list(_column(few, "multiple_choice_answer"))
    if None in modal_answers:
        modal_answers = list(map(modal_answer, few))
    else:  # ten times as fast
        modal_answers = list(map(normalise, modal_answers))
    return (
        np.fromiter(_column(few, "question_id"), np.int64, len(few)),
        list(_column(few, "image_id")),
        types.number(list(_column(few, "question_type"))),
        answer_types.number(list(_column(few, "answer_type"))),
        modal.number(modal_answers),
        texts.number(list(_column(answers, "answer"))).reshape(-1, ANNOTATORS),
        _number_records(few, answers),
    )


def _column(records: Sequence[object], name: str) -> Iterator[Any]:
    return map(attrgetter(name), records)


def _number_records(few: Sequence[Annotation], answers: Sequence[Answer]) -> NDArray[np.int8]:
    numbered = np.tile(np.arange(ANNOTATORS, dtype=np.int8), (len(few), 1))
    if list(_column(answers, "answer_id")) == [*range(1, ANNOTATORS + 1)] * len(few):  # as in VQA's own files
        return numbered
    for row, annotation in enumerate(few):
        marks = [(answer.answer_id, answer.answer_confidence) for answer in annotation.answers]
        numbered[row] = [marks.index(mark) for mark in marks]
    return numbered


def concatenate(tables: Sequence[AnnotationTable]) -> AnnotationTable:
    """Return the questions of all tables, concatenated."""
    if len(tables) == 1:
        return tables[0]
    columns = {name: [vars(table)[name] for table in tables] for name in vars(tables[0])}
    images = columns.pop("image_ids")
    joined: dict[str, Any] = {
        name: _join(parts) if isinstance(parts[0], Categorical) else np.concatenate(parts)
        for name, parts in columns.items()
    }
    return AnnotationTable(image_ids=[*chain.from_iterable(images)], **joined)


def _join(several: Sequence[Categorical]) -> Categorical:
    names, codes = Numbering(), []
    for one in several:
        numbers = names.number(one.names)
        codes.append(numbers[one.codes] if len(numbers) else one.codes)
    return Categorical(list(names), np.concatenate(codes))

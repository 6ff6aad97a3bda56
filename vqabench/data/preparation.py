"""From raw files to `prepared.h5`: vocabulary, tokens, sparse targets and counts per question type."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from vqabench.data import digits
from vqabench.data.annotations import ANSWER_TYPES, Annotation, Question, hash_ids
from vqabench.data.answers import modal_answer, vocabulary
from vqabench.data.catalog import SPLITS, Dataset
from vqabench.data.conversion import convert_features
from vqabench.data.encoder import Encoder
from vqabench.data.features import FeatureStore, open_features
from vqabench.data.human_answers import HumanAnswers, count_human_answers
from vqabench.data.priors import Priors, count_priors
from vqabench.data.questions import SPECIAL_WORDS, collect_words, split_words
from vqabench.data.word_vectors import read_word_vectors
from vqabench.errors import InputError, first_few
from vqabench.results import write_through

FORMAT = 1
"""Raised whenever prepared files must be made anew."""

Array = NDArray[Any]
Say = Callable[[str], None]
Raw = dict[str, tuple[list[Question], list[Annotation]]]
"""Split -> its questions and, in the same order, their annotations."""


@dataclass(frozen=True)
class SplitArrays:
    """One split of N questions. Targets are sparse: question n's stand at `starts[n]:starts[n + 1]`."""

    question_ids: Array
    """int64 [N]."""
    image_rows: Array
    """int64 [N]: rows of the features file."""
    types: Array
    """int64 [N]."""
    tokens: Array
    """int32 [N, L]."""
    type_word_counts: Array
    """int32 [N]: words at the question's start that spell its type."""
    starts: Array
    """int64 [N + 1]."""
    target_answers: Array
    """int32: indices into the vocabulary."""
    target_values: Array
    """float32 in (0, 1]."""


@dataclass(frozen=True)
class Summary:
    """How much a prepared data set holds."""

    questions: dict[str, int]
    """Split -> questions."""
    answers: int
    words: int
    """Of the training questions, without the padding and the unknown token."""
    question_types: int
    images: int
    regions: int
    """The largest number of regions of an image."""
    region_width: int
    fingerprint: str
    """Hash of every input file and setting that it was made from."""
    val_ids_hash: str
    """`hash_ids` of the validation split; empty where there is none."""


def prepare_files(dataset: Dataset, say: Say) -> Summary:
    """Make a data set's files ready for training, or see that an earlier call made them of the same inputs.

    `say` hears, in a line each, what is done and what was found. Raises InputError where an input is broken.
    """
    dataset.see_complete()
    _generate(dataset, say)
    fingerprint = _fingerprint(dataset)
    there = summarise(dataset)
    if there is None or there.fingerprint != fingerprint:
        say(f"preparing {dataset.name} in {dataset.folder}")
        _build(dataset, fingerprint, say)
        there = summarise(dataset)
    assert there is not None
    return there


def summarise(dataset: Dataset) -> Summary | None:
    """Tell what was prepared of a data set, whether or not its inputs have changed since.

    None where nothing was, or it is damaged: then it is made anew.
    """
    try:
        features = open_features(dataset.features_file)
        with h5py.File(dataset.prepared_file) as file:
            return Summary(
                questions={split: len(file[split]["types"]) for split in SPLITS if split in file},
                answers=len(file["answers"]),
                words=len(file["words"]) - SPECIAL_WORDS,
                question_types=len(file["types"]),
                images=len(features.image_ids),
                regions=features.regions.shape[1],
                region_width=features.regions.shape[2],
                fingerprint=str(file.attrs["fingerprint"]),
                val_ids_hash=hash_ids(file["val"]["question_ids"][:].tolist()) if "val" in file else "",
            )
    except (InputError, OSError, KeyError):
        return None


def read_question_ids(dataset: Dataset, split: str) -> list[int]:
    """Read which questions a prepared split holds, in its order."""
    with h5py.File(dataset.prepared_file) as file:
        ids: list[int] = file[split]["question_ids"][:].tolist()
        return ids


def _generate(dataset: Dataset, say: Say) -> None:
    if dataset.entry.generator is None:
        return
    stamp = dataset.source / "version"
    version = str(digits.VERSION)
    if stamp.is_file() and stamp.read_text() == version and all(file.is_file() for file in dataset.files()):
        return
    say(f"generating {dataset.name}, version {version}, in {dataset.source}")
    digits.generate(dataset.source)
    stamp.write_text(version)


def _fingerprint(dataset: Dataset) -> str:
    """Hash every input file, and the settings that bear on what is made of them."""
    others = ("title", "licence", "citation", "recipe", "files", "derived", "counts", "features_from")
    settings = {key: value for key, value in msgspec.to_builtins(dataset.entry).items() if key not in others}
    digest = hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode())
    for path in dataset.files():
        digest.update(_hash_file(path, dataset.name))
    return digest.hexdigest()


def _hash_file(path: Path, name: str) -> bytes:
    """Hash a file; of one above 256 MiB the size and 64 samples of 1 MiB, since features take tens of GB."""
    real = Path(str(path).partition("::")[0])
    if not real.is_file():
        raise InputError(f"{real}: missing; the catalogue names it for {name}")
    size, chunk = real.stat().st_size, 1 << 20
    digest = hashlib.sha256(str(size).encode())
    with real.open("rb") as stream:
        if size <= 256 * chunk:
            digest.update(stream.read())
        else:
            for position in np.linspace(0, size - chunk, 64, dtype=np.int64):
                stream.seek(int(position))
                digest.update(stream.read(chunk))
    return digest.digest()


def _build(dataset: Dataset, fingerprint: str, say: Say) -> None:
    dataset.folder.mkdir(parents=True, exist_ok=True)
    raw: Raw = dataset.read_splits()
    _check_distinct(raw, dataset.name)
    images = {question.image_id for questions, _ in raw.values() for question in questions}
    # The old arrays point into the old features: whatever fails from here on, they must not meet the new ones.
    dataset.prepared_file.unlink(missing_ok=True)
    convert_features(dataset.feature_files(), dataset.features_file, images)
    features = open_features(dataset.features_file)

    answers = _vocabulary(raw["train"][1], dataset)
    types = tuple(dict.fromkeys(a.question_type for _, annotations in raw.values() for a in annotations))
    train_questions = dict.fromkeys(question.question for question in raw["train"][0])
    encoder = Encoder(
        dataset.entry.question_length, answers, types, collect_words(map(split_words, train_questions))
    )
    given = {split: count_human_answers(annotated, encoder.answers) for split, (_, annotated) in raw.items()}
    priors = count_priors(encoder.number_types(raw["train"][1]), given["train"], len(answers), len(types))

    def write(part: Path) -> None:
        with h5py.File(part, "w") as file:
            file.attrs["fingerprint"] = fingerprint
            _write_spec(file, dataset, encoder, priors)
            for split, (questions, annotations) in raw.items():
                rows, kept = _locate_images(dataset, split, questions, features, say)
                group = file.create_group(split)
                chosen = [questions[n] for n in kept], [annotations[n] for n in kept]
                _write_split(group, encoder, *chosen, given[split].take(kept), rows)

    write_through(dataset.prepared_file, write)
    say(f"{len(answers)} answers, {len(encoder.words) - SPECIAL_WORDS} words, {len(types)} question types")
    _tell_other_answer_types(raw, say)
    _tell_limits(given, say)


def _tell_limits(given: Mapping[str, HumanAnswers], say: Say) -> None:
    """Tell how far the vocabulary falls short, where it does."""
    for split, answers in given.items():
        if answers.reachable < 1:
            missed = f"{answers.unanswerable:.1%} of the questions have no answer of the vocabulary"
            say(f"{split}: {missed}; the best soft accuracy that it allows is {100 * answers.reachable:.2f}")


def _check_distinct(raw: Raw, name: str) -> None:
    """A question in two splits would be trained on and tested."""
    counts = Counter(question.question_id for questions, _ in raw.values() for question in questions)
    repeated = [question_id for question_id, count in counts.items() if count > 1]
    if repeated:
        raise InputError(f"{name}: {len(repeated)} questions stand in two splits: ids {first_few(repeated)}")


def _tell_other_answer_types(raw: Raw, say: Say) -> None:
    counts = Counter(annotation.answer_type for _, annotations in raw.values() for annotation in annotations)
    other = [f"{count} of {name!r}" for name, count in counts.items() if name not in ANSWER_TYPES]
    if other:
        say(f"answer types other than {', '.join(ANSWER_TYPES)} count in All alone: {first_few(other)}")


def _vocabulary(train: Sequence[Annotation], dataset: Dataset) -> tuple[str, ...]:
    minimum = dataset.entry.minimum_answer_count
    answers = vocabulary(map(modal_answer, train), minimum)
    if not answers:
        raise InputError(
            f"{dataset.name}: no answer is the most common one of {minimum} training questions; "
            "set a smaller minimum_answer_count in the catalogue"
        )
    return answers


def _locate_images(
    dataset: Dataset, split: str, questions: Sequence[Question], features: FeatureStore, say: Say
) -> tuple[Array, Array]:
    """Give each question's row of features, and which questions have one."""
    if dataset.entry.images_without_features == "refuse":
        return features.rows([q.image_id for q in questions]), np.arange(len(questions))
    known = set(features.image_ids.tolist())
    kept = np.array([n for n, question in enumerate(questions) if question.image_id in known], np.int64)
    if len(kept) == 0:
        raise InputError(f"{dataset.name}, split {split}: no question's image has features")
    if len(kept) < len(questions):
        say(f"{split}: {len(questions) - len(kept)} of {len(questions)} questions are left out: no features")
    return features.rows([questions[n].image_id for n in kept]), kept


def _write_split(
    group: h5py.Group,
    encoder: Encoder,
    questions: Sequence[Question],
    annotations: Sequence[Annotation],
    given: HumanAnswers,
    image_rows: Array,
) -> None:
    tokens, type_word_counts = encoder.encode(questions, annotations)
    arrays = SplitArrays(
        question_ids=np.array([question.question_id for question in questions], np.int64),
        image_rows=image_rows.astype(np.int64),
        types=encoder.number_types(annotations),
        tokens=tokens,
        type_word_counts=type_word_counts,
        starts=np.append(0, np.cumsum(np.bincount(given.questions, minlength=given.size))),
        target_answers=given.answers,
        target_values=given.targets,
    )
    for name, array in vars(arrays).items():
        group[name] = array


def _write_spec(file: h5py.File, dataset: Dataset, encoder: Encoder, priors: Priors) -> None:
    file.attrs["question_length"] = encoder.length
    for name, strings in (("answers", encoder.answers), ("words", encoder.words), ("types", encoder.types)):
        file.create_dataset(name, data=list(strings), dtype=h5py.string_dtype())
    for name, array in vars(priors).items():
        file[f"priors/{name}"] = array
    if dataset.entry.word_vectors:
        file["word_vectors"] = read_word_vectors(dataset.source / dataset.entry.word_vectors, encoder.words)

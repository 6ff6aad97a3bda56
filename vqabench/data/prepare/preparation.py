"""Write `prepared.h5` from raw files: vocabularies, tokens, sparse targets and counts per question type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vqabench.data.catalog.dataset import Dataset, Raw
from vqabench.data.catalog.entries import SPLITS
from vqabench.data.features.conversion import ConversionOptions, convert_features
from vqabench.data.features.store import FeatureStore, check_texts, open_features, read_object_names
from vqabench.data.prepare import digits
from vqabench.data.prepare.fingerprint import fingerprint_of, stamp_of
from vqabench.data.vqa.accuracy import best_accuracies, explain_oddities, find_oddities, mean_percent
from vqabench.data.vqa.annotations import ANSWER_TYPES, Question, hash_ids
from vqabench.data.vqa.answers import vocabulary
from vqabench.data.vqa.encoding import (
    NO_TYPE,
    Encoder,
    HumanAnswers,
    Priors,
    count_human_answers,
    count_priors,
    no_answers,
)
from vqabench.data.vqa.words import SPECIAL_WORDS, collect_words, read_word_vectors, split_words
from vqabench.errors import InputError, first_few
from vqabench.files.atomic import holding
from vqabench.files.folders import require_writable
from vqabench.files.hdf5 import change_hdf5, reading, store, write_hdf5

Array = NDArray[Any]
Say = Callable[[str], None]
VOCABULARIES = ("answers", "words", "types")
"""Arrays of strings in `prepared.h5`, and attributes of an Encoder."""


@dataclass(frozen=True)
class SplitArrays:
    """One split of N questions. Targets are sparse: those of question n are at `starts[n]:starts[n + 1]`."""

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

    def take(self, rows: Sequence[int]) -> SplitArrays:
        """Return the questions at some rows, in this order."""
        chosen = np.array(rows, np.int64)
        lengths = np.diff(self.starts)[chosen]
        starts = np.append(0, np.cumsum(lengths))
        places = np.arange(starts[-1]) + np.repeat(self.starts[chosen] - starts[:-1], lengths)
        return SplitArrays(
            question_ids=self.question_ids[chosen],
            image_rows=self.image_rows[chosen],
            types=self.types[chosen],
            tokens=self.tokens[chosen],
            type_word_counts=self.type_word_counts[chosen],
            starts=starts,
            target_answers=self.target_answers[places],
            target_values=self.target_values[places],
        )


@dataclass(frozen=True)
class Summary:
    """The sizes of a prepared data set, and its state."""

    questions: dict[str, int]
    """Split -> number of questions."""
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
    warnings: tuple[str, ...]
    """Lines on questions whose official score is surprising."""
    val_ids_hash: str
    """`hash_ids` of the validation split; empty if there is none."""
    current: bool
    """Whether settings and files, by size and time, are those that it was made from."""


def prepare_files(dataset: Dataset, say: Say) -> Summary:
    """Prepare a data set for training, unless it was prepared from the same inputs before.

    `say` receives a line for each step and finding. Raises InputError if an input is broken.
    """
    generate(dataset, say)
    dataset.check_questions_readable()
    dataset.feature_files()  # raises InputError if none are named, before anything is read
    fingerprint = fingerprint_of(dataset)
    there = summarise(dataset)
    if there is None or there.fingerprint != fingerprint:
        require_writable(dataset.folder.parent, "--data-dir", dataset.folder)
        dataset.folder.mkdir(parents=True, exist_ok=True)
        with _locked(dataset, say):
            there = summarise(dataset)  # another process may have prepared it while this one waited
            if there is None or there.fingerprint != fingerprint:
                say(f"preparing {dataset.name} in {dataset.folder}")
                _build(dataset, fingerprint, say)
    else:
        for warning in there.warnings:
            say(warning)
        if not there.current:  # the files were touched or copied: the content is the same, so only the stamp is old
            with suppress(OSError), _locked(dataset, say):  # the folder may be read-only
                change_hdf5(dataset.prepared_file, lambda file: file.attrs.update(stamp=stamp_of(dataset)))
    made = summarise(dataset)
    assert made is not None
    return made


def summarise(dataset: Dataset) -> Summary | None:
    """Return what was prepared, whether or not the inputs have changed since.

    None if nothing was, or if it is damaged: both are prepared again.
    """
    try:
        features = open_features(dataset.features_file)
        with reading(dataset.prepared_file) as file:
            return Summary(
                questions={split: len(file[split]["types"]) for split in SPLITS if split in file},
                answers=len(file["answers"]),
                words=len(file["words"]) - SPECIAL_WORDS,
                question_types=len(file["types"]),
                images=len(features.image_ids),
                regions=features.regions.shape[1],
                region_width=features.regions.shape[2],
                fingerprint=str(file.attrs["fingerprint"]),
                current=file.attrs["stamp"] == stamp_of(dataset),
                warnings=tuple(map(str, file.attrs.get("warnings", ()))),
                val_ids_hash=hash_ids(file["val"]["question_ids"][:].tolist()) if "val" in file else "",
            )
    except InputError:
        return None


def read_question_ids(dataset: Dataset, split: str) -> list[int]:
    """Read the question ids of a prepared split, in its order."""
    with reading(dataset.prepared_file) as file:
        ids: list[int] = file[split]["question_ids"][:].tolist()
        return ids


def generate(dataset: Dataset, say: Say) -> None:
    """Generate the raw files of an embedded data set, unless this version of them exists."""
    if dataset.entry.generator is None:
        return
    stamp = dataset.source / "version"
    version = str(digits.VERSION)
    if stamp.is_file() and stamp.read_text() == version and all(file.is_file() for file in dataset.files()):
        return
    require_writable(dataset.folder.parent, "--data-dir", dataset.folder)
    say(f"generating {dataset.name}, version {version}, in {dataset.source}")
    digits.generate(dataset.source)
    stamp.write_text(version)


@contextmanager
def _locked(dataset: Dataset, say: Say) -> Iterator[None]:
    """Hold the lock for preparing a data set, and delete the partial files of killed processes."""
    message = f"{dataset.folder}: waiting for another process that is preparing {dataset.name}"
    with holding(dataset.prepared_file.with_name(".prepared.h5.lock"), lambda: say(message)):
        for pattern in (".prepared.h5.part-*", ".features.h5.json.part-*", ".features.h5.link-*"):
            for part in dataset.folder.glob(pattern):
                part.unlink(missing_ok=True)
        yield


def _build(dataset: Dataset, fingerprint: str, say: Say) -> None:
    raw = read_raw(dataset)
    encoder = build_encoder(dataset, raw)
    for split in dataset.splits:
        if repeated := dataset.find_repeated(split):
            say(f"{split}: {len(repeated):,} questions are dropped because they are also in val or test")
    images = {question.image_id for questions in _all_questions(dataset, raw) for question in questions}
    # The old arrays hold rows of the old features: if this process is killed, they must not meet the new ones.
    dataset.prepared_file.unlink(missing_ok=True)
    entry = dataset.entry
    options = ConversionOptions(entry.feature_precision, entry.broken_features, entry.features_without_boxes)
    convert_features(dataset.feature_files(), dataset.features_file, images, options, say=say)
    features = open_features(dataset.features_file)

    def fill(file: h5py.File) -> None:
        file.attrs["fingerprint"], file.attrs["stamp"] = fingerprint, stamp_of(dataset)
        fill_prepared(file, dataset, raw, encoder, features, say)
        if fingerprint_of(dataset) != fingerprint:
            raise InputError(f"{dataset.name}: its files changed while they were prepared; prepare it again")

    write_hdf5(dataset.prepared_file, fill)


def read_raw(dataset: Dataset) -> Raw:
    """Read all splits. Raises InputError if a file is broken or a question is in two of them."""
    raw: Raw = dataset.read_splits()
    counts = Counter(question.question_id for questions in _all_questions(dataset, raw) for question in questions)
    repeated = [question_id for question_id, count in counts.items() if count > 1]
    if repeated:  # it would be used in training and in testing
        raise InputError(
            f"{dataset.name}: {len(repeated):,} questions are in two splits, or twice in one: ids "
            f'{first_few(repeated)}; repeated_questions = "drop" in the catalogue removes questions of val and '
            "test from train"
        )
    return raw


def _all_questions(dataset: Dataset, raw: Raw) -> list[list[Question]]:
    """Return the questions of all splits, annotated or not."""
    return [*(questions for questions, _ in raw.values()), *dataset.read_unanswered().values()]


def build_encoder(dataset: Dataset, raw: Raw) -> Encoder:
    """Build the vocabularies and read the word vectors, whose errors should precede hours of reading features.

    Raises InputError if no answer is common enough, a text cannot be stored, or the vectors are broken.
    """
    entry = dataset.entry
    counts: Counter[str] = Counter()
    for split in entry.vocabulary.split("+"):
        counts.update(raw[split][1].modal_answers.counts() if split in raw else {})
    answers = vocabulary(counts, entry.minimum_answer_count)
    if not answers:
        raise InputError(
            f"{dataset.name}: no answer is the most common one of {entry.minimum_answer_count} training questions; "
            "set a smaller minimum_answer_count in the catalogue"
        )
    types = dict.fromkeys(name for _, table in raw.values() for name in table.question_types.counts())
    if dataset.scored != dataset.splits:
        types[NO_TYPE] = None
    train_questions = dict.fromkeys(question.question for question in raw["train"][0])
    encoder = Encoder(entry.question_length, answers, types, collect_words(map(split_words, train_questions)))
    for name in VOCABULARIES:
        check_texts(f"{dataset.name}: one of the {name},", getattr(encoder, name))
    if dataset.word_vectors_file:
        encoder.vectors = read_word_vectors(dataset.word_vectors_file, encoder.words)
    return encoder


def fill_prepared(
    file: h5py.File, dataset: Dataset, raw: Raw, encoder: Encoder, features: FeatureStore, say: Say
) -> None:
    """Write everything that training needs of the questions. Raises InputError if an input is invalid."""
    answers, types = encoder.answers, encoder.types
    given = {split: count_human_answers(table.answers, answers) for split, (_, table) in raw.items()}
    train_types = raw["train"][1].question_types.number(types)
    priors = count_priors(train_types, given["train"], len(answers), len(types))
    _write_spec(file, dataset, encoder, priors, features)
    parts = {split: (questions, table.question_types, given[split]) for split, (questions, table) in raw.items()}
    for split, questions in dataset.read_unanswered().items():
        parts[split] = questions, encoder.guess_types(questions), no_answers(len(questions))
    for split, (questions, every_type, every_answer) in parts.items():
        rows, kept = _locate_images(dataset, split, questions, features, say)
        chosen, types_N, answers_N = [questions[n] for n in kept], every_type[kept], every_answer.take(kept)
        tokens, type_word_counts = encoder.encode(chosen, types_N)
        arrays = SplitArrays(
            question_ids=np.array([question.question_id for question in chosen], np.int64),
            image_rows=rows.astype(np.int64),
            types=types_N.number(types),
            tokens=tokens,
            type_word_counts=type_word_counts,
            starts=np.append(0, np.cumsum(np.bincount(answers_N.questions, minlength=answers_N.size))),
            target_answers=answers_N.answers,
            target_values=answers_N.targets,
        )
        group = file.create_group(split)
        for name, array in vars(arrays).items():
            store(group, name, array)
        if split not in raw:
            untyped = types_N.counts().get(NO_TYPE, 0)
            say(
                f"{split}: no annotations, so it can be answered but not scored; the types of its questions are "
                f"guessed from their first words ({untyped:,} of {len(chosen):,} begin with no known type)"
            )
    warnings = _report(raw, given, encoder, priors, say)
    file.attrs["warnings"] = warnings  # repeated whenever these questions are used
    for warning in warnings:
        say(warning)


def _report(raw: Raw, given: dict[str, HumanAnswers], encoder: Encoder, priors: Priors, say: Say) -> list[str]:
    """Describe the prepared questions; return warnings about those whose official score is surprising."""
    words = len(encoder.words) - SPECIAL_WORDS
    say(f"{len(encoder.answers):,} answers, {words:,} words, {len(encoder.types):,} question types")
    own = (priors.answer_counts > 0).sum(1)
    say(f"answers given to a question type in train: {own.min():,} to {own.max():,}, median {np.median(own):,.0f}")
    if encoder.vectors is None:
        say("no word vectors: words start at random")
    else:
        found = int(encoder.vectors[SPECIAL_WORDS:].any(1).sum())
        say(f"word vectors for {found:,} of {words:,} words; the others start at zero")
    answer_types: Counter[str] = Counter()
    for _, table in raw.values():
        answer_types.update(table.answer_types.counts())
    other = [f"{count} of {name!r}" for name, count in answer_types.items() if name not in ANSWER_TYPES]
    if other:
        say(f"answer types other than {', '.join(ANSWER_TYPES)} count only in All: {first_few(other)}")
    for split, (_, table) in raw.items():
        best = mean_percent(best_accuracies(list(encoder.answers), table.answers, table.records))
        lacking = f"{given[split].unanswerable:.1%} of the questions have no answer in it"
        say(f"{split}: best possible official accuracy with this vocabulary: {best:.2f}; {lacking}")
    oddities = {split: find_oddities(table.answers, table.records) for split, (_, table) in raw.items()}
    return [f"warning: {line}" for line in explain_oddities(oddities)]


def _locate_images(
    dataset: Dataset, split: str, questions: Sequence[Question], features: FeatureStore, say: Say
) -> tuple[Array, Array]:
    """Return the rows of features [M] of the questions that have any, and the positions [M] of these questions."""
    if dataset.entry.images_without_features == "refuse":
        return features.rows([q.image_id for q in questions]), np.arange(len(questions))
    known = set(features.image_ids.tolist())
    kept = np.array([n for n, question in enumerate(questions) if question.image_id in known], np.int64)
    if len(kept) == 0:
        raise InputError(f"{dataset.name}, split {split}: no question's image has features")
    if len(kept) < len(questions):
        say(f"{split}: {len(questions) - len(kept)} of {len(questions)} questions are left out: no image features")
    return features.rows([questions[n].image_id for n in kept]), kept


def _write_spec(
    file: h5py.File, dataset: Dataset, encoder: Encoder, priors: Priors, features: FeatureStore
) -> None:
    file.attrs["question_length"] = encoder.length
    for name in VOCABULARIES:
        file.create_dataset(name, data=list(getattr(encoder, name)), dtype=h5py.string_dtype())
    for name, array in vars(priors).items():
        store(file, f"priors/{name}", array)
    if encoder.vectors is not None:
        store(file, "word_vectors", encoder.vectors)
    if dataset.entry.object_names:
        names = read_object_names(dataset.source / dataset.entry.object_names, features)
        file.create_dataset("object_names", data=list(names), dtype=h5py.string_dtype())

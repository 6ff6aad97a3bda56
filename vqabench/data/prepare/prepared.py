"""Open a prepared data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vqabench.api import DataSpec
from vqabench.data.catalog.dataset import Dataset, hash_questions
from vqabench.data.catalog.entries import SPLITS
from vqabench.data.features.seal import require_unchanged
from vqabench.data.features.store import FeatureStore, open_features
from vqabench.data.prepare.preparation import Say, SplitArrays, generate, prepare_files
from vqabench.files.hdf5 import reading


@dataclass(frozen=True)
class Prepared:
    """A data set ready for training."""

    spec: DataSpec
    splits: dict[str, SplitArrays]
    features: FeatureStore
    fingerprint: str
    """Hash of every input file and setting that this was prepared from."""
    question_hashes: Mapping[Path, str]
    """SHA-256 of the files with questions and annotations, for `check_questions`."""


def read_vocabulary(dataset: Dataset) -> tuple[str, ...]:
    """Read the answer vocabulary. Raises InputError if the data set is not prepared."""
    with reading(dataset.prepared_file) as file:
        return tuple(file["answers"].asstr()[:])


def prepare(dataset: Dataset, say: Say) -> Prepared:
    """Prepare a data set unless it is prepared, and open it. Raises as `prepare_files` does."""
    generate(dataset, say)
    dataset.check_questions_readable()
    # Hashed before the fingerprint, so that `check_questions` also notices a change between the two.
    question_hashes = hash_questions(dataset)
    prepare_files(dataset, say)
    features = open_features(dataset.features_file)
    require_unchanged(dataset.features_file)
    with reading(dataset.prepared_file) as file:
        spec = DataSpec(
            answers=tuple(file["answers"].asstr()[:]),
            words=tuple(file["words"].asstr()[:]),
            question_types=tuple(file["types"].asstr()[:]),
            regions=features.regions.shape[1],
            region_width=features.regions.shape[2],
            question_length=int(file.attrs["question_length"]),
            answer_counts_TA=torch.from_numpy(file["priors/answer_counts"][:]),
            mean_targets_TA=torch.from_numpy(file["priors/mean_targets"][:]),
            questions_T=torch.from_numpy(file["priors/questions"][:]),
            word_vectors=torch.from_numpy(file["word_vectors"][:]) if "word_vectors" in file else None,
            object_names=tuple(file["object_names"].asstr()[:]) if "object_names" in file else None,
        )
        splits: dict[str, SplitArrays] = {
            split: SplitArrays(**{name: array[:] for name, array in file[split].items()})
            for split in SPLITS
            if split in file
        }
        return Prepared(spec, splits, features, str(file.attrs["fingerprint"]), question_hashes)

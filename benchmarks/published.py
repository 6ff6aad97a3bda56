"""Train with the published implementation on the files of `training_speed.py`, and print a line of JSON.

`python benchmarks/published.py FOLDER --clone CLONE --device cpu`, where CLONE is a clone of
guoyang9/class-imbalance-VQA. The clone is called, not changed. Its loop, model, loss and data set run as its
`main.py` runs them (UpDn, `ce`, re-scaled), for some batches of one epoch. Two things are patched for current
PyTorch: dropout behind a ReLU is not in place, because the ReLU needs its output; and without a GPU `.cuda()`
does nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.synthetic_vqa import DATASET, paths
from vqabench.data.features.store import FeatureStore
from vqabench.data.prepare.prepared import Prepared, prepare
from vqabench.data.vqa.annotations import read_questions
from vqabench.data.vqa.words import SPECIAL_WORDS

BATCH_SIZE, HIDDEN, EMBEDDING = 512, 1024, 300
WORKERS = min(4, os.cpu_count() or 1)
"""Four, as its `main.py` has it, where there are as many processors."""
MOST_AHEAD = 4
"""Batches that are not timed at either end of an epoch, where enough remain: workers load as many ahead."""
LEAST_OF_TYPE = 10
"""An answer is of a question type if so many gave it."""
IMAGES_AT_ONCE = 256


def write_files(folder: Path, prepared: Prepared) -> Path:
    """Write prepared data in the form that the published code reads, unless it exists; return the folder."""
    own = folder / "published"
    own.mkdir(exist_ok=True)
    if (own / "complete").is_file():
        return own
    spec = prepared.spec
    words = spec.words[SPECIAL_WORDS:]
    questions = read_questions(folder / "train_questions.json")
    documents: dict[str, object] = {
        "trainval_ans2label": {answer: label for label, answer in enumerate(spec.answers)},
        "trainval_label2ans": spec.answers,
        "trainval36_imgid2idx": {image: row for row, image in enumerate(prepared.features.image_ids.tolist())},
        "train_target": list(_targets(prepared, {q.question_id: q.image_id for q in questions})),
        "train_mask": _answers_of_types(prepared),
        "dictionary": [{word: number for number, word in enumerate(words)}, words],
        "vqacp_v2_train_questions": [
            {"question_id": q.question_id, "image_id": q.image_id, "question": q.question} for q in questions
        ],
    }
    for name, document in documents.items():
        (own / f"{name}.json").write_text(json.dumps(document))
    vectors = np.random.default_rng(0).normal(size=(len(words), EMBEDDING))
    np.save(own / "glove6b_init.npy", vectors.astype(np.float32))
    _write_features(own / "trainval36.h5", prepared.features)
    (own / "complete").touch()
    return own


def _targets(prepared: Prepared, images: Mapping[int, int | str]) -> Iterator[dict[str, object]]:
    split, types = prepared.splits["train"], prepared.spec.question_types
    for row, (question_id, kind) in enumerate(zip(split.question_ids.tolist(), split.types.tolist(), strict=True)):
        few = slice(split.starts[row], split.starts[row + 1])
        yield {
            "question_id": question_id,
            "image_id": images[question_id],
            "question_type": types[kind],
            "labels": split.target_answers[few].tolist(),
            "scores": split.target_values[few].astype(float).round(1).tolist(),
        }


def _answers_of_types(prepared: Prepared) -> dict[str, dict[int, float]]:
    """Return the answers of each question type, weighted by their rarity."""
    spec = prepared.spec
    masks = {}
    for kind, counts_A in zip(spec.question_types, spec.answer_counts_TA.numpy(), strict=True):
        kept = np.flatnonzero(counts_A >= min(LEAST_OF_TYPE, counts_A.max()))
        rarity = (counts_A[kept].sum() - counts_A[kept]) / counts_A[kept]
        masks[kind] = dict(zip(kept.tolist(), rarity.astype(float).tolist(), strict=True))
    return masks


def _write_features(path: Path, features: FeatureStore) -> None:
    images, regions, _ = features.regions.shape
    with h5py.File(path, "w") as file:
        wide = file.create_dataset("image_features", features.regions.shape, "f4")
        file.create_dataset("spatial_features", (images, regions, 6), "f4")
        for start in range(0, images, IMAGES_AT_ONCE):
            few = slice(start, start + IMAGES_AT_ONCE)
            wide[few] = features.regions[few]


def load(clone: Path, files: Path, prepared: Prepared) -> dict[str, Any]:
    """Import the published modules and set their configuration."""
    sys.path.insert(0, str(clone.absolute()))
    config = importlib.import_module("utils.config")
    values = {
        "cp_data": True,
        "version": "v2",
        "task": "vqacp",
        "loss_type": "ce",
        "in_memory": False,
        "use_mask": False,
        "use_miu": True,
        "qa_path": str(files),
        "ids_path": str(files),
        "rcnn_path": str(files),
        "cache_root": str(files),
        "num_fixed_boxes": prepared.spec.regions,
        "output_features": prepared.spec.region_width,
    }
    for name, value in values.items():
        assert hasattr(config, name), name
        setattr(config, name, value)
    names = ("utils.dataset", "utils.losses", "utils.utils", "modules.base_model", "train")
    return {name: importlib.import_module(name) for name in names}


class TimedLoader:
    """Yield some batches, and record when the step on each of them ended."""

    def __init__(self, loader: DataLoader[Any], most: int) -> None:
        self.loader, self.skipped = loader, max(1, min(MOST_AHEAD, len(loader) // 4))
        self.batches = max(self.skipped + 1, min(most, len(loader) - self.skipped))
        self.sizes: list[int] = []
        self.done_at: list[float] = []

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[Tensor]]:
        for batch in islice(self.loader, self.batches):
            yield batch
            self.sizes.append(len(batch[0]))
            self.done_at.append(time.monotonic())

    def samples_per_second(self) -> float:
        return sum(self.sizes[self.skipped :]) / (self.done_at[-1] - self.done_at[self.skipped - 1])


def train(clone: Path, folder: Path, device: torch.device, batches: int) -> TimedLoader:
    prepared = prepare(paths(folder).dataset(DATASET), lambda message: None)
    files = write_files(folder, prepared)
    code = load(clone, files, prepared)
    if device.type == "cpu":
        _keep_on_cpu()
    dictionary = code["utils.dataset"].Dictionary.load_from_file(str(files / "dictionary.json"))
    data = code["utils.dataset"].VQAFeatureDataset("train", dictionary)
    model: nn.Module = code["modules.base_model"].build_baseline_newatt(data, HIDDEN).cuda()
    model.w_emb.init_embedding(str(files / "glove6b_init.npy"))  # type: ignore[operator, union-attr]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.inplace = False
    torch.backends.cudnn.benchmark = True
    loader: DataLoader[Any] = DataLoader(data, BATCH_SIZE, shuffle=True, num_workers=WORKERS)
    timed = TimedLoader(loader, batches)
    optimizer = torch.optim.Adamax(model.parameters())
    tracker = code["utils.utils"].Tracker()
    code["train"].train(model, optimizer, timed, code["utils.losses"].Plain(), tracker, None, 0)
    return timed


def what_is_missing(clone: Path) -> str | None:
    if importlib.util.find_spec("tqdm") is None:
        return "the published loop shows its progress with tqdm: pip install tqdm"
    if not (clone / "modules" / "base_model.py").is_file():
        return f"{clone}: no clone of guoyang9/class-imbalance-VQA"
    return None


def _keep_on_cpu() -> None:
    def stay(self: Any, *_: object, **__: object) -> Any:
        return self

    torch.Tensor.cuda = stay  # type: ignore[method-assign]
    nn.Module.cuda = stay  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clone", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=100, help="at most; the last few of an epoch are left out")
    options = parser.parse_args()
    if missing := what_is_missing(options.clone):
        parser.error(missing)
    timed = train(options.clone, options.folder, torch.device(options.device), options.batches)
    found = {
        "samples_per_second": [timed.samples_per_second()],
        "first_step_at": timed.done_at[0],
        "batches_timed": timed.batches - timed.skipped,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

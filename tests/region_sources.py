"""Region features of small images, in the forms that they come in."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vqabench.data.features.conversion import convert_features
from vqabench.data.features.store import FeatureStore, open_features, write_features

WIDTH = 3
Array = NDArray[Any]


def pack(array: Array) -> str:
    return base64.b64encode(array.tobytes()).decode()


def regions_of(image: int, count: int, width: int = WIDTH) -> Array:
    return np.random.default_rng(image).normal(size=(count, width)).astype(np.float32)


def boxes_of(image: int, count: int) -> Array:
    """Boxes in pixels, inside an image 200 wide and 100 high."""
    corners = np.random.default_rng(image).uniform(0, 100, (count, 2, 2))
    return np.sort(corners, axis=1).reshape(count, 4).astype(np.float32)


def bottom_up(image: int | str, count: int = 2, regions: Array | None = None, boxes: Array | None = None) -> str:
    """A row about an image 200 wide and 100 high."""
    boxes = np.tile(np.array([20, 20, 100, 100], np.float32), (count, 1)) if boxes is None else boxes
    regions = regions_of(1, count) if regions is None else regions
    return f"{image}\t200\t100\t{count}\t{pack(boxes)}\t{pack(regions)}\n"


def lxmert(image: str, count: int = 2, first_class: int = 5) -> str:
    boxes = np.tile(np.array([20, 20, 100, 100], np.float32), (count, 1))
    objects, attributes = (pack(np.arange(first, first + count)) for first in (first_class, first_class + 100))
    shares, regions = pack(np.ones(count, np.float32)), pack(regions_of(1, count))
    return f"{image}\t100\t200\t{objects}\t{shares}\t{attributes}\t{shares}\t{count}\t{pack(boxes)}\t{regions}\n"


def convert(folder: Path, *rows: str, wanted: set[int | str] | None = None) -> FeatureStore:
    (folder / "source.tsv").write_text("".join(rows))
    convert_features([folder / "source.tsv"], folder / "features.h5", wanted or set(range(100)))
    return open_features(folder / "features.h5")


def write_own(path: Path, **changes: Array) -> Path:
    """Two images of at most two regions, in our own format."""
    fields: dict[str, Array] = {
        "regions": np.ones((2, 2, WIDTH), np.float16),
        "boxes": np.full((2, 2, 4), 0.5, np.float32),
        "counts": np.array([2, 1], np.int32),
        "image_ids": np.array([7, 8]),
    }
    write_features(path, **(fields | changes))
    return path


def write_published(path: Path, images: dict[int, int], turned: bool = False, flat: bool = False) -> Path:
    """Images and their numbers of regions: flat arrays, or equal numbers, perhaps as [N, V, R]."""
    regions = [regions_of(image, count) for image, count in images.items()]
    pixels = [boxes_of(image, count) for image, count in images.items()]
    shares = [boxes / np.array([200, 100, 200, 100], np.float32) for boxes in pixels]
    spatial = [np.hstack([one, one[:, 2:] - one[:, :2]]) for one in shares]
    join = np.concatenate if flat else np.stack
    with h5py.File(path, "w") as file:
        features = join(regions)
        file["image_features"] = features.transpose(0, 2, 1) if turned else features
        file["image_bb"], file["spatial_features"] = join(pixels), join(spatial)
        if flat:
            ends = np.cumsum(list(images.values()))
            file["pos_boxes"] = np.stack([ends - list(images.values()), ends], 1)
    rows = {str(image): row for row, image in enumerate(images)}
    path.with_name(f"{path.stem}_imgid2idx.json").write_text(json.dumps(rows))
    return path


def write_npz(path: Path, image: int, count: int, **changes: Array | None) -> Path:
    fields: dict[str, Any] = {
        "x": regions_of(image, count),
        "bbox": boxes_of(image, count),
        "num_bbox": count,
        "image_w": 200,
        "image_h": 100,
    }
    fields |= changes
    np.savez_compressed(path, **{name: value for name, value in fields.items() if value is not None})
    return path


def write_table(path: Path, counts: dict[int, int]) -> Path:
    """Images with some numbers of regions, as bottom-up rows."""
    rows = (bottom_up(n, count, regions_of(n, count), boxes_of(n, count)) for n, count in counts.items())
    path.write_text("".join(rows))
    return path


def leftovers(folder: Path) -> list[str]:
    """Hidden files, which an interrupted conversion leaves."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]

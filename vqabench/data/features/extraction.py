"""Compute region features of images: patch features of a vision model, pooled to a grid of regions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqabench.data.features.images import decode, list_images
from vqabench.data.features.regions import LARGEST_HALF, Regions, round_to_half
from vqabench.data.features.vision import VisionModel, load_model
from vqabench.data.features.writer import Entry, FeatureWriter, only_writer
from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError, counted, first_few
from vqabench.files.pace import Pace
from vqabench.files.packed import Member
from vqabench.files.resources import prefetch

FORMAT = 1
"""To be raised if the same images and model yield other features."""
DECODERS = 4


@dataclass(frozen=True)
class Extraction:
    """The options of an extraction."""

    model: str
    """A folder, or a name at the Hugging Face hub."""
    revision: str | None = None
    regions: str = "36"
    """`36`: that many cells, in a grid as square as possible; `4x9`: rows and columns; `patches`: no pooling."""
    batch_size: int = 32
    broken: Literal["refuse", "skip"] = "refuse"
    """Whether an image that cannot be decoded is an error, or skipped."""


def extract(
    source: Path, destination: Path, options: Extraction, device: torch.device, say: Callable[[str], None]
) -> int:
    """Write the region features of a folder or zip of images; return the number of images.

    After an interruption, another call continues after the last shard, up to the first image that has changed.
    Raises InputError if images or model cannot be used; VqabenchError if the disk is full.
    """
    parse_regions(options.regions)
    images = list(list_images(source, say).items())
    say(f"loading {options.model}{'' if Path(options.model).is_dir() else ' from the Hugging Face hub'}")
    model = load_model(options.model, options.revision, device)
    about = json.dumps(
        {
            "format": FORMAT,
            "model": options.model,
            "revision": options.revision,
            "regions": options.regions,
            "side": model.side,
            "mean": model.mean.tolist(),
            "deviation": model.deviation.tolist(),
            "weights": model.hash_weights(),
            "transformers": version("transformers"),
            "torch": str(torch.__version__),
        }
    )
    listed = [(file.where, file.version) for _, file in images]

    def keeps(number: int, entry: Entry) -> bool:
        same = number < len(images) and listed[number] == (entry.where, entry.version)
        return same and not (entry.problem and options.broken == "refuse")

    origin = hashlib.sha256(json.dumps([about, listed]).encode()).hexdigest()
    with (
        only_writer(destination),
        FeatureWriter(destination, about, origin, np.float16, about, keeps) as writer,
    ):
        if writer.seen:
            say(f"continuing after the {writer.seen:,} images that are done")
        try:
            _extract_all(writer, images[writer.seen :], options, model, say)
            if not writer.counts:
                raise InputError(f"{source}: none of the images can be decoded")
        except InputError:
            if not writer.counts:
                writer.discard()
            raise
        writer.finish()
    if writer.dropped:
        say(f"{counted(len(writer.dropped), 'image')} left out: {first_few(one.problem for one in writer.dropped)}")
    return len(writer.counts)


def parse_regions(text: str) -> tuple[int, int] | None:
    """Return rows and columns; None for one region per patch. Raises InputError if the text is not valid."""
    if text == "patches":
        return None
    match = re.fullmatch(r"([1-9]\d{0,3})(?:x([1-9]\d{0,3}))?", text)
    if match is None:
        raise InputError(f"--regions {text!r}: write a number such as 36, rows and columns as 4x9, or patches")
    first = int(match[1])
    if match[2]:
        return first, int(match[2])
    rows = max(side for side in range(1, int(first**0.5) + 1) if first % side == 0)
    return rows, first // rows


def pool(patches: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Average the patches of each cell, row by row: [B, V, G, G] to [B, R, V]."""
    cells = patches if grid is None else torch.nn.functional.adaptive_avg_pool2d(patches, grid)
    return cells.flatten(2).transpose(1, 2)


def cells_of(grid: tuple[int, int] | None, patches: int) -> NDArray[np.float32]:
    """Return the box of each cell, as shares of the image: [R, 4]. Cells that share a patch overlap."""
    rows, columns = grid or (patches, patches)
    boxes = [
        (left, top, right, bottom)
        for top, bottom in _edges(rows, patches)
        for left, right in _edges(columns, patches)
    ]
    return np.array(boxes, np.float32)


def _edges(cells: int, patches: int) -> list[tuple[float, float]]:
    """Return where each cell begins and ends, by the rule of adaptive average pooling."""
    return [
        (cell * patches // cells / patches, -(-(cell + 1) * patches // cells) / patches) for cell in range(cells)
    ]


def _extract_all(
    writer: FeatureWriter,
    images: Sequence[tuple[ImageId, Member]],
    options: Extraction,
    model: VisionModel,
    say: Callable[[str], None],
) -> None:
    grid = parse_regions(options.regions)
    say(f"extracting {len(images):,} images with {options.model} on {model.device}")
    pace = Pace(writer.seen + len(images), "images", say)
    decoded = prefetch(images, lambda image: model.prepare(decode(image[1])), DECODERS, most=16 * DECODERS)
    # `exception` waits for each image: `prefetch` cancels what is not done when its items end.
    while batch := [(image, ready.exception(), ready) for image, ready in islice(decoded, options.batch_size)]:
        pixels = [ready.result() for _, error, ready in batch if error is None]
        computed = _compute(model, np.stack(pixels), grid) if pixels else iter(())
        for (image_id, file), error, _ in batch:
            if error is None:
                writer.append(image_id, file.where, next(computed), file.version)
            elif isinstance(error, InputError) and options.broken == "skip":
                writer.drop(image_id, file.where, str(error), file.version)
            else:
                raise error
        pace.update(writer.seen)


def _compute(model: VisionModel, pixels: NDArray[np.float32], grid: tuple[int, int] | None) -> Iterator[Regions]:
    """Yield the regions of each image."""
    patches = model.patches(pixels)
    if grid is not None and max(grid) > patches.shape[2]:
        side = patches.shape[2]
        raise InputError(
            f"--regions: {grid[0]} x {grid[1]} are more than {model.name} has: {side} x {side} patches"
        )
    boxes = cells_of(grid, patches.shape[2])
    for regions in pool(patches, grid).cpu().numpy():
        largest = float(np.abs(regions).max())
        if not largest <= LARGEST_HALF:  # nan, too
            raise InputError(f"--model {model.name}: returns features that float16 cannot hold ({largest})")
        half, rounding = round_to_half(np.ascontiguousarray(regions))
        yield Regions(half, boxes, rounding=rounding)

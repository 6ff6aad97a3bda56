"""Convert files of region features to `features.h5`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqabench.data.features.boxes import Extent, LayoutError
from vqabench.data.features.names import canonical_name, make_finder
from vqabench.data.features.regions import LARGEST_HALF, RegionRow, Regions, round_to_half
from vqabench.data.features.seal import break_seal, is_sealed, seal
from vqabench.data.features.sources import list_files, read_rows
from vqabench.data.features.store import check_numbers, open_features, read_origin
from vqabench.data.features.writer import SHARD_IMAGES, Entry, FeatureWriter, only_writer, remove_unfinished
from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError, counted, first_few
from vqabench.files.pace import Pace
from vqabench.files.resources import count_processors, prefetch

FORMAT = 3
"""To be raised if features must be converted again."""
MOST_WORKERS = 4
"""More threads would wait for one another, since parts of decoding hold Python's lock."""

DOUBTFUL = 0.01
"""Mean relative error. Rounding costs about 0.0002, unless most numbers are far smaller than features are."""

Precision = Literal["float16", "float32"]
Broken = Literal["refuse", "skip"]
WithoutBoxes = Literal["refuse", "whole-image"]
LARGEST_FEATURE = 1e9
"""A larger number means damage, or the wrong number type."""


@dataclass(frozen=True)
class ConversionOptions:
    """How rows are converted."""

    precision: Precision = "float16"
    broken: Broken = "refuse"
    """`skip` leaves out rows that are truncated, repeated with other numbers or undecodable."""
    without_boxes: WithoutBoxes = "refuse"
    """`whole-image` makes the whole image the box of every region that has none."""


def convert_features(
    sources: Sequence[Path],
    destination: Path,
    wanted: Collection[ImageId],
    options: ConversionOptions = ConversionOptions(),
    *,
    say: Callable[[str], None] = lambda _: None,
    workers: int | None = None,
) -> None:
    """Write the features of the wanted images to `features.h5`, unless made from the same files and settings.

    A single source that is a complete file of our own form is linked. Others are read once, and their rows decoded
    in `workers` threads. After an interruption, another call continues after the last shard. Classes of objects and
    attributes are kept if every row has them. `say` is called with the number of images, the rounding error and the
    rows that were dropped.

    Raises InputError, naming file, line and image, if a row is broken, a number is not finite, widths differ or an
    image is repeated with other features; VqabenchError if the disk is full.
    """
    wanted = set(wanted)
    origin = _hash_origin(sources, wanted, options)
    if is_sealed(destination, origin):
        return
    with only_writer(destination):
        break_seal(destination)
        complete = read_origin(destination) == origin  # a kill came before it was sealed
        if not complete and not (len(sources) == 1 and _adopt(sources[0], destination, wanted, options)):
            _convert(sources, destination, wanted, options, origin, say, workers)
        remove_unfinished(destination)
        seal(destination, origin)


def _convert(
    sources: Sequence[Path],
    destination: Path,
    wanted: set[ImageId],
    options: ConversionOptions,
    origin: str,
    say: Callable[[str], None],
    workers: int | None,
) -> None:
    if destination.is_symlink():
        destination.unlink()  # the file that it points to belongs to the user
    say(f"preparing region features of {len(wanted):,} images from {first_few(sources)}")
    dtype = np.float16 if options.precision == "float16" else np.float32
    # Rows are the same whatever becomes of broken ones; but if these are refused, none may have been left out.
    same_rows = _hash_origin(sources, wanted, replace(options, broken="skip"))
    skips = options.broken == "skip"

    def keeps(_: int, entry: Entry) -> bool:
        return skips or entry.repeats or not entry.problem

    with FeatureWriter(destination, same_rows, origin, dtype, keeps=keeps) as writer:
        if writer.seen:
            say(f"continuing after the {writer.seen:,} images that are done")
        try:
            if not writer.complete:
                _gather(writer, sources, wanted, options, workers or min(MOST_WORKERS, count_processors()), say)
            if not writer.counts:
                raise InputError(f"{first_few(sources)}: {_describe_why_none(writer, sources, wanted)}")
        except InputError:
            if writer.seen < SHARD_IMAGES:  # soon made again
                writer.discard()
            raise
        writer.finish()
    _report(writer, say)


def _adopt(source: Path, destination: Path, wanted: set[ImageId], options: ConversionOptions) -> bool:
    """Link a complete features file of our own form instead of copying it. Return whether that was possible."""
    try:
        store = open_features(source)
        check_numbers(store)
    except InputError:
        return False  # another form, compressed, or broken: the conversion will name the row
    ids = store.image_ids.tolist()
    found = set(map(make_finder(wanted), ids)) - {None}
    if store.regions.dtype != options.precision or not found or not found <= set(ids):
        return False
    link = destination.with_name(f".{destination.name}.link-{os.getpid()}")
    try:
        os.link(source.resolve(), link)
        link.replace(destination)
    except OSError:  # another file system, or one without links
        return False
    finally:
        link.unlink(missing_ok=True)  # still there if both are the same file already
    return True


def _hash_origin(sources: Iterable[Path], wanted: Collection[ImageId], options: ConversionOptions) -> str:
    """Hash the settings, the images, and the size and time of every file."""
    files = [(str(path), path.stat()) for source in sources for path in list_files(source)]
    made_of = [
        *(FORMAT, *vars(options).values(), [str(source) for source in sources]),
        [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files],
        sorted(map(repr, wanted)),
    ]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def _gather(
    writer: FeatureWriter,
    sources: Sequence[Path],
    wanted: set[ImageId],
    options: ConversionOptions,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """Write the rows that follow those of an interrupted call."""
    afresh, rows = not writer.seen, islice(read_rows(sources, make_finder(wanted)), writer.seen, None)
    pace, extent = Pace(len(wanted), "images", say), Extent()
    decode = partial(_decode, options=options)
    for row, decoded in prefetch(rows, decode, workers, most=2 * workers):
        try:
            image = decoded.result()
            before = writer.paths.get(row.image_id)
            if before is None:
                writer.append(row.image_id, row.where, image)
                if image.pixels and image.boxes is not None:
                    extent.add(image.boxes)
            elif writer.equals(row.image_id, image):
                message = f"{row.where}: image {row.image_id} equals {before}"
                writer.drop(row.image_id, row.where, message, repeats=True)
            else:
                raise InputError(f"{row.where}: image {row.image_id} is also in {before}, with other features")
        except LayoutError:
            raise
        except InputError as error:
            if options.broken == "refuse":
                raise
            writer.drop(row.image_id, row.where, str(error))
        if writer.seen == SHARD_IMAGES:
            extent.check(first_few(sources))
        pace.update(writer.seen)
    extent.check(first_few(sources))
    if afresh and extent.alike and extent.moved:
        say(
            "boxes are read as left, top, right, bottom, but left, top, width, height would also fit; check which "
            "they are"
        )


def _decode(row: RegionRow, options: ConversionOptions) -> Regions:
    what = f"{row.where}: image {row.image_id}"
    try:
        image = row.decode()
        if image.boxes is None:
            image = replace(image, boxes=_make_boxes(image.regions, options, what))
        _check_numbers(image.regions, options.precision, what)
        if options.precision == "float32" or image.regions.dtype == np.float16:
            return image
        half, rounding = round_to_half(np.ascontiguousarray(image.regions, np.float32))
        return replace(image, regions=half, rounding=rounding)
    except InputError:
        raise
    except Exception as error:  # a damaged file may make its reader raise anything
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{what}: no region features, or damaged: {message}") from error


def _make_boxes(regions: NDArray[Any], options: ConversionOptions, what: str) -> NDArray[np.float32]:
    """Return the whole image as the box of every region. Raises LayoutError unless the settings allow it."""
    if options.without_boxes == "refuse":
        raise LayoutError(
            f"{what}: features without boxes. For backbones that do not use boxes, set "
            'features_without_boxes = "whole-image" in the catalogue: every box is then the whole image'
        )
    if len(regions) > regions.shape[1]:
        raise LayoutError(f"{what}: features {list(regions.shape)} without boxes: write them as [regions, width]")
    return np.tile(np.array([0, 0, 1, 1], np.float32), (len(regions), 1))


def _check_numbers(numbers: NDArray[Any], precision: Precision, what: str) -> None:
    if numbers.dtype not in (np.float16, np.float32) or not numbers.size:
        raise InputError(f"{what}: features are {numbers.dtype} {list(numbers.shape)}, not float16 or float32")
    largest = max(float(numbers.max()), -float(numbers.min()))  # both are nan if any number is
    if not np.isfinite(largest):
        raise InputError(f"{what}: has features that are not finite")
    if largest > LARGEST_FEATURE:
        raise InputError(f"{what}: has a feature of {largest:.3g}: damaged, or of another number type?")
    if precision == "float16" and largest > LARGEST_HALF:
        advice = 'to keep it, set feature_precision = "float32" in the catalogue'
        raise InputError(f"{what}: has a feature of {largest:.3g}, beyond float16; {advice}")


def _describe_why_none(writer: FeatureWriter, sources: Sequence[Path], wanted: set[ImageId]) -> str:
    none = f"no features for any of the {len(wanted):,} images of the questions"
    if writer.dropped:
        return f"{none}; {counted(len(writer.dropped), 'broken row')}, first {writer.dropped[0].problem}"
    there = next((row.image_id for row in read_rows(sources, lambda name: canonical_name(str(name)))), None)
    found = "the source is empty" if there is None else f"the first image of the source is {there}"
    return f"{none}, for example {next(iter(wanted))}; {found}"


def _report(writer: FeatureWriter, say: Callable[[str], None]) -> None:
    images, regions, width = writer.shape
    say(f"features of {counted(images, 'image')}, {counted(regions, 'region')} at most, {width:,} wide")
    if writer.rounding.values:
        mean, largest, at = writer.rounding.mean, writer.rounding.largest, writer.rounding.at
        error = f"relative error {mean:.1e} on average, at most {largest:.1e} (of {at:.1e})"
        doubt = "; are these float32 numbers at all?" if mean > DOUBTFUL else ""
        say(f"rounded to float16: {error}, in the first region of each image{doubt}")
    if writer.only_zeros:
        zeros = f"{writer.only_zeros:,} of {images:,} images have features that are all 0"
        say(f"{zeros}: was the file written completely?")
    broken = [entry for entry in writer.dropped if not entry.repeats]
    if len(broken) < len(writer.dropped):
        repeats = len(writer.dropped) - len(broken)
        repeat = "repeats" if repeats == 1 else "repeat"
        say(f"skipped {counted(repeats, 'row')} that {repeat} an image with the same features")
    if broken:
        ids = first_few(entry.image_id for entry in broken if entry.image_id != "")
        of_images = f" (images {ids})" if ids else ""
        say(f"{counted(len(broken), 'broken row')} left out{of_images}; the first: {broken[0].problem}")

"""List and decode the images of a folder or a zip."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqabench.data.features.names import IMAGE_ENDINGS, canonical_name
from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError, first_few
from vqabench.files.folders import list_below, require_file
from vqabench.files.packed import UNREADABLE, list_members

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Pillow would also open others, some of them by starting other programs."""
LARGEST_FILE = 1 << 28
"""Bytes."""
LARGE = 1 << 24
"""Pixels. Larger images are decoded one at a time: each may take a gigabyte."""
_one_large = threading.Lock()


@dataclass(frozen=True)
class ImageFile:
    """One image, not read yet."""

    image_id: ImageId
    """The image that the file's name stands for."""
    name: str
    version: int
    """Changes with the content: modification time of a file, checksum of a zip member."""
    size: int
    """Bytes."""
    read: Callable[[], bytes]


def list_images(source: Path, say: Callable[[str], None] = lambda _: None) -> list[ImageFile]:
    """List the images of a folder, with those below it, or of a zip, in the order of their names.

    `say` is called with the number of skipped files of other kinds. Raises InputError if there are no images, one
    is a pipe or missing, two have the same id, or only some ids are numbers.
    """
    found, others = _list_folder(source) if source.is_dir() else _list_archive(source)
    counts = {ending: others.count(ending) for ending in dict.fromkeys(others)}
    message = first_few(f"{count} {ending or 'without an ending'}" for ending, count in counts.items())
    if not found:
        raise InputError(f"{source}: holds no images ({', '.join(IMAGE_ENDINGS)}); it holds {message or 'nothing'}")
    if others:
        say(f"{source}: files of other kinds are skipped: {message}")
    seen: dict[ImageId, str] = {}
    for image in found:
        if not image.name.isprintable():  # HDF5 cannot store bytes that are not text
            raise InputError(
                f"{image.name!r}: its name is not in UTF-8, or holds characters that cannot be printed"
            )
        if image.image_id in seen:
            raise InputError(f"{seen[image.image_id]} and {image.name} are both image {image.image_id}")
        seen[image.image_id] = image.name
    named = [name for image_id, name in seen.items() if isinstance(image_id, str)]
    if 0 < len(named) < len(found):
        raise InputError(f"{named[0]}: its name is not a number, but the names of other images are")
    return found


def decode(image: ImageFile) -> Image:
    """Decode an image to RGB, rotated as its EXIF data says. Raises InputError if it is damaged."""
    from PIL import Image, UnidentifiedImageError

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow refuses larger ones
    if image.size > LARGEST_FILE:
        raise InputError(f"{image.name}: {image.size:,} bytes: larger than {LARGEST_FILE >> 20} MB")
    try:
        with Image.open(io.BytesIO(image.read()), formats=FORMATS) as opened:
            large = opened.width * opened.height > LARGE
            return _convert_alone(opened) if large else _convert(opened)
    except UnidentifiedImageError:
        raise InputError(f"{image.name}: not an image of a known kind ({', '.join(FORMATS)})") from None
    except Exception as error:  # a damaged file may make its decoder raise anything
        raise InputError(
            f"{image.name}: not an image, or a damaged one: {str(error) or type(error).__name__}"
        ) from error


def _convert_alone(opened: Image) -> Image:
    with _one_large:
        return _convert(opened)


def _convert(opened: Image) -> Image:
    """Rotate an opened image as its EXIF data says, and convert it to RGB."""
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(opened)
    if turned.mode.startswith(("I", "F")):
        turned = Image.fromarray(_to_bytes(np.asarray(turned)))
    return (turned.convert("RGBA") if "transparency" in turned.info else turned).convert("RGB")


def _to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert 16-bit pixels to bytes; Pillow would clip them at 255."""
    if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(
            f"its pixels are {pixels.dtype} from {pixels.min():g} to {pixels.max():g}; at most 16 bits are allowed"
        )
    return (pixels // 257).astype(np.uint8)


def _list_folder(folder: Path) -> tuple[list[ImageFile], list[str]]:
    """List images, and the endings of other files."""
    files = list_below(folder)
    images = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS]
    for path in images:
        require_file(path, "image")
    found = []
    for path in images:
        stat = path.stat()
        image_id = canonical_name(path.stem)
        found.append(ImageFile(image_id, str(path), stat.st_mtime_ns, stat.st_size, path.read_bytes))
    return found, [path.suffix for path in files if path.suffix.lower() not in IMAGE_ENDINGS]


def _list_archive(path: Path) -> tuple[list[ImageFile], list[str]]:
    """List images, and the endings of other files."""
    require_file(path, "folder of images")
    try:
        members = list_members(path, [""])
    except UNREADABLE as error:
        raise InputError(f"{path}: neither a folder nor a zip of images: {error}") from error
    images = [member for member in members if member.name.lower().endswith(IMAGE_ENDINGS)]
    found = [
        ImageFile(canonical_name(PurePosixPath(one.name).stem), f"{path}::{one.name}", one.crc, one.size, one.read)
        for one in images
    ]
    return found, [
        PurePosixPath(one.name).suffix for one in members if not one.name.lower().endswith(IMAGE_ENDINGS)
    ]

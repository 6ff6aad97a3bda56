"""Images of a folder or a zip, decoded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from vqabench.data.annotations import ImageId
from vqabench.data.folders import list_files_below
from vqabench.data.packed_files import UNREADABLE, list_members
from vqabench.data.region_rows import name_image
from vqabench.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class ImageFile:
    """One image, not read yet."""

    image_id: ImageId
    """The number that its name is, or that ends a name of COCO's; else the name without its ending."""
    name: str
    version: int
    """Changes with its content: the time of a file, the checksum of a zip's member."""
    read: Callable[[], bytes]


def list_images(source: Path) -> list[ImageFile]:
    """List the images of a folder, with those below it, or of a zip, in the order of their names.

    Raises InputError where there are none, two of them have one id, or only some have numbers for ids.
    """
    if source.is_dir():
        found = [
            ImageFile(_id(path.stem), str(path), path.stat().st_mtime_ns, path.read_bytes) for path in _walk(source)
        ]
    elif source.is_file():
        found = _list_archive(source)
    else:
        raise InputError(f"{source}: there is no such folder of images")
    if not found:
        raise InputError(f"{source}: holds no images ({', '.join(ENDINGS)})")
    seen: dict[ImageId, str] = {}
    for image in found:
        if not image.name.isprintable():  # HDF5 has no place for bytes that are no text
            raise InputError(f"{image.name!r}: its name is not in UTF-8, or holds signs that cannot be shown")
        if image.image_id in seen:
            raise InputError(f"{seen[image.image_id]} and {image.name} are both image {image.image_id}")
        seen[image.image_id] = image.name
    named = [name for image_id, name in seen.items() if isinstance(image_id, str)]
    if 0 < len(named) < len(found):
        raise InputError(f"{named[0]}: its name is no number, but those of other images are")
    return found


def decode(image: ImageFile) -> Image:
    """Decode an image to RGB, turned as its camera was held. Raises InputError where that cannot be."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but not yet refused

    try:
        with Image.open(io.BytesIO(image.read())) as opened:
            turned = ImageOps.exif_transpose(opened)
            if turned.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255
                turned = Image.fromarray((np.asarray(turned) // 257).astype(np.uint8))
            return (turned.convert("RGBA") if "transparency" in turned.info else turned).convert("RGB")
    except UnidentifiedImageError:
        raise InputError(f"{image.name}: not an image, or of no kind that is known") from None
    except (*UNREADABLE, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{image.name}: not an image, or a damaged one: {error}") from error


def _walk(folder: Path) -> list[Path]:
    return [path for path in list_files_below(folder) if path.suffix.lower() in ENDINGS]


def _list_archive(path: Path) -> list[ImageFile]:
    try:
        members = list_members(path, ENDINGS)
    except UNREADABLE as error:
        raise InputError(f"{path}: neither a folder nor a zip of images: {error}") from error
    return [
        ImageFile(_id(PurePosixPath(member.name).stem), f"{path}::{member.name}", member.crc, member.read)
        for member in members
    ]


def _id(stem: str) -> ImageId:
    return name_image(stem, ())

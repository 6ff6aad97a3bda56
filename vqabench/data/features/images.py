"""List and decode the images of a folder or a zip."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from vqabench.data.features.names import IMAGE_ENDINGS, canonical_name
from vqabench.data.vqa.annotations import ImageId
from vqabench.errors import InputError
from vqabench.files.folders import require_file
from vqabench.files.packed import UNREADABLE, Member, list_members

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Pillow would also open others, some of them by starting other programs."""
LARGEST_FILE = 1 << 28
"""Bytes."""
LARGE = 1 << 24
"""Pixels. Larger images are decoded one at a time: each may take a gigabyte."""
_one_large = threading.Lock()


def list_images(source: Path, say: Callable[[str], None] = lambda _: None) -> dict[ImageId, Member]:
    """Return the files of images in a folder, with those below it, or in a zip, in the order of their names.

    `say` is called with the number of skipped files of other kinds. Raises InputError if there are no images, one
    is a pipe or missing, two have the same id, or only some ids are numbers.
    """
    if not source.is_dir():
        require_file(source, "folder of images")
    try:
        files, others = list_members(source, IMAGE_ENDINGS, "image")
    except UNREADABLE as error:
        raise InputError(f"{source}: neither a folder nor a zip of images: {error}") from error
    if not files:
        raise InputError(f"{source}: holds no images ({', '.join(IMAGE_ENDINGS)}); it holds {others or 'nothing'}")
    if others:
        say(f"{source}: files of other kinds are skipped: {others}")
    images: dict[ImageId, Member] = {}
    for file in files:
        if not file.where.isprintable():  # HDF5 cannot store bytes that are not text
            raise InputError(
                f"{file.where!r}: its name is not in UTF-8, or holds characters that cannot be printed"
            )
        image_id = canonical_name(PurePosixPath(file.name).stem)
        if image_id in images:
            raise InputError(f"{images[image_id].where} and {file.where} are both image {image_id}")
        images[image_id] = file
    named = [file.where for image_id, file in images.items() if isinstance(image_id, str)]
    if 0 < len(named) < len(images):
        raise InputError(f"{named[0]}: its name is not a number, but the names of other images are")
    return images


def decode(image: Member) -> Image:
    """Decode an image to RGB, rotated as its EXIF data says. Raises InputError if it is damaged."""
    from PIL import Image, UnidentifiedImageError

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow refuses larger ones
    if image.size > LARGEST_FILE:
        raise InputError(f"{image.where}: {image.size:,} bytes: larger than {LARGEST_FILE >> 20} MB")
    try:
        with (
            Image.open(io.BytesIO(image.read()), formats=FORMATS) as opened,
            _one_large if opened.width * opened.height > LARGE else nullcontext(),
        ):
            return _convert(opened)
    except UnidentifiedImageError:
        raise InputError(f"{image.where}: not an image of a known kind ({', '.join(FORMATS)})") from None
    except Exception as error:  # a damaged file may make its decoder raise anything
        raise InputError(
            f"{image.where}: not an image, or a damaged one: {str(error) or type(error).__name__}"
        ) from error


def _convert(opened: Image) -> Image:
    """Rotate an opened image as its EXIF data says, and convert it to RGB."""
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(opened)
    if turned.mode.startswith(("I", "F")):  # 16 bits, which Pillow would clip at 255
        pixels = np.asarray(turned)
        if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65535:
            found = f"{pixels.dtype} from {pixels.min():g} to {pixels.max():g}"
            raise ValueError(f"its pixels are {found}; at most 16 bits are allowed")
        turned = Image.fromarray((pixels // 257).astype(np.uint8))
    return (turned.convert("RGBA") if "transparency" in turned.info else turned).convert("RGB")

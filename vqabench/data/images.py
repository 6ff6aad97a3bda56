"""Images of a folder or a zip, decoded."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vqabench.data.annotations import ImageId
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
    size: int
    """Bytes."""
    read: Callable[[], bytes]


def list_images(source: Path) -> list[ImageFile]:
    """List the images of a folder, with those below it, or of a zip, in the order of their names.

    Raises InputError where there are none, two of them have one id, or only some have numbers for ids.
    """
    if source.is_dir():
        found = [
            ImageFile(_id(path.stem), str(path), path.stat().st_size, path.read_bytes) for path in _walk(source)
        ]
    elif source.is_file():
        found = _list_archive(source)
    else:
        raise InputError(f"{source}: there is no such folder of images")
    if not found:
        raise InputError(f"{source}: holds no images ({', '.join(ENDINGS)})")
    seen: dict[ImageId, str] = {}
    for image in found:
        if image.image_id in seen:
            raise InputError(f"{seen[image.image_id]} and {image.name} are both image {image.image_id}")
        seen[image.image_id] = image.name
    named = [name for image_id, name in seen.items() if isinstance(image_id, str)]
    if 0 < len(named) < len(found):
        raise InputError(f"{named[0]}: its name is no number, but those of other images are")
    return found


def decode(image: ImageFile) -> Image:
    """Decode an image to RGB, turned as its camera was held. Raises InputError where that cannot be."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(image.read())) as opened:
            turned = ImageOps.exif_transpose(opened)
            return (turned.convert("RGBA") if "transparency" in turned.info else turned).convert("RGB")
    except (*UNREADABLE, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{image.name}: not an image, or a damaged one: {error}") from error


def _walk(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())


def _list_archive(path: Path) -> list[ImageFile]:
    try:
        members = list_members(path, ENDINGS)
    except UNREADABLE as error:
        raise InputError(f"{path}: neither a folder nor a zip of images: {error}") from error
    return [
        ImageFile(_id(PurePosixPath(member.name).stem), f"{path}::{member.name}", member.size, member.read)
        for member in members
    ]


def _id(stem: str) -> ImageId:
    return name_image(stem, ())

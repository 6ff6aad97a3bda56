"""Find the image that a name stands for, by one rule for all sources of features, maps and image files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from vqabench.data.vqa.annotations import ImageId

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LARGEST_ID = 2**63 - 1
"""HDF5 keeps numbers in 64 bits: larger ones stay text."""

Finder = Callable[[ImageId | str], ImageId | None]
"""Returns the image that a name stands for; None if it is not a wanted one."""

_BYTES = re.compile(r"""b(['"])(.*)\1""", re.DOTALL)
_ENDING = re.compile("|".join(re.escape(ending) for ending in IMAGE_ENDINGS) + "$", re.IGNORECASE)
_SELF_NAMED = re.compile(r"(?:.*[/\\])?(?:COCO|abstract_v[0-9]+)_[A-Za-z0-9-]+_([0-9]+)")
"""Names of COCO and of VQA's abstract scenes hold the image's number after any split and folder."""
_WHOLE = re.compile(r"-?[0-9]+")


def canonical_name(name: str) -> ImageId:
    """Return the image that a name stands for: `COCO_val2014_000000000042.jpg` and `42` are both image 42.

    `b'...'`, which Python 3 writes for bytes, spaces around the name and the ending of an image file are ignored.
    A name that is not a number is returned as text: `VizWiz_val_00000042` and `VizWiz_train_00000042` differ.
    """
    name = plain_name(name)
    match = _SELF_NAMED.fullmatch(name)
    digits = match[1] if match else name
    if _WHOLE.fullmatch(digits) and len(digits) < 40:
        number = int(digits)
        if -LARGEST_ID - 1 <= number <= LARGEST_ID:
            return number
    return name


def plain_name(name: str) -> str:
    """Strip `b'...'`, spaces, and the ending of an image file."""
    name = name.strip()
    quoted = _BYTES.fullmatch(name)
    return _ENDING.sub("", quoted[2] if quoted else name)


def make_finder(image_ids: Iterable[ImageId]) -> Finder:
    """Return a function that returns which of some images a name stands for, or None."""
    exact = set(image_ids)
    canonical: dict[ImageId, ImageId | None] = {}
    for image_id in exact:
        name = canonical_name(str(image_id))
        # None: two ids have the same canonical name, such as '07' and '7', so only the exact name is matched.
        canonical[name] = None if name in canonical else image_id

    def find(name: ImageId | str) -> ImageId | None:
        if name in exact:
            return name
        if isinstance(name, str) and (plain := plain_name(name)) in exact:
            return plain
        return canonical.get(canonical_name(str(name)))

    return find

"""An in-domain validation split, carved from the training split by image."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import msgspec

from vqabench.data.annotations import ImageId


class Carving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of the training split becomes the validation split."""

    share: float
    """Of the training images, in (0, 1)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1, not {self.share}")

    def choose(self, images: Collection[ImageId]) -> set[ImageId]:
        """Choose images. Each is drawn by its own name, whatever others there are."""
        return {image for image in images if self._draw(image) < self.share}

    def _draw(self, image: ImageId) -> float:
        digest = hashlib.sha256(f"{self.seed}:{image}".encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64

"""Strings as numbers: what millions of records repeat is looked at once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray


class Numbering(dict[str, int]):
    """Numbers strings from 0, in the order of their first appearance."""

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        return number

    def number(self, texts: Collection[str]) -> NDArray[np.int32]:
        """Give the number of each string, a new one where it is new: [N]."""
        return np.fromiter(map(self.__getitem__, texts), np.int32, len(texts))

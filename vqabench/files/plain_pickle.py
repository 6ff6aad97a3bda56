"""Load pickles of numbers, text, lists, dicts and numpy arrays; anything else is refused.

A pickle may name any function and call it. Here only the names that numpy arrays need are known, and each stands
for a class or function of this module: no code of numpy or another library is called with data of the file.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

_PLAIN = re.compile(r"[<>|=]?([biufSU][0-9]{1,4}|O8?)")


class PlainDtype:
    """A type of numbers or text, or `O` for a list of plain objects."""

    def __init__(self, spelled: str = "", *_: object) -> None:
        if not isinstance(spelled, str) or not _PLAIN.fullmatch(spelled):
            raise pickle.UnpicklingError(f"an array of {str(spelled)[:20]!r}; only numbers and text are allowed")
        self.dtype = np.dtype(spelled)

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and state[1:2] == (">",):
            self.dtype = self.dtype.newbyteorder(">")


class PlainArray:
    """An array, made from a shape and bytes that match it."""

    def __init__(self, *_: object) -> None:
        self.array: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array in a form that numpy does not write")
        _, shape, kind, by_columns, content = state
        self.array = make_array(content, kind, shape, "F" if by_columns else "C")


def make_array(content: object, kind: object, shape: object, order: str) -> NDArray[Any]:
    """Make an array. Raises UnpicklingError if the size of the content does not match the shape."""
    sides = shape if isinstance(shape, tuple) else (shape,)
    if not isinstance(kind, PlainDtype) or not all(type(side) is int and side >= 0 for side in sides):
        raise pickle.UnpicklingError("an array without a shape or a type")
    size, dtype = math.prod(sides), kind.dtype
    if dtype.kind == "O":
        if not isinstance(content, list) or len(content) != size:
            raise pickle.UnpicklingError(f"an array of {size} things that holds others")
        array = np.empty(size, object)
        array[:] = [unwrap(item) for item in content]
        return array.reshape(sides)
    if isinstance(content, str):
        content = content.encode("latin-1")
    if not isinstance(content, bytes | bytearray) or len(content) != size * dtype.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {list(sides)} whose bytes are not as many")
    return np.frombuffer(content, dtype).reshape(sides, order="F" if order == "F" else "C")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PlainArray,
    ("numpy", "dtype"): PlainDtype,
    # Pickle protocols before 3 write bytes as text.
    ("_codecs", "encode"): lambda text, *_: text.encode("latin-1"),
    ("collections", "OrderedDict"): OrderedDict,
} | {
    (f"numpy.{core}.{module}", name): stand_in
    for core in ("core", "_core")
    for module, name, stand_in in (
        ("multiarray", "_reconstruct", PlainArray),
        ("multiarray", "scalar", lambda kind, content: make_array(content, kind, (), "C")[()]),
        ("numeric", "_frombuffer", make_array),
    )
}
NAMES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (stand_in, ".".join(name)) for name, stand_in in _KNOWN.items() if name[0] != "collections"
]
"""The stand-ins for the names of numpy, for `torch.serialization.safe_globals`."""


class _Unpickler(pickle._Unpickler):  # not the one in C, which allocates any size that a few bytes name
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def load_build(self: Any) -> None:
        if not isinstance(self.stack[-2], PlainArray | PlainDtype):
            raise pickle.UnpicklingError("it changes something that is not an array")
        pickle._Unpickler.dispatch[pickle.BUILD[0]](self)

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it refers to {module}.{name}; only numbers, text, lists, dicts and arrays are allowed"
            ) from None


def load_plain(content: bytes) -> Any:
    """Load a pickle. May raise any exception if it is broken or not plain."""
    stream = io.BytesIO(content)
    return unwrap(_Unpickler(stream, encoding="latin-1").load())


def unwrap(value: Any) -> Any:
    """Replace stand-ins by their arrays, also in a dict, and in an array of one dict."""
    if isinstance(value, PlainArray):
        value = value.array
    if isinstance(value, np.ndarray) and value.dtype.kind == "O" and value.size == 1:
        return unwrap(value.reshape(-1)[0])
    if isinstance(value, dict):
        return {key: item.array if isinstance(item, PlainArray) else item for key, item in value.items()}
    return value

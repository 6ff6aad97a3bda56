"""What a catalogue says of files that can be fetched, and of what they are to hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]


class SourceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file that can be fetched: where from, and how it is known to be the right one."""

    urls: tuple[str, ...]
    """Mirrors, the best one first."""
    sha256: str | None = None
    git_blob: str | None = None
    """The id that git gives the content: SHA-1 of `blob <size>`, a zero byte, and the content."""
    size: Count | None = None
    """In bytes."""

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("urls must name at least one mirror")
        for url in self.urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
                raise ValueError(f"urls: {url!r} is no http or https address")
        _check_digest("sha256", self.sha256, 64)
        _check_digest("git_blob", self.git_blob, 40)

    @property
    def has_checksum(self) -> bool:
        """Tell whether the right content is known to the byte."""
        return bool(self.sha256 or self.git_blob)


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much a split is to hold, as published; validation is counted where it is carved from."""

    questions: Count | None = None
    images: Count | None = None
    """That are asked about."""
    answers: Count | None = None
    """Of all annotators together."""

    def find_difference(self, found: Counts) -> str | None:
        """Tell the first count that is not as it is expected here; None where all are."""
        for key in self.__struct_fields__:
            wanted, there = getattr(self, key), getattr(found, key)
            if wanted not in (None, there):
                return f"holds {there:,} {key}, but the catalogue expects {wanted:,}"
        return None


class Derivation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"parent": "from"}):
    """Another data set and the list of test questions that split it anew: VQA and its list make VQA-CP."""

    parent: str
    test_ids: str
    """A file of this data set's `files`."""


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError where a name of a file could lead out of its folder, or hide in it."""
    for name in names:
        if not re.fullmatch(r"\w[\w.-]{0,199}", name):
            raise ValueError(
                f"files: {name!r} is not a valid file name: up to 200 letters, digits, '.', '_' and '-' only"
            )
        if name == "fetched.json":
            raise ValueError(f"files: {name!r} is the name of the record of what was fetched")


def _check_digest(name: str, digest: str | None, length: int) -> None:
    if digest is not None and not re.fullmatch(rf"[0-9a-f]{{{length}}}", digest):
        raise ValueError(f"{name} must be {length} hexadecimal digits in lower case, not {digest!r}")

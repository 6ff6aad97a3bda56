"""What is there of a download that is not whole yet."""

from __future__ import annotations

from pathlib import Path

import msgspec

from vqabench.results import write_file


class Origin(msgspec.Struct, frozen=True):
    """Where the bytes of a part file came from."""

    url: str
    etag: str | None
    """Only a strong one: a weak one does not vouch for bytes."""
    size: int | None
    """Of the whole file, where the server told."""


class PartFile:
    """The bytes, and a note beside them of where they came from."""

    def __init__(self, folder: Path, name: str) -> None:
        self.content = folder / f"{name}.part"
        self.note = folder / f"{name}.part.json"

    def size(self) -> int:
        """Give how many bytes are there."""
        return self.content.stat().st_size if self.content.is_file() else 0

    def origin(self) -> Origin | None:
        """Read the note; None where there is none that can be read."""
        try:
            return msgspec.json.decode(self.note.read_bytes(), type=Origin)
        except (OSError, msgspec.DecodeError):
            return None

    def begin(self, origin: Origin) -> None:
        """Drop what is there, and note where the bytes to come are from."""
        self.content.write_bytes(b"")  # before the note: it must never vouch for older bytes
        write_file(self.note, msgspec.json.encode(origin))

    def clear(self) -> None:
        """Delete both."""
        self.content.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

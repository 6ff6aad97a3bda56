"""Downloads over bad networks: mirrors in turn, retries, and going on where a transfer broke off.

pooch knows which file is to come from where, puts it in its place at once or not at all, and compares the SHA-256;
the transfer itself is ours, because pooch begins each one anew.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pooch
import requests

from vqabench import __version__
from vqabench.data.integrity import CHECKED_WHOLE, find_fault, looks_like_web_page
from vqabench.data.part_file import Origin, PartFile
from vqabench.data.sources import SourceFile
from vqabench.errors import VqabenchError

CHUNK = 1 << 14
PROGRESS = 1 << 20
"""Bytes that an attempt must bring for the count of vain ones to begin anew."""
LONGEST_PAUSE = 30.0
BUSY = (408, 425, 429)
"""Statuses that ask for another attempt, as all above 500 do."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for; seconds."""

    attempts: int = 4
    """That bring nothing, one after the other, until a mirror is given up."""
    connect: float = 10.0
    read: float = 30.0
    """Between two pieces of a file."""
    pause: float = 1.0
    """Before the second attempt; doubled before each further one."""


class Watcher(Protocol):
    """Hears of downloads as they go."""

    def say(self, message: str) -> None:
        """Hear a line of information."""

    def warn(self, message: str) -> None:
        """Hear a line that the user should not miss."""

    def start(self, name: str, done: int, total: int | None) -> None:
        """Hear that a transfer begins, or goes on behind `done` bytes of `total`."""

    def advance(self, size: int) -> None:
        """Hear that so many bytes more are there."""

    def stop(self) -> None:
        """Hear that the transfer has ended, in whatever way."""


class _TryAgainError(Exception):
    """Another attempt may succeed."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _MirrorError(Exception):
    """No further attempt at the mirror will bring the file."""


def download(name: str, file: SourceFile, folder: Path, watcher: Watcher, patience: Patience) -> tuple[Path, str]:
    """Fetch a file into `folder`; gives it, checked, and the mirror it came from.

    Stopped in whatever way, it goes on with the next call. Raises VqabenchError where no mirror gives the file or
    the disk has no room.
    """
    failures = []
    for number, url in enumerate(file.urls, 1):
        try:
            return _Mirror(name, file, url, folder, watcher, patience).fetch(), url
        except _MirrorError as reason:
            failures.append(f"{url}: {reason}")
            if number < len(file.urls):
                watcher.warn(f"{failures[-1]}; trying the next mirror")
        except OSError as error:
            raise VqabenchError(f"{folder / name}: cannot be written: {error.strerror or error}") from error
    raise VqabenchError(
        f"{name} could not be fetched: {'; '.join(failures)}. The same command tries again; "
        "a file that you have is taken with --from DIR"
    )


class _Mirror:
    """One file at one address; a downloader as pooch calls them."""

    def __init__(
        self, name: str, file: SourceFile, url: str, folder: Path, watcher: Watcher, patience: Patience
    ) -> None:
        self.name, self.file, self.url, self.watcher, self.patience = name, file, url, watcher, patience
        self.part = PartFile(folder, name)
        self.doubtful = False
        """Whether what was transferred may be wrong though the mirror is right."""
        known = f"sha256:{file.sha256}" if file.sha256 else None
        self.store = pooch.Pooch(folder, base_url="", registry={name: known}, urls={name: url})
        pooch.get_logger().setLevel(logging.WARNING)  # the watcher hears all that is to be said

    def fetch(self) -> Path:
        """Attempt it until it succeeds or several attempts in a row were in vain. Raises _MirrorError."""
        vain, most = 0, self.part.size()
        while True:
            try:
                return self._attempt()
            except _TryAgainError as reason:
                vain = 1 if self.part.size() >= most + PROGRESS else vain + 1
                most = max(most, self.part.size())
                if vain >= self.patience.attempts:
                    raise _MirrorError(f"{reason} ({vain} attempts)") from None
                self.watcher.say(f"{self.name}: {reason}; trying again")
                time.sleep(min(max(self.patience.pause * 2**vain / 2, reason.pause), LONGEST_PAUSE))

    def _attempt(self) -> Path:
        self.doubtful = True  # unless it is transferred now, in one go
        try:
            path = Path(self.store.fetch(self.name, downloader=self))
        except ValueError:  # pooch's word for another SHA-256; it has deleted the file
            fault: str | None = "its SHA-256 is not the one in the catalogue"
        else:
            fault = find_fault(path, self.name, self.file)
            if fault is None:
                return path
            path.unlink()
        if self.doubtful:
            raise _TryAgainError(f"what came is not the file: {fault}")
        raise _MirrorError(f"what came is not the file: {fault}")

    def __call__(self, url: str, output_file: str, store: object, check_only: bool = False) -> None:
        """Transfer the file to where pooch wants it, going on where an earlier attempt broke off."""
        have = self._usable()
        self.doubtful = have > 0
        origin = self.part.origin()
        if not (have and origin and origin.size == have):  # else only its renaming was missed
            self._transfer(have, origin.etag if have and origin else None)
        self.part.content.replace(output_file)
        self.part.clear()

    def _usable(self) -> int:
        """Give how many bytes of the part file the mirror can go on behind."""
        origin = self.part.origin()
        if origin is None or origin.url != self.url or not (origin.etag or self.file.has_checksum):
            return 0
        return self.part.size()

    def _transfer(self, have: int, etag: str | None) -> None:
        headers = {"Accept-Encoding": "identity", "User-Agent": f"vqabench/{__version__}"}
        headers |= {"Range": f"bytes={have}-"} if have else {}
        headers |= {"If-Range": etag} if have and etag else {}
        limits = self.patience.connect, self.patience.read
        try:
            with requests.get(self.url, headers=headers, stream=True, timeout=limits) as response:
                self._receive(response, have)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _TryAgainError(self._spell(error)) from error
        except requests.exceptions.InvalidSchema as error:
            raise _MirrorError("leads to an address that is neither http nor https") from error
        except (requests.RequestException, UnicodeError) as error:  # the latter: a host that is no name
            raise _MirrorError(self._spell(error)) from error
        finally:
            self.watcher.stop()

    def _receive(self, response: requests.Response, have: int) -> None:
        self._check_answer(response, have)
        goes_on = response.status_code == 206
        have = have if goes_on else 0
        total = self._total(response, goes_on)
        self._check_room((total or self.file.size or 0) - have)
        chunks = response.iter_content(CHUNK)
        first = next(chunks, b"")
        if not goes_on:
            if looks_like_web_page(first):
                raise _MirrorError("answers with a web page instead of the file")
            self.part.begin(Origin(self.url, _strong(response.headers.get("ETag")), total))
        self.watcher.start(self.name, have, total)
        with self.part.content.open("ab") as stream:
            while first:
                stream.write(first)
                self.watcher.advance(len(first))
                first = next(chunks, b"")
        if total is not None and self.part.size() != total:
            raise _TryAgainError(f"broke off at {self.part.size():,} of {total:,} bytes")

    def _check_answer(self, response: requests.Response, have: int) -> None:
        """Raise _TryAgainError or _MirrorError unless the answer is the file, or the rest of it."""
        status, headers = response.status_code, response.headers
        if status >= 500 or status in BUSY:
            raise _TryAgainError(f"answers {status} {response.reason}", _seconds(headers.get("Retry-After")))
        if (status == 206 and not self._fits(response, have)) or (status == 416 and have):
            self.part.clear()
            raise _TryAgainError("the file there is no longer the one that was begun")
        if status not in (200, 206):
            raise _MirrorError(f"answers {status} {response.reason}")
        if "text/html" in headers.get("Content-Type", ""):
            raise _MirrorError("answers with a web page instead of the file")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise _MirrorError(f"sends it packed as {headers['Content-Encoding']}, so that it cannot be checked")

    def _fits(self, response: requests.Response, have: int) -> bool:
        """Tell whether a part of a file is the one that goes on where ours ends."""
        origin = self.part.origin()
        first, total = _range(response)
        if not have or origin is None or first != have or (origin.size or total) != total:
            return False
        etag = _strong(response.headers.get("ETag"))
        return etag == origin.etag if etag or not self.file.has_checksum else True

    def _total(self, response: requests.Response, goes_on: bool) -> int | None:
        """Give the size of the whole file, where it is told. Raises _MirrorError where it cannot be right."""
        told = response.headers.get("Content-Length", "")
        total = _range(response)[1] if goes_on else int(told) if told.isdigit() else None
        size = self.file.size
        if total is not None and size is not None and total != size:
            raise _MirrorError(f"has {total:,} bytes there, but {size:,} in the catalogue")
        if total is None and "chunked" not in response.headers.get("Transfer-Encoding", ""):
            if not (self.file.has_checksum or size or self.name.endswith(CHECKED_WHOLE)):
                raise _MirrorError(
                    "tells no size, and the catalogue no checksum: nothing shows whether it is whole"
                )
            self.doubtful = True
        return total

    def _check_room(self, needed: int) -> None:
        folder = self.part.content.parent
        free = shutil.disk_usage(folder).free
        if needed <= free:
            return
        room = f"no room for {self.name} in {folder}: {needed / 1e6:,.1f} MB to come, {free / 1e6:,.1f} MB free"
        if self.file.size is None:  # perhaps the mirror's mistake
            raise _MirrorError(room)
        raise VqabenchError(f"{room}; --data-dir names another folder")

    def _spell(self, error: Exception) -> str:
        text = str(error)
        if isinstance(error, requests.exceptions.ProxyError):
            return "the proxy cannot be reached, or does not let it through"
        for sign, told in (
            ("NameResolution", "the server's name cannot be resolved; is there a network?"),
            ("refused", "the connection is refused"),
            ("timed out", "no answer in time"),
            ("CERTIFICATE", "its certificate cannot be trusted"),
        ):
            if sign in text:
                return told
        known = isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError)
        return f"the connection broke off at {self.part.size():,} bytes" if known else text.rstrip(".")


def _strong(etag: str | None) -> str | None:
    return None if etag is None or etag.startswith("W/") else etag


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """Give the first byte and the whole size that `Content-Range` tells."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
    return (int(match[1]), int(match[2])) if match else (None, None)


def _seconds(told: str | None) -> float:
    return float(told) if told and told.isdigit() else 0.0

"""Download files over unreliable networks: several mirrors, retries, and resumed transfers."""

from __future__ import annotations

import ipaddress
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec
import requests

from vqabench import __version__
from vqabench.data.catalog.entries import SourceFile
from vqabench.data.catalog.integrity import CHECKED_WHOLE, find_fault, looks_like_web_page
from vqabench.errors import VqabenchError
from vqabench.events import BytesReceived, DownloadEnded, DownloadStarted, Emit, Warn
from vqabench.files.atomic import write_file


class PartOrigin(msgspec.Struct, frozen=True):
    """Where the bytes of a partial file came from."""

    url: str
    etag: str | None
    """Only a strong one: a weak ETag does not guarantee the same bytes."""
    size: int | None
    """Of the whole file; None if the server did not state it."""


class PartFile:
    """The received bytes, and a file next to them that names their origin."""

    def __init__(self, folder: Path, name: str) -> None:
        self.content = folder / f"{name}.part"
        self.note = folder / f"{name}.part.json"

    def size(self) -> int:
        """Return the number of bytes received."""
        return self.content.stat().st_size if self.content.is_file() else 0

    def origin(self) -> PartOrigin | None:
        """Read the origin; None if there is none or it is damaged."""
        try:
            return msgspec.json.decode(self.note.read_bytes(), type=PartOrigin)
        except (OSError, msgspec.DecodeError):
            return None

    def begin(self, origin: PartOrigin) -> None:
        """Delete the received bytes, and record the origin of the next ones."""
        self.content.write_bytes(b"")  # first, because the new origin must never stand for the old bytes
        write_file(self.note, msgspec.json.encode(origin))

    def clear(self) -> None:
        """Delete both files."""
        self.content.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


CHUNK = 1 << 14
PROGRESS = 1 << 20
"""Bytes that an attempt must receive to reset the count of failed attempts."""
LONGEST_PAUSE = 30.0
MOST_REDIRECTS = 10
BUSY = (408, 425, 429)
"""Statuses to retry, like all from 500 on."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often to retry a mirror, and how long to wait for it; times in seconds."""

    attempts: int = 4
    """Consecutive attempts without progress before the next mirror is tried."""
    connect: float = 10.0
    read: float = 30.0
    """For the next byte."""
    stall: float = 60.0
    """For the next CHUNK bytes, or the headers of the response."""
    pause: float = 1.0
    """Before the second attempt; doubled before each later one."""


class _TryAgainError(Exception):
    """Another attempt may succeed."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _MirrorError(Exception):
    """Another attempt at this mirror cannot succeed."""


def download(name: str, file: SourceFile, folder: Path, emit: Emit, retry: RetryPolicy) -> tuple[Path, str]:
    """Download a file into `folder`; return its path, verified, and the URL it came from.

    If interrupted, the next call continues. Raises VqabenchError if no mirror provides the file or the disk is
    full.
    """
    failures = []
    for number, url in enumerate(file.urls, 1):
        try:
            return _Mirror(name, file, url, folder, emit, retry).fetch(), url
        except _MirrorError as reason:
            failures.append(f"{url}: {reason}")
            if number < len(file.urls):
                emit(Warn(f"{failures[-1]}; trying the next mirror"))
        except OSError as error:
            raise VqabenchError(f"{folder / name}: cannot be written: {error.strerror or error}") from error
    raise VqabenchError(
        f"{name} could not be fetched: {'; '.join(failures)}. Rerun the same command to try again; "
        "use --from DIR for files that you already have"
    )


class _Mirror:
    """One file at one URL."""

    def __init__(self, name: str, file: SourceFile, url: str, folder: Path, emit: Emit, retry: RetryPolicy) -> None:
        self.name, self.file, self.url, self.emit, self.retry = name, file, url, emit, retry
        self.part = PartFile(folder, name)
        self.have = 0
        """Received bytes after which this attempt continues."""
        self.origin: PartOrigin | None = None
        """Of these bytes."""
        self.doubtful = False
        """Whether the received bytes may be wrong even if the mirror has the right file."""

    def fetch(self) -> Path:
        """Try until it succeeds or several attempts in a row fail. Raises _MirrorError."""
        failed, most = 0, self.part.size()
        while True:
            try:
                return self._attempt()
            except _TryAgainError as reason:
                failed = 1 if self.part.size() >= most + PROGRESS else failed + 1
                most = max(most, self.part.size())
                if failed >= self.retry.attempts:
                    raise _MirrorError(f"{reason} ({failed} attempts)") from None
                self.emit(f"{self.name}: {reason}; trying again")
                time.sleep(min(max(self.retry.pause * 2**failed / 2, reason.pause), LONGEST_PAUSE))

    def _attempt(self) -> Path:
        self.have, self.origin = 0, self.part.origin()
        origin = self.origin
        if origin and origin.url == self.url and (origin.etag or self.file.has_checksum):
            self.have = self.part.size()
        self.doubtful = self.have > 0  # otherwise all bytes come from one response
        # If all bytes are there, a process was killed before the check and the renaming below.
        if not (self.have and origin and origin.size == self.have):
            self._transfer()
        fault = find_fault(self.part.content, self.name, self.file)
        if fault is None:
            path = self.part.content.with_name(self.name)
            self.part.content.replace(path)
            self.part.clear()
            return path
        self.part.clear()
        message = f"the download is not the expected file: {fault}"
        raise _TryAgainError(message) if self.doubtful else _MirrorError(message)

    def _transfer(self) -> None:
        headers = {"Accept-Encoding": "identity", "User-Agent": f"vqabench/{__version__}"}
        if self.have and self.origin:
            headers["Range"] = f"bytes={self.have}-"
            if self.origin.etag:
                headers["If-Range"] = self.origin.etag
        guard = _Guard(self.retry.stall)
        try:
            with guard.watching(), self._open(headers, guard) as response:
                guard.feed()
                self._receive(response, guard)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _TryAgainError(guard.message or self._describe(error)) from error
        except (requests.RequestException, ValueError) as error:  # ValueError: an invalid URL
            raise _MirrorError(self._describe(error)) from error
        finally:
            self.emit(DownloadEnded())

    def _open(self, headers: dict[str, str], guard: _Guard) -> requests.Response:
        """Request the file, following redirects that `_follow` allows."""
        url, limits = self.url, (self.retry.connect, self.retry.read)
        with requests.Session() as session:
            session.mount("http://", guard)
            session.mount("https://", guard)
            for _ in range(MOST_REDIRECTS):
                response = session.get(url, headers=headers, stream=True, timeout=limits, allow_redirects=False)
                if not response.is_redirect:
                    return response
                response.close()
                url = self._follow(url, response.headers["Location"])
        raise _MirrorError(f"redirects more than {MOST_REDIRECTS} times")

    def _follow(self, url: str, location: str) -> str:
        """Return the target of a redirect. Raises _MirrorError if it leaves http, TLS or the public network."""
        try:
            target = urljoin(url, location)
            here, there = urlsplit(url), urlsplit(target)
            host = there.hostname
        except ValueError as error:
            raise _MirrorError(f"redirects to an invalid address: {_clean(location)}") from error
        if there.scheme not in ("http", "https") or not host:
            raise _MirrorError(f"redirects to an address that is neither http nor https: {_clean(target)}")
        if here.scheme == "https" and there.scheme == "http" and not self.file.has_checksum:
            raise _MirrorError("redirects from https to http, and the catalogue has no checksum for the file")
        if _is_private(host) and not _is_private(urlsplit(self.url).hostname or ""):
            raise _MirrorError(f"redirects to {_clean(host)}, an address of a private network")
        return target

    def _receive(self, response: requests.Response, guard: _Guard) -> None:
        self._check_response(response)
        continues = response.status_code == 206
        have = self.have if continues else 0
        total = self._total(response, continues)
        limit = total or self.file.size
        self._check_space((limit or 0) - have)
        # If the size is unknown, a tenth of the disk is kept free.
        most = limit or int(0.9 * shutil.disk_usage(self.part.content.parent).free)
        chunks = response.iter_content(CHUNK)
        chunk = next(chunks, b"")
        if not continues:
            if looks_like_web_page(chunk):
                raise _MirrorError("answers with a web page instead of the file")
            self.part.begin(PartOrigin(self.url, _strong(response.headers.get("ETag")), total))
        self.emit(DownloadStarted(self.name, have, total))
        with self.part.content.open("ab") as stream:
            while chunk:
                have += len(chunk)
                if have > most:
                    self.part.clear()
                    what = "its" if limit else "there is space for:"
                    raise _MirrorError(f"sends more than {what} {most:,} bytes")
                stream.write(chunk)
                self.emit(BytesReceived(len(chunk)))
                guard.feed()
                chunk = next(chunks, b"")
        if guard.message:
            raise _TryAgainError(guard.message)
        if total is not None and self.part.size() != total:
            raise _TryAgainError(f"broke off at {self.part.size():,} of {total:,} bytes")

    def _check_response(self, response: requests.Response) -> None:
        """Raise _TryAgainError or _MirrorError unless the response is the file, or the rest of it."""
        status, headers = response.status_code, response.headers
        if status >= 500 or status in BUSY:
            raise _TryAgainError(
                f"answers {status} {_clean(response.reason)}", _number(headers.get("Retry-After")) or 0
            )
        if (status == 206 and not self._fits(response)) or (status == 416 and self.have):
            self.part.clear()
            raise _TryAgainError("the file on the server has changed since the download began")
        if status not in (200, 206):
            raise _MirrorError(f"answers {status} {_clean(response.reason)}")
        if "text/html" in headers.get("Content-Type", ""):
            raise _MirrorError("answers with a web page instead of the file")
        if headers.get("Content-Encoding", "identity") != "identity":
            packed = _clean(headers["Content-Encoding"])
            raise _MirrorError(f"sends it compressed with {packed}, so its size cannot be checked")

    def _fits(self, response: requests.Response) -> bool:
        """Return whether a partial response continues the received bytes."""
        first, total = _range(response)
        if not self.have or self.origin is None or first != self.have or self.origin.size not in (None, total):
            return False
        etag = _strong(response.headers.get("ETag"))
        return etag == self.origin.etag or (etag is None and self.file.has_checksum)

    def _total(self, response: requests.Response, continues: bool) -> int | None:
        """Return the size of the whole file, if stated. Raises _MirrorError if it cannot be right."""
        total = _range(response)[1] if continues else _number(response.headers.get("Content-Length"))
        size = self.file.size
        if total is not None and size is not None and total != size:
            raise _MirrorError(f"has {total:,} bytes there, but {size:,} in the catalogue")
        if total is None and "chunked" not in response.headers.get("Transfer-Encoding", ""):
            if not (self.file.has_checksum or size or self.name.endswith(CHECKED_WHOLE)):
                raise _MirrorError(
                    "sends no Content-Length, and the catalogue has no checksum: cannot verify that the download "
                    "is complete"
                )
            self.doubtful = True
        return total

    def _check_space(self, needed: int) -> None:
        folder = self.part.content.parent
        free = shutil.disk_usage(folder).free
        if needed <= free:
            return
        message = f"no space for {self.name} in {folder}: {needed / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free"
        if self.file.size is None:  # the mirror may state a wrong size
            raise _MirrorError(message)
        raise VqabenchError(f"{message}; use --data-dir for another folder")

    def _describe(self, error: Exception) -> str:
        text = str(error)
        if isinstance(error, requests.exceptions.ProxyError):
            return "the proxy cannot be reached, or refuses the connection"
        for sign, message in (
            ("NameResolution", "the server's name cannot be resolved; is there a network?"),
            ("refused", "the connection is refused"),
            ("timed out", "no answer in time"),
            ("CERTIFICATE", "its certificate cannot be trusted"),
        ):
            if sign in text:
                return message
        known = isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError)
        return f"the connection broke off at {self.part.size():,} bytes" if known else _clean(text).rstrip(".")


def _strong(etag: str | None) -> str | None:
    return None if etag is None or etag.startswith("W/") else etag


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """Return the first byte and the whole size that `Content-Range` states."""
    match = re.fullmatch(
        rf"bytes ({_DIGITS})-{_DIGITS}/({_DIGITS})", response.headers.get("Content-Range", "").strip()
    )
    return (int(match[1]), int(match[2])) if match else (None, None)


_DIGITS = "[0-9]{1,18}"  # `\d` matches other scripts' digits, and int() refuses thousands of them


def _number(stated: str | None) -> int | None:
    return int(stated) if stated and re.fullmatch(_DIGITS, stated) else None


def _clean(text: str | None) -> str:
    """Return a server's text without control characters, at most 100 characters."""
    return "".join(mark if mark.isprintable() else " " for mark in text or "")[:100].strip()


def _is_private(host: str) -> bool:
    """Return whether a host is, or resolves to, an address outside the public network.

    A name that cannot be resolved here, for instance because a proxy resolves names, counts as public.
    """
    with suppress(ValueError):
        return not ipaddress.ip_address(host.split("%")[0]).is_global
    try:
        found = {str(info[4][0]).split("%")[0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
    return not all(ipaddress.ip_address(address).is_global for address in found)


class _Guard(requests.adapters.HTTPAdapter):
    """A transport that closes its connections if a transfer is too slow.

    The timeout of a socket is not enough: it restarts with every byte.
    """

    def __init__(self, stall: float) -> None:
        super().__init__()
        self.stall = stall
        self.sockets: list[socket.socket] = []
        self.message = ""
        """Why it closed the connections; empty if it did not."""
        self.fed = time.monotonic()
        self.done = threading.Event()

    def feed(self) -> None:
        """Restart the time limit."""
        self.fed = time.monotonic()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the block ends."""
        self.feed()
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.done.set()
            thread.join()

    def _watch(self) -> None:
        while not self.done.wait(min(1.0, self.stall / 4)):
            if time.monotonic() - self.fed > self.stall:
                self.message = f"sends less than {CHUNK:,} bytes in {self.stall:g} seconds"
                for one in list(self.sockets):
                    with suppress(OSError):
                        # Not `one.shutdown`: that of a TLS socket would continue in plain text.
                        socket.socket.shutdown(one, socket.SHUT_RDWR)

    def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
        """Return a pool whose connections are recorded."""
        pool: Any = super().get_connection_with_tls_context(*args, **named)
        kind, sockets = pool.ConnectionCls, self.sockets

        class Watched(kind):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        pool.ConnectionCls = Watched
        return pool

"""A real HTTP server on loopback that misbehaves on request."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HTML = b"<!DOCTYPE html><html><body>Sorry</body></html>"


@dataclass
class FileServer:
    """What it serves, and how; each fault is used up by one request, and behind the last one all is well."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """`drop`, `stall`, `short` (closes early, having promised more), `html`, `wrong`, `unnamed` (no ETag),
    `whole` (ignores ranges), `careless` (ignores If-Range), `endless` (no length, breaks off), `flood` and
    `chunked` (send without end), `trickle` (a byte now and then), `slow head` (likewise, of the headers),
    `length X` (states that length), `to URL` (redirects), `reason X` (403, in these words), or a status."""
    successors: dict[str, bytes] = field(default_factory=dict)
    """What a file is changed to behind the first request for it."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and range of every request."""
    url: str = ""
    stall: float = 2.0
    """Seconds."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def address(self, name: str) -> str:
        return f"{self.url}/{name}"


@contextlib.contextmanager
def serving() -> Iterator[FileServer]:
    """Serve until the block ends."""
    state = FileServer()

    class Handler(_Handler):
        server_state = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: FileServer

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._answer()

    def _answer(self) -> None:
        state = self.server_state
        name = self.path.rpartition("/")[2]  # behind a proxy, the whole address
        state.requests.append((self.path, self.headers.get("Range")))
        fault = state.faults.pop(0) if state.faults else ""
        if fault.startswith("to "):
            self.send_response(302)
            self.send_header("Location", fault[3:])
            self.end_headers()
            return
        if fault.startswith("reason "):
            self.send_response(403, fault[7:])
            self.end_headers()
            return
        if fault == "slow head":
            self._trickle(b"HTTP/1.0 200 OK\r\nX-Padding: " + b"a" * 60_000)
            return
        if fault.isdigit() or name not in state.files:
            self.send_error(int(fault or 404))
            return
        content = state.files[name]
        if name in state.successors:
            state.files[name] = state.successors.pop(name)
        self._send(content, fault)

    def _send(self, content: bytes, fault: str) -> None:
        etag = f'"{sha256(content).hexdigest()[:16]}"'
        first = self._first(etag, fault)
        if first >= len(content) > 0 and first:
            self.send_error(416)
            return
        body = HTML if fault == "html" else content[:-9] + b"x" * 9 if fault == "wrong" else content
        body = body[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if fault != "unnamed":
            self.send_header("ETag", etag)
        if fault == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif fault.startswith("length "):
            self.send_header("Content-Length", fault[7:])
        elif fault not in ("endless", "flood"):
            self.send_header("Content-Length", str(len(body) + (50 if fault == "short" else 0)))
        self.end_headers()
        if fault == "trickle":
            self._trickle(body)
        while fault in ("flood", "chunked") and not self.server_state.stopped.is_set():
            self.wfile.write(b"10000\r\n" * (fault == "chunked") + bytes(1 << 16) + b"\r\n" * (fault == "chunked"))
        half = fault in ("drop", "stall", "endless")
        self.wfile.write(body[: len(body) // 2] if half else body)
        self.wfile.flush()
        if fault == "stall":
            self.server_state.stopped.wait(self.server_state.stall)

    def _trickle(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.server_state.stopped.wait(0.1):
                return

    def _first(self, etag: str, fault: str) -> int:
        """Return the first byte of the requested range, if the request may have it."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        held = self.headers.get("If-Range", etag)
        if match is None or fault in ("whole", "html", "wrong", "endless"):
            return 0
        return int(match[1]) if held == etag or fault == "careless" else 0

    def log_message(self, format: str, *args: object) -> None:
        pass

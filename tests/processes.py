"""Processes of the command line that start in milliseconds: forked from one that has imported everything.

To import PyTorch takes a process three seconds, and a test of what a signal does to a process is not about imports.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pty
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

from vqabench.__main__ import main

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    ["pytest", "torch._dynamo", "numpy.random", "vqabench.workflows.training", "vqabench_updn", "tests.processes"]
)


def fork(
    arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str], out: Connection, err: Connection
) -> BaseProcess:
    """Start the command line in a folder, with an environment, and what it prints going to `out` and `err`."""
    process = FORKSERVER.Process(target=_run, args=(arguments, folder, dict(environment), out, err))
    process.start()
    out.close()
    err.close()
    return process


def _run(
    arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str], out: Connection, err: Connection
) -> None:
    """Run the command line in this process, which was just forked."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, connection in ((1, out), (2, err)):
        os.dup2(connection.fileno(), descriptor)
    out.close()
    err.close()
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = ["vqabench", *arguments]
    main()


class Forked:
    """A forked command line, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str]) -> None:
        (out, out_there), (err, err_there) = FORKSERVER.Pipe(duplex=False), FORKSERVER.Pipe(duplex=False)
        self._process = fork(arguments, folder, environment, out_there, err_there)
        self.stdout, self.stderr = _reader(out), _reader(err)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit code, or minus the signal that killed it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, one: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, one)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; return what it has printed since it was last read. After `timeout` seconds, kill it."""
        printed = {}

        def read(stream: io.TextIOWrapper) -> None:
            printed[stream] = stream.read()

        readers = [Thread(target=read, args=(stream,)) for stream in (self.stdout, self.stderr)]
        for reader in readers:
            reader.start()
        self._process.join(timeout)
        is_late = self.poll() is None
        if is_late:
            self.kill()
            self._process.join()
        for reader in readers:
            reader.join()
        self.stdout.close()
        self.stderr.close()
        assert not is_late, f"it was still running after {timeout:.0f} s"
        return printed[self.stdout], printed[self.stderr]


def _reader(connection: Connection) -> io.TextIOWrapper:
    with connection:
        return os.fdopen(os.dup(connection.fileno()), encoding="utf-8", errors="surrogateescape")


def start_pair(arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str]) -> list[Forked]:
    """Start two processes that train one model, with the variables that torchrun sets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    return [Forked(arguments, folder, {**environment, **common, **rank}) for rank in ranks]


def in_terminal(arguments: list[str], folder: Path, **environment: str) -> str:
    """Run the command line in a pseudo-terminal; return what it showed."""
    own, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    inherited |= {"TERM": "xterm-256color", "COLUMNS": "100", "VQABENCH_DATA": str(folder / "data")}
    streams = Connection(theirs), Connection(os.dup(theirs))
    process = fork(tuple(arguments), folder, inherited | environment, *streams)
    shown = b""
    with suppress(OSError):  # on Linux, if the other side is closed
        while read := os.read(own, 65536):
            shown += read
    process.join(timeout=60)
    os.close(own)
    return shown.decode()

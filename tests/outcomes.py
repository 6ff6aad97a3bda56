"""How a command may end."""

from __future__ import annotations

import subprocess


def assert_refused(ended: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    """Check that a command ended with `code`, printed `words` on stderr, and no traceback."""
    assert ended.returncode == code, (ended.returncode, ended.stderr[-2000:])
    assert "Traceback" not in ended.stderr, ended.stderr[-2000:]
    for word in words:
        assert word in ended.stderr, (word, ended.stderr[-2000:])


def assert_done(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a command succeeded, and printed `words` on either stream."""
    assert ended.returncode == 0, (ended.returncode, ended.stderr[-2000:])
    for word in words:
        assert word in ended.stdout + ended.stderr, (word, ended.stdout[-2000:], ended.stderr[-2000:])


def fails(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a command ended with exit code 2 and a single line, which has all of `words`."""
    assert ended.returncode == 2, ended.stderr
    progress = ("preparing", "features of", "rounded")
    (line,) = (line for line in ended.stderr.splitlines() if not line.startswith(progress))
    for word in ("error: ", *words):
        assert word in line

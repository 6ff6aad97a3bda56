"""Import plugins in a separate process first: one that exits or hangs when it is imported does no harm there."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from vqabench.errors import PluginError
from vqabench.files.python_process import child_environment, kill_group, python_command
from vqabench.plugins import BACKBONES, KINDS, LIBRARY, Plugin, find, load

PATIENCE = 30.0
"""Seconds that one plugin may take; the first one also imports PyTorch and may take four times as long."""


def find_broken(plugins: Sequence[Plugin]) -> dict[str, str]:
    """Return why plugins cannot be imported: qualified name -> reason."""
    broken: dict[str, str] = {}
    left = [plugin for plugin in dict.fromkeys(plugins) if plugin.distribution != LIBRARY]
    while left:
        found = _probe(left)
        broken |= {left[number].qualified: problem for number, problem in found.items() if problem}
        left = left[len(found) :]
    return broken


def _probe(plugins: Sequence[Plugin]) -> dict[int, str]:
    """Import plugins one after another, up to the first that ends the process; return what is wrong with each."""
    names = [f"{plugin.group}={plugin.qualified}" for plugin in plugins]
    process = subprocess.Popen(
        python_command("-m", "vqabench.bench.probe", *names),
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    lines: queue.Queue[bytes] = queue.Queue()

    def forward() -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                lines.put(line)
        lines.put(b"")

    threading.Thread(target=forward, daemon=True).start()
    found: dict[int, str] = {}
    try:
        while len(found) < len(plugins):
            seconds = PATIENCE if found else 4 * PATIENCE
            try:
                line = lines.get(timeout=seconds)
            except queue.Empty:
                line, how = b"", f"does not finish within {seconds:.0f} s"
            else:
                how = "ends the process"
            if not line:
                plugin = plugins[len(found)]
                where = f"{KINDS[plugin.group]} {plugin.name!r} of {plugin.distribution} {plugin.version}"
                found[len(found)] = f"{where} cannot be loaded: importing it {how}"
                break
            try:
                _, found[len(found)] = json.loads(line)
            except ValueError:  # printed by a plugin
                continue
    finally:
        kill_group(process)
    return found


def main() -> None:
    """Import the plugins that the arguments name, and print for each what is wrong."""
    from vqabench.training.interruption import stop_without_parent

    stop_without_parent()
    for argument in sys.argv[1:]:
        group, _, name = argument.partition("=")
        problem = ""
        try:
            kind = load(find(group, name))
            with suppress(PluginError):  # without a base of that name it may be built over another one
                load(find(BACKBONES, str(getattr(kind, "default_base", None))))
        except PluginError as error:
            problem = str(error)
        except BaseException as error:
            problem = f"{name} cannot be loaded: {type(error).__name__}: {error}"
        print(json.dumps([name, problem]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

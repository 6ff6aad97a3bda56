"""Calls into plugin code: an error names the plugin and the line, and side effects end with the call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vqabench.errors import OutputError, PluginCrashError, PluginError, VqabenchError, is_interruption
from vqabench.files.resources import is_out_of_memory
from vqabench.plugins import Plugin, contained, find_culprit, one_line
from vqabench.training.plan import Part

ENDINGS = (SystemExit, GeneratorExit, KeyboardInterrupt)
"""Exceptions that end a program or a generator. From a plugin they are failures like any other."""


@contextmanager
def calling(parts: Sequence[Part], action: str, failure: type[VqabenchError] = PluginCrashError) -> Iterator[None]:
    """Run code of these plugins. `action` completes "failed while ...".

    Raises `failure`, which names the plugin, its distribution, file and line, for any exception of their code. Our
    own errors, signals and running out of memory pass unchanged.
    """
    try:
        with contained():
            yield
    except OutputError as error:
        part = next((part for part in parts if part.kind is type(error.culprit)), parts[0])
        raise PluginError(f"{describe(part.plugin)}: {error}; {advice(part.plugin)}") from error
    except VqabenchError:
        raise
    except BaseException as error:
        if is_interruption(error) or is_out_of_memory(error):
            raise
        # An error without a frame of any plugin is ours; only plugins raise what would end the program.
        found = find_culprit(error, [part.plugin for part in parts])
        if found is None and not isinstance(error, ENDINGS):
            raise
        plugin, place = found or (parts[0].plugin, "")
        what = one_line(error)
        if isinstance(error, SystemExit):
            what = f"it tried to exit the program (SystemExit: {one_line(error, kind=False) or 0})"
        message = f"{describe(plugin)} failed while {action}: {what}{place}; {advice(plugin)}"
        raise failure(message) from error


@contextmanager
def building(part: Part, action: str) -> Iterator[None]:
    """Run code of one plugin before a run begins. Its ValueError means an option's value that is not valid.

    Raises PluginError, as `calling` does.
    """
    with calling([part], action, PluginError):
        try:
            yield
        except ValueError as error:
            raise PluginError(f"{describe(part.plugin)}: {one_line(error, kind=False)}") from error
        except OSError as error:
            raise PluginError(f"{describe(part.plugin)} failed while {action}: {one_line(error)}") from error


def describe(plugin: Plugin) -> str:
    """Return a plugin's name and where it comes from."""
    return f"{plugin.name} (from {plugin.distribution})"


def advice(plugin: Plugin) -> str:
    """Return the command that examines a plugin."""
    return f"to test only this plugin: vqabench plugins check {plugin.name}"

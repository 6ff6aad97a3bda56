"""Help: every command has it, with choices and examples that work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer.main

from tests.conftest import CommandLine
from vqabench import config
from vqabench.cli import app

ROOT = typer.main.get_command(app)


def commands(command: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def find(path: tuple[str, ...]) -> Any:
    command: Any = ROOT
    for name in path:
        command = command.commands[name]
    return command


def parse(words: list[str]) -> None:
    """Parse a command line as far as Typer does, without running it."""
    command: Any = ROOT
    path = []
    while hasattr(command, "commands"):
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    command.make_context(" ".join(path), words)


ALL = list(commands())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_under_both_names(cli: CommandLine, path: tuple[str, ...]) -> None:
    long, short = cli(*path, "--help"), cli(*path, "-h")
    assert (long.returncode, short.returncode) == (0, 0)
    assert long.stdout == short.stdout
    assert "<bool>" not in long.stdout
    assert "-h, --help" in long.stdout


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_examples_that_parse(cli: CommandLine, path: tuple[str, ...]) -> None:
    shown = cli(*path, "--help").stdout.partition("\nExamples:\n")[2]
    examples = [shlex.split(line) for line in shown.splitlines() if line.strip()]
    assert 2 <= len(examples) <= 3
    for name, *words in examples:
        assert name == "vqabench"
        assert tuple(words[: len(path)]) == path
        parse(words)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_fits_eighty_columns_and_cuts_no_summary(cli: CommandLine, path: tuple[str, ...]) -> None:
    text = cli(*path, "--help", COLUMNS="80").stdout.partition("\nExamples:\n")[0]
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"\w\.\.\.$", text, re.MULTILINE)


def test_every_option_is_described() -> None:
    for path in ALL:
        for parameter in find(path).params:
            assert parameter.help, (path, parameter.name)


@pytest.mark.parametrize(
    ("command", "option", "kind"),
    [
        ("train", "--objective", config.Objective),
        ("train", "--select", config.Select),
        ("train", "--precision", config.Precision),
        ("train", "--features", config.Features),
        ("train", "--log", config.LogName),
        ("compare", "--metric", None),
        ("compare", "--by", None),
        ("compare", "--format", None),
        ("predict", "--split", None),
        ("evaluate", "--split", None),
    ],
)
def test_choices_stand_next_to_their_option(cli: CommandLine, command: str, option: str, kind: Any) -> None:
    shown = re.search(rf"{option} (\S+)", cli(command, "--help").stdout)
    assert shown
    assert shown[1].count("|") >= 1
    assert kind is None or shown[1].split("|") == list(get_args(kind))


@pytest.mark.parametrize(
    "option", ["--split", "--objective", "--select", "--precision", "--features", "--log", "--device"]
)
def test_the_shell_completes_the_choices_that_help_shows(option: str) -> None:
    found = [
        (parameter, path)
        for path in ALL
        for parameter in find(path).params
        if option in parameter.opts and "|" in (parameter.metavar or "")
    ]
    assert found
    for parameter, path in found:
        offered = [item.value for item in parameter.shell_complete(find(path).context_class(find(path)), "")]
        shown = parameter.metavar.replace("cuda:N", "cuda:0").split("|")
        assert offered == shown, (path, option)


@pytest.mark.parametrize("group", [(), ("data",), ("plugins",)], ids=" ".join)
def test_a_group_alone_shows_its_help_and_is_no_success(cli: CommandLine, group: tuple[str, ...]) -> None:
    done = cli(*group)
    assert (done.returncode, done.stdout) == (2, "")
    assert "\nCommands:\n" in done.stderr

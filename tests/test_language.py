"""The project speaks plain technical English: help, messages, documentation and docstrings."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from vqabench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/README.md")])
SHIPPED = sorted([*ROOT.glob("vqabench/**/*.py"), *ROOT.glob("plugins/*/vqabench_*/**/*.py")])
PYTHON = sorted(
    [
        *SHIPPED,
        *(path for folder in ("tests", "benchmarks", "studies") for path in ROOT.glob(f"{folder}/**/*.py")),
        *ROOT.glob("plugins/*/tests/*.py"),
    ]
)
PROSE_WIDTH = 100

FIRST_WORDS = re.compile(r"(gives?|tells?|hears?|says?|takes? note)\b", re.IGNORECASE)
BANNED = re.compile(
    r"""\b(
        tells | hears | is\ told | are\ told | takes?\ note | it\ is\ said | is\ heard   # programs are no persons
      | beside | whoever | that\ which | such\ a\ one | what\ is\ asked\ of | had\ better | lest
      | (go|goes|going|gone|went)\ on(\ (with|where|at|from|in))? | came?s?\ to\ one
      | no\ claim | claims?\ nothing | claims?\ of\ one
      | say\ it\ again | has\ room | have\ room | turned\ over
      | are\ called\ this | stands?\ (in|beside|above|below|here|there) | says\ wins
      | of\ its\ own\ folder | is\ not\ to\ be | what\ the\ command\ line\ says
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Phrases that this project used once. CONTRIBUTING.md has the words to use instead."""

BANNED_NAMES = re.compile(
    r"(see|spell|tell|hear)_\w+|told|beside|at_once|Labels|Crew|Company|Way|Places|Room|Treatment"
)


def phrases(text: str) -> list[str]:
    """Return the banned phrases in a text, whatever its line breaks."""
    return [found.group() for found in BANNED.finditer(re.sub(r"\s+", " ", text))]


def prose(page: Path) -> str:
    """Return a page without blocks of code, code spans and the addresses of links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", text)


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands(command: Any, name: str = "vqabench") -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name."""
    yield name, command
    for own, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {own}")


@pytest.mark.parametrize(
    ("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in commands(typer.main.get_command(app))]
)
def test_help_has_no_banned_phrase(name: str, command: Any) -> None:
    texts = [
        command.help,
        command.epilog,
        command.short_help,
        *(getattr(one, "help", "") for one in command.params),
    ]
    assert not phrases("\n".join(text for text in texts if text)), name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_no_banned_phrase_and_wraps(page: Path) -> None:
    assert not phrases(prose(page))
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = [
        line for line in text.splitlines() if not line.lstrip().startswith(("|", "![")) and " " in line.strip()
    ]
    assert not [line for line in lines if len(line) > PROSE_WIDTH]


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_no_docstring_begins_with_a_banned_word(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            assert not FIRST_WORDS.match(text), f"{path}:{getattr(node, 'lineno', 1)}: {text}"


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_messages_and_docstrings_have_no_banned_phrase_and_names_are_plain(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not phrases(node.value), f"{path}:{node.lineno}"
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert not BANNED_NAMES.fullmatch(node.name), f"{path}:{node.lineno}"

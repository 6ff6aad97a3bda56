from __future__ import annotations

import io
import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vqabench
from vqabench.reporting.exports import to_json
from vqabench.reporting.output import clean, clean_line, say_json
from vqabench.reporting.terminal import Terminal

VISIBLE = {*"\n\t", *map(chr, [*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD])}
"""Line ends, tabs, and signs around numbers that Unicode counts among formats."""


def test_no_character_that_steers_or_hides_is_left() -> None:
    unsafe = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    marks = [chr(code) for code in range(sys.maxunicode + 1)]
    steering = [mark for mark in marks if unicodedata.category(mark) in unsafe and mark not in VISIBLE]
    assert set(clean("".join(steering))) <= {" ", "\ufffd"}


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u3164\uffa0\u115f\u1160")))
def test_what_can_be_seen_is_left(text: str) -> None:
    assert clean(text) == text


def test_a_line_is_a_line() -> None:
    assert clean_line("a\n  b\r\nerror: c\x85d\te") == "a b error: c d e"


@settings(deadline=None)
@given(st.text())
def test_a_console_prints_text_as_it_stands_but_for_what_steers(text: str) -> None:
    stream = io.StringIO()
    Terminal(file=stream, width=10_000, soft_wrap=True).print(f"[red]{text}[/]")
    assert stream.getvalue().startswith("[red]")
    assert clean(stream.getvalue()) == stream.getvalue()


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["ascii", "latin-1", "utf-8"]))
def test_json_loses_nothing_in_any_encoding(text: str, encoding: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        raw = io.BytesIO()
        patch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        say_json(to_json([text]))
        printed = raw.getvalue().decode(encoding)
    assert json.loads(printed) == [text]
    assert clean(printed) == printed


def test_json_of_names_that_are_no_utf_8_is_json() -> None:
    assert json.loads(to_json({"folder": "run\udcff"})) == {"folder": "run?"}


def test_nothing_is_printed_past_the_one_place() -> None:
    root = Path(vqabench.__file__).parent
    consoles = [path.name for path in root.rglob("*.py") if "Console(" in path.read_text(encoding="utf-8")]
    assert consoles == []  # but the one that is built on it

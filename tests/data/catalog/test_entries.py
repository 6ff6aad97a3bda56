"""Catalogues that are hostile, broken or several: one line that names the file and the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.tiny import write_tiny
from vqabench.data.catalog.dataset import find_dataset
from vqabench.data.catalog.entries import read_catalog
from vqabench.errors import InputError

GOOD = '[a]\ntitle = "A"\nfeatures = "f"\nsplits.train = { questions = "q", annotations = "a" }\n'
LONG = "x" * 300

BROKEN = [
    ("a = 1", "'a' must be a table"),
    ("[[a]]\n", "'a' must be a table"),
    ("[a]\n", "[a]: needs the key title"),
    (GOOD.replace('"A"', "5"), "[a]: title: must be text, not a whole number"),
    (GOOD.replace('"A"', "1979-05-27"), "[a]: title: must be text, not a date"),
    (GOOD.replace('"f"', "7"), "[a]: features: must be a list, not a whole number"),
    (GOOD.replace('"f"', '[["x"]]'), "[a]: features[0]: must be text, not a list"),
    (GOOD.replace('"f"', '""'), "[a]: features: '' is not a valid file name"),
    (GOOD.replace('"q"', "5"), "[a]: splits.train: questions: must be a list"),
    (GOOD.replace('"q"', "[]"), "[a]: splits.train: questions: must be a list of length >= 1"),
    (GOOD.replace('"q"', "[1]"), "[a]: splits.train: questions[0]: must be text"),
    (GOOD.replace('"q"', '"a\\u0000b"'), "[a]: splits.train.questions: 'a\\x00b' is not a valid file name"),
    (GOOD.replace('"q"', f'"{LONG}"'), "[a]: splits.train.questions: 'xxxx"),
    (GOOD + 'word_vectors = "\\u0000"', "[a]: word_vectors: '\\x00' is not a valid file name"),
    (GOOD + "minimum_answer_count = 0", "[a]: minimum_answer_count: must be a whole number >= 1"),
    (
        GOOD + "minimum_answer_count = 1.5",
        "must be a whole number, not a number with a point",
    ),
    (GOOD + "minimum_answer_count = true", "minimum_answer_count: must be a whole number, not true or false"),
    (GOOD + f"minimum_answer_count = {'9' * 5000}", "not a catalogue: a number in it has thousands of digits"),
    (GOOD + "validation = 5", "[a]: validation: must be a table, not a whole number"),
    (GOOD + "validation = {}", "[a]: validation: needs the key share"),
    (GOOD + "validation = { share = nan }", "[a]: validation: share must be above 0"),
    (
        GOOD + "validation = { share = 0.5, seeds = 1 }",
        "unknown key 'seeds': did you mean 'seed'?",
    ),
    (GOOD + "recipe = 5", "[a]: recipe: must be a table"),
    (GOOD + 'vocabulary = "both"', "[a]: vocabulary: Invalid enum value 'both'; valid: train, train+test"),
    (GOOD + 'repeated_questions = "no"', "[a]: repeated_questions: Invalid enum value 'no'; valid: refuse, drop"),
    (GOOD + "files = 5", "[a]: files: must be a table"),
    (GOOD + "files.x = { urls = 5 }", "[a]: files.x: urls: must be a list"),
    (GOOD + 'files.x = { urls = ["http://a/b"], size = -1 }', "[a]: files.x: size: must be a whole number >= 1"),
    (GOOD + 'files.x = { urls = ["http://[::1"] }', "[a]: files.x: Invalid IPv6 URL"),
    (GOOD + f'files."{LONG}" = {{ urls = ["http://a/b"] }}', "[a]: files: 'xxxx"),
    (GOOD + "counts = { tain = { questions = 5 } }", "[a]: counts: unknown split 'tain': did you mean 'train'?"),
    (GOOD.replace("splits.train", "splits.tran"), "[a]: splits: unknown split 'tran': did you mean 'train'?"),
    (GOOD.replace("splits.train = {", "splits = 5\n#"), "[a]: splits: must be a table"),
    (GOOD + "splits.test = {}", "[a]: splits.test: needs the key questions"),
    (GOOD.replace(', annotations = "a"', ""), "[a]: needs [a.splits.train] with questions and annotations"),
    (GOOD + 'titel = "x"', "[a]: unknown key 'titel': did you mean 'title'?"),
    ('["../../x"]\n', "'../../x' is not a valid name of a data set"),
    (f"[{LONG}]\n", "is not a valid name of a data set: up to 100"),
    ("a = " + "[" * 100_000, "not a catalogue: tables are nested too deeply"),
    ("a = {" * 3000, "nested too deeply"),
    ("[a]\nx = \x00", "not a catalogue in TOML"),
    (GOOD + 'title = "B"', "not a catalogue in TOML: Cannot overwrite a value"),
    (b"\xff\xfea\x00", "TOML must be UTF-8, but byte 0 is not"),
    (b'title = "\xe9"', "TOML must be UTF-8, but byte "),
    (b"\x00" * 5_000_000, "larger than 4 MiB"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_catalogue_that_cannot_be_meant_is_told_by_file_and_key(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as raised:
        read_catalog(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "none", "zero byte"])
def test_what_is_no_file_is_no_catalogue(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "own.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "zero byte":
        path = tmp_path / "a\0b"
    with pytest.raises(InputError) as raised:
        read_catalog(path)
    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize("key", ["questions", "annotations", "features", "word_vectors", "object_names"])
@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_named_at_once(
    cli: CommandLine, tmp_path: Path, key: str, target: str
) -> None:
    catalog = write_tiny(tmp_path / "own")
    place = tmp_path / "own" / "odd"
    os.mkfifo(place) if target == "pipe" else place.symlink_to(target)
    text = catalog.read_text()
    if key in ("questions", "annotations"):
        catalog.write_text(text.replace(f"train_{key}.json", "odd"))
    elif key == "features":
        catalog.write_text(text.replace("features.tsv", "odd"))
    else:
        catalog.write_text(text.replace("[tiny]", f'[tiny]\n{key} = "odd"', 1))
    done = cli("data", "prepare", "tiny", "--catalog", catalog)
    assert done.returncode == 2, done.stderr
    assert f"{place}: is a pipe, a device or a socket, not a " in done.stderr


def test_several_catalogues_are_read_together(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    first, second, third = tmp_path / "one.toml", tmp_path / "deep" / "two.toml", tmp_path / "three.toml"
    first.write_text(GOOD)
    second.write_text(GOOD.replace("[a]", "[b]"))
    third.write_text(GOOD.replace('"A"', '"another"'))
    entries = read_catalog([first, second])
    assert {name: entries[name][1] for name in ("a", "b")} == {"a": tmp_path, "b": tmp_path / "deep"}
    assert "vqa-v2" in entries
    assert read_catalog([first, first])["a"] == read_catalog(first)["a"]
    with pytest.raises(InputError, match=r"three.toml: \[a\] is also in .*one.toml; rename one"):
        read_catalog([first, second, third])
    monkeypatch.setenv("VQABENCH_CATALOG", f"{first}{os.pathsep}{second}")
    assert {"a", "b"} < read_catalog(None).keys()
    assert find_dataset("b", None, tmp_path).source == tmp_path / "deep"
    monkeypatch.delenv("VQABENCH_CATALOG")
    done = cli("data", "list", "--catalog", first, "--catalog", second, "--json")
    assert {'"name": "a"', '"name": "b"'} <= {line.strip().rstrip(",") for line in done.stdout.splitlines()}


def test_a_user_s_own_entry_takes_the_place_of_a_bundled_one(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(GOOD.replace("[a]", "[vqa-v2]"))
    assert read_catalog(tmp_path / "own.toml")["vqa-v2"][0].title == "A"

"""Downloads against a real server that misbehaves: the right file comes, or a clear message."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.file_server import FileServer, serving
from vqabench.data.catalog.download import RetryPolicy
from vqabench.data.catalog.entries import SourceFile, read_catalog
from vqabench.data.catalog.integrity import find_fault, hash_blob
from vqabench.data.catalog.raw_files import FetchOptions, fetch_lock, get_files, read_record
from vqabench.errors import InputError, VqabenchError
from vqabench.events import BytesReceived, DownloadStarted, Event, Warn
from vqabench.files.atomic import hash_file

QUICK = RetryPolicy(attempts=4, connect=2.0, read=0.75, pause=0.001)


class Listener:
    """Collects lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, event: Event) -> None:
        match event:
            case str():
                self.lines.append(event)
            case Warn():
                self.lines.append(event.text)
            case DownloadStarted():
                self.lines.append(f"start {event.name} {event.done}")


def archive_of(seed: int, size: int = 60_000) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("questions.json", random.Random(seed).randbytes(size))
    return content.getvalue()


FIRST, SECOND = archive_of(1), archive_of(2)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as state:
        state.files["a.zip"] = FIRST
        yield state


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fetch(
    server: FileServer,
    folder: Path,
    name: str = "a.zip",
    options: FetchOptions | None = None,
    sha256: str | None = None,
    size: int | None = None,
) -> Listener:
    """Fetch one file from the server; gives what was heard."""
    listener = Listener()
    source = SourceFile(urls=(server.address(name),), sha256=sha256, size=size)
    with fetch_lock(folder, listener):
        get_files(folder, {name: source}, options or FetchOptions(retry=QUICK), listener)
    return listener


def finals(folder: Path) -> dict[str, bytes]:
    """Return the files under their final names."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name not in (".lock", "fetched.json")
    }


def test_a_file_comes_and_is_recorded_and_a_second_call_asks_nothing(server: FileServer, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    assert finals(tmp_path) == {"a.zip": FIRST}
    record = read_record(tmp_path).files["a.zip"]
    assert (record.source, record.size) == (server.address("a.zip"), len(FIRST))
    assert record.sha256 == hash_file(tmp_path / "a.zip")
    assert not (tmp_path / "coming").exists()
    fetch(server, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["drop", "short", "stall"])
def test_a_broken_transfer_goes_on_where_it_broke_off(server: FileServer, tmp_path: Path, fault: str) -> None:
    server.faults = [fault]
    heard = fetch(server, tmp_path)
    assert finals(tmp_path) == {"a.zip": FIRST}
    assert any("trying again" in line for line in heard.lines)
    ranges = [asked for _, asked in server.requests]
    assert ranges[0] is None
    assert fault == "short" or (ranges[1] or "").startswith("bytes=")


@pytest.mark.parametrize("fault", ["500", "503", "429", "408"])
def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path, fault: str) -> None:
    server.faults = [fault, fault]
    fetch(server, tmp_path)
    assert finals(tmp_path) == {"a.zip": FIRST}
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", ["403", "404", "409", "410"])
def test_a_server_that_refuses_is_not_asked_again(server: FileServer, tmp_path: Path, fault: str) -> None:
    server.faults = [fault]
    with pytest.raises(VqabenchError, match=rf"a\.zip could not be fetched: .*answers {fault}.*--from DIR"):
        fetch(server, tmp_path)
    assert finals(tmp_path) == {}
    assert len(server.requests) == 1


def test_attempts_in_vain_end_with_the_reason(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["500"] * 9
    with pytest.raises(VqabenchError, match=r"answers 500 Internal Server Error \(4 attempts\)"):
        fetch(server, tmp_path)
    assert len(server.requests) == 4


def test_a_server_that_is_not_there_is_told(server: FileServer, tmp_path: Path) -> None:
    with serving() as gone:
        pass
    with pytest.raises(VqabenchError, match="the connection is refused"):
        fetch(gone, tmp_path)


def test_a_transfer_that_brings_much_each_time_may_break_off_often(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(40 << 20)
    with serving() as server:
        server.files["big.bin"] = content
        server.faults = ["drop"] * 5
        fetch(server, tmp_path, "big.bin")
        assert finals(tmp_path) == {"big.bin": content}
        assert len(server.requests) == 6


def test_a_web_page_in_place_of_the_file_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["html"]
    with pytest.raises(VqabenchError, match="a web page instead of the file"):
        fetch(server, tmp_path)
    assert finals(tmp_path) == {}


@pytest.mark.parametrize("known", [True, False])
def test_wrong_bytes_never_get_the_final_name(server: FileServer, tmp_path: Path, known: bool) -> None:
    expected = digest(FIRST) if known else None
    server.faults = ["wrong"]
    with pytest.raises(VqabenchError, match="the download is not the expected file"):
        fetch(server, tmp_path / "raw", sha256=expected)
    assert finals(tmp_path / "raw") == {}
    fetch(server, tmp_path / "raw", sha256=expected)
    assert finals(tmp_path / "raw") == {"a.zip": FIRST}


def test_a_file_that_changes_between_attempts_is_begun_anew(server: FileServer, tmp_path: Path) -> None:
    server.faults, server.successors = ["drop"], {"a.zip": SECOND}
    fetch(server, tmp_path)
    assert finals(tmp_path) == {"a.zip": SECOND}


def test_a_server_that_ignores_the_condition_does_not_mix_two_files(server: FileServer, tmp_path: Path) -> None:
    server.faults, server.successors = ["drop", "careless"], {"a.zip": SECOND}
    heard = fetch(server, tmp_path)
    assert finals(tmp_path) == {"a.zip": SECOND}
    assert any("has changed since the download began" in line for line in heard.lines)


def test_without_etag_or_checksum_a_transfer_begins_anew(server: FileServer, tmp_path: Path) -> None:
    """Nothing would show that the second half belongs to the first."""
    part = tmp_path / "coming" / "a.zip.part"
    part.parent.mkdir()
    part.write_bytes(SECOND[:1000])
    note = {"url": server.address("a.zip"), "etag": None, "size": len(FIRST)}
    part.with_name("a.zip.part.json").write_text(json.dumps(note))
    fetch(server, tmp_path)
    assert server.requests[0][1] is None
    assert finals(tmp_path) == {"a.zip": FIRST}


def test_with_a_checksum_a_false_beginning_is_found_out(server: FileServer, tmp_path: Path) -> None:
    expected = digest(FIRST)
    part = tmp_path / "raw" / "coming" / "a.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(SECOND[:1000])
    note = {"url": server.address("a.zip"), "etag": None, "size": len(FIRST)}
    part.with_name("a.zip.part.json").write_text(json.dumps(note))
    fetch(server, tmp_path / "raw", sha256=expected)
    assert [asked for _, asked in server.requests] == ["bytes=1000-", None]
    assert finals(tmp_path / "raw") == {"a.zip": FIRST}


def test_a_server_that_ignores_ranges_sends_all_anew(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["drop", "whole"]
    fetch(server, tmp_path)
    assert finals(tmp_path) == {"a.zip": FIRST}


def test_a_transfer_without_a_length_is_checked_or_refused(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["endless"]
    fetch(server, tmp_path)
    assert finals(tmp_path) == {"a.zip": FIRST}
    server.files["rows.tsv"] = b"1\t2\n"
    server.faults = ["endless"]
    with pytest.raises(VqabenchError, match="cannot verify that the download"):
        fetch(server, tmp_path, "rows.tsv")


@pytest.mark.parametrize("fault", ["flood", "chunked"])
def test_a_server_that_sends_without_end_is_stopped_at_the_size_in_the_catalogue(
    server: FileServer, tmp_path: Path, fault: str
) -> None:
    server.faults = [fault]
    with pytest.raises(VqabenchError, match=rf"sends more than its {len(FIRST):,} bytes"):
        fetch(server, tmp_path, size=len(FIRST))
    assert finals(tmp_path) == {}
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 4 * len(FIRST)
    fetch(server, tmp_path, size=len(FIRST))
    assert finals(tmp_path) == {"a.zip": FIRST}


def test_a_server_that_sends_without_end_leaves_room_on_the_disk(server: FileServer, small_disk: Path) -> None:
    server.faults = ["flood"]
    with pytest.raises(VqabenchError, match="sends more than there is space for"):
        fetch(server, small_disk / "raw", sha256=digest(FIRST))
    assert sum(path.stat().st_size for path in small_disk.rglob("*") if path.is_file()) < 100_000


@pytest.mark.parametrize("fault", ["trickle", "slow head"])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    server: FileServer, tmp_path: Path, fault: str
) -> None:
    retry = RetryPolicy(attempts=2, connect=2.0, read=1.0, stall=0.5, pause=0.001)
    server.faults = [fault] * 2
    with pytest.raises(VqabenchError, match=r"sends less than 16,384 bytes in 0.5 seconds \(2 attempts\)"):
        fetch(server, tmp_path, options=FetchOptions(retry=retry))
    fetch(server, tmp_path, options=FetchOptions(retry=retry))
    assert finals(tmp_path) == {"a.zip": FIRST}


@pytest.mark.parametrize("length", ["9" * 5000, "²", "-1", "1e3", "0x10", "", " 12 34"])
def test_a_length_that_is_none_is_no_traceback(server: FileServer, tmp_path: Path, length: str) -> None:
    server.faults = [f"length {length}"] * 9
    try:
        fetch(server, tmp_path, sha256=digest(FIRST))
    except VqabenchError as error:
        assert "SHA-256" not in str(error)  # noqa: PT017
    assert finals(tmp_path) in ({}, {"a.zip": FIRST})


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://127.0.0.1/a.zip", "neither http nor https"),
        ("http://[::1/a.zip", "Invalid IPv6 URL"),
        ("http://127.0.0.1:port/a.zip", "could not be fetched"),
        ("http://x\x1b]0;owned\x07/", "could not be fetched"),
        ("gopher://\x1bowned\x07/", "neither http nor https"),
    ],
)
def test_a_redirect_to_what_is_no_web_address_is_refused(
    server: FileServer, tmp_path: Path, target: str, told: str
) -> None:
    server.faults = [f"to {target}"]
    with pytest.raises(VqabenchError, match=told) as raised:
        fetch(server, tmp_path)
    assert str(raised.value).isprintable()
    assert finals(tmp_path) == {}


def test_redirects_are_followed_but_not_for_ever(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["to /elsewhere/a.zip", f"to {server.address('a.zip')}"]
    fetch(server, tmp_path / "one")
    assert finals(tmp_path / "one") == {"a.zip": FIRST}
    server.faults = ["to a.zip"] * 50
    with pytest.raises(VqabenchError, match="redirects more than 10 times"):
        fetch(server, tmp_path / "two")


PRIVATE = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "[::1]", "0.0.0.0", "localhost"]


@pytest.mark.parametrize("host", PRIVATE)
def test_a_redirect_from_the_public_network_into_a_private_one_is_refused(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """A proxy stands for the public network: it is asked for the address and answers with the redirect."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "")
    source = SourceFile(urls=("http://data.invalid/a.zip",))
    server.faults = [f"to http://{host}/a.zip"]
    with pytest.raises(VqabenchError, match=r"redirects to .*, an address of a private network"):
        get_files(tmp_path, {"a.zip": source}, FetchOptions(retry=QUICK), Listener())
    assert [path for path, _ in server.requests] == ["http://data.invalid/a.zip"]


def test_a_server_cannot_write_on_the_terminal(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["reason \x1b[31mForbidden\x07"]
    with pytest.raises(VqabenchError, match="answers 403") as raised:
        fetch(server, tmp_path)
    assert str(raised.value).isprintable()


def test_what_an_earlier_version_left_of_a_killed_transfer_is_no_trouble(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "coming").mkdir()
    (tmp_path / "coming" / "tmpabcdefgh").write_bytes(b"half")
    fetch(server, tmp_path)
    assert finals(tmp_path) == {"a.zip": FIRST}
    fetch(server, tmp_path)
    assert not (tmp_path / "coming").exists()


def test_mirrors_are_tried_in_turn(server: FileServer, tmp_path: Path) -> None:
    with serving() as other:
        other.files["a.zip"] = FIRST
        server.faults = ["409"]
        listener = Listener()
        source = SourceFile(urls=(server.address("a.zip"), other.address("a.zip")))
        record = get_files(tmp_path, {"a.zip": source}, FetchOptions(retry=QUICK), listener)
        assert record.files["a.zip"].source == other.address("a.zip")
    assert any("answers 409" in line and "next mirror" in line for line in listener.lines)


def test_a_proxy_is_used_as_the_environment_says(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "")
    source = SourceFile(urls=("http://data.invalid/a.zip",))
    get_files(tmp_path, {"a.zip": source}, FetchOptions(retry=QUICK), Listener())
    assert server.requests == [("http://data.invalid/a.zip", None)]
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(VqabenchError, match="the proxy cannot be reached"):
        get_files(tmp_path, {"b.zip": source}, FetchOptions(retry=QUICK), Listener())


def test_no_room_is_told_before_anything_comes(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["endless"]  # so that the size is the catalogue's
    with pytest.raises(VqabenchError, match=r"no space for a\.zip in .*: 1,000,000,000,000\.0 MB needed"):
        fetch(server, tmp_path, size=10**18)
    assert finals(tmp_path) == {}


def test_a_changed_file_is_refused_until_it_is_fetched_again(server: FileServer, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    (tmp_path / "a.zip").write_bytes(SECOND)
    with pytest.raises(InputError, match=r"a\.zip: changed since .*--force"):
        fetch(server, tmp_path)
    (tmp_path / "a.zip").write_bytes(SECOND[:50])
    with pytest.raises(InputError, match=r"not the expected file: it is not complete.*--force"):
        fetch(server, tmp_path)
    fetch(server, tmp_path, options=FetchOptions(force=True, retry=QUICK))
    assert finals(tmp_path) == {"a.zip": FIRST}


def test_offline_uses_what_is_there_and_names_what_is_not(server: FileServer, tmp_path: Path) -> None:
    offline = FetchOptions(offline=True, retry=QUICK)
    with pytest.raises(InputError, match=r"--offline forbids downloading: a\.zip; put them there.*--from"):
        fetch(server, tmp_path, options=offline)
    (tmp_path / "a.zip").write_bytes(FIRST)
    fetch(server, tmp_path, options=offline)
    assert server.requests == []
    assert read_record(tmp_path).files["a.zip"].source == "was there already"


def test_own_files_are_taken_if_they_are_the_right_ones(server: FileServer, tmp_path: Path) -> None:
    own = tmp_path / "own" / "deep"
    own.mkdir(parents=True)
    expected = digest(FIRST)
    options = FetchOptions(own_folder=tmp_path / "own", offline=True, retry=QUICK)
    (own / "a.zip").write_bytes(SECOND)
    with pytest.raises(InputError, match="--offline forbids downloading"):
        fetch(server, tmp_path / "raw", options=options, sha256=expected)
    (own / "a.zip").write_bytes(FIRST)
    heard = fetch(server, tmp_path / "raw", options=options, sha256=expected)
    assert f"a.zip: taken from {own / 'a.zip'}" in heard.lines
    assert finals(tmp_path / "raw") == {"a.zip": FIRST}
    assert server.requests == []
    with pytest.raises(InputError, match="there is no such folder"):
        fetch(server, tmp_path / "more", options=FetchOptions(own_folder=tmp_path / "none"))


UNPACKED = [
    "v2_OpenEnded_mscoco_train2014_questions.json",
    "v2_mscoco_train2014_annotations.json",
    "v2_OpenEnded_mscoco_val2014_questions.json",
    "v2_mscoco_val2014_annotations.json.gz",
]


def test_unpacked_files_are_explained_with_a_catalogue_that_names_them(server: FileServer, tmp_path: Path) -> None:
    own = tmp_path / "dl"
    own.mkdir()
    for name in [*UNPACKED, "MultipleChoice_mscoco_train2014_questions.json"]:
        (own / name).write_text("{}")
    with pytest.raises(InputError, match="--offline forbids downloading") as raised:
        fetch(server, tmp_path / "raw", options=FetchOptions(own_folder=own, offline=True, retry=QUICK))
    assert "put them there" not in str(raised.value)
    snippet = str(raised.value).partition("--catalog: ")[2].partition(" (on separate lines)")[0]
    (tmp_path / "own.toml").write_text(snippet.replace(" / ", "\n"))
    entry, _ = read_catalog(tmp_path / "own.toml")["my-data"]
    train, test = entry.splits["train"], entry.splits["test"]
    named = [*train.questions, *train.annotations, *test.questions, *test.annotations]
    assert named == [str(own / name) for name in UNPACKED]
    heard = fetch(server, tmp_path / "raw", options=FetchOptions(own_folder=own, retry=QUICK))
    assert any("holds unpacked JSON" in line for line in heard.lines)
    assert finals(tmp_path / "raw") == {"a.zip": FIRST}


def test_the_id_of_a_blob_is_gits(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(b"hello\n")
    assert hash_blob(path) == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert find_fault(path, "list.json", SourceFile(urls=("http://a.b/c",), git_blob="0" * 40)) is not None


@pytest.mark.parametrize("name", ["a.zip", "a.json", "a.json.gz"])
def test_what_shows_by_itself_that_it_is_not_whole_is_found_out(tmp_path: Path, name: str) -> None:
    text = json.dumps({"questions": list(range(500))}).encode()
    content = {"a.zip": FIRST, "a.json": text, "a.json.gz": gzip.compress(text)}[name]
    source = SourceFile(urls=("http://a.b/c",))
    for cut in (0, 1, len(content) // 2, len(content) - 1):
        (tmp_path / name).write_bytes(content[:cut])
        assert find_fault(tmp_path / name, name, source) is not None
    (tmp_path / name).write_bytes(content)
    assert find_fault(tmp_path / name, name, source) is None


def test_an_archive_is_only_read(server: FileServer, tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("../../evil.json", "{}")
    server.files["a.zip"] = content.getvalue()
    fetch(server, tmp_path / "deep" / "raw")
    assert not list(tmp_path.rglob("evil.json"))


def test_a_damaged_record_is_told(server: FileServer, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    (tmp_path / "fetched.json").write_text("{")
    with pytest.raises(InputError, match=r"fetched\.json: .*delete it"):
        fetch(server, tmp_path)


FETCH = """
import sys
from pathlib import Path
from vqabench.data.catalog.download import RetryPolicy
from vqabench.data.catalog.entries import SourceFile
from vqabench.data.catalog.raw_files import FetchOptions, fetch_lock, get_files
folder, url = sys.argv[1:]
options = FetchOptions(retry=RetryPolicy(attempts=4, connect=2.0, read=0.75, pause=0.001))
with fetch_lock(Path(folder), print):
    get_files(Path(folder), {"a.zip": SourceFile(urls=(url,))}, options, print)
"""


def test_two_processes_fetch_once_and_leave_the_right_file(server: FileServer, tmp_path: Path) -> None:
    server.faults = ["stall", "drop"]
    command = [sys.executable, "-c", FETCH, str(tmp_path), server.address("a.zip")]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert finals(tmp_path) == {"a.zip": FIRST}
    assert len(server.requests) == 3


FAULTS = ["drop", "short", "500", "404", "409", "html", "wrong", "unnamed", "whole", "careless", "endless", ""]


def test_of_two_hundred_bad_days_none_leaves_a_corrupt_file(tmp_path: Path) -> None:
    chance = random.Random(0)
    came, told = 0, list[str]()
    with serving() as server:
        for trial in range(200):
            folder = tmp_path / str(trial)
            server.files, server.successors = {"a.zip": FIRST}, {}
            server.faults = [chance.choice(FAULTS) for _ in range(chance.randrange(6))]
            server.faults += ["stall"] * (trial % 20 == 0)
            valid = {FIRST}
            known = digest(FIRST) if chance.random() < 0.4 else None
            if chance.random() < 0.3:
                server.successors["a.zip"] = SECOND
                valid |= set() if known else {SECOND}
            for _ in range(chance.randrange(1, 4)):
                try:
                    fetch(server, folder, sha256=known)
                except VqabenchError as error:
                    told.append(str(error))
            assert set(finals(folder).values()) <= valid
            came += bool(finals(folder))
    assert came > 100
    assert told
    assert all("a.zip could not be fetched: " in message for message in told)


def test_what_is_stopped_between_any_two_pieces_goes_on(server: FileServer, tmp_path: Path) -> None:
    """As by Ctrl-C, which may come at any time."""

    class Stopping(Listener):
        def __call__(self, event: Event) -> None:
            if isinstance(event, BytesReceived):
                raise KeyboardInterrupt

    source = {"a.zip": SourceFile(urls=(server.address("a.zip"),))}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            get_files(tmp_path, source, FetchOptions(retry=QUICK), Stopping())
    assert finals(tmp_path) == {}
    fetch(server, tmp_path)
    assert [asked for _, asked in server.requests] == [None, "bytes=16384-", "bytes=32768-"]
    assert finals(tmp_path) == {"a.zip": FIRST}


def test_a_second_fetch_waits_for_the_first(tmp_path: Path) -> None:
    listener, order = Listener(), []
    with fetch_lock(tmp_path, listener):

        def second() -> None:
            with fetch_lock(tmp_path, listener):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert any("waiting" in line for line in listener.lines)

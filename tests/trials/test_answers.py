"""Files of questions, annotations and results: pipes, devices, hostile JSON, and what is said of scores."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.outcomes import assert_done, assert_refused
from tests.trials.conftest import Trial
from vqabench.files import packed

pytestmark = pytest.mark.slow
FILES = ("--questions", "own/test_questions.json", "--annotations", "own/test_annotations.json")
Entries = list[dict[str, Any]]


def edit(path: Path, change: Callable[[Entries], object]) -> None:
    """Change the entries of an official file in place."""
    document = json.loads(path.read_text())
    change(next(iter(document.values())))
    path.write_text(json.dumps(document))


def answer(trial: Trial, text: str | None = None) -> Path:
    """Write an answer to each question of the test: the right one, or `text`."""
    asked = json.loads((trial.folder / "own/test_annotations.json").read_text())["annotations"]
    results = [{"question_id": a["question_id"], "answer": text or a["multiple_choice_answer"]} for a in asked]
    path = trial.folder / "r.json"
    path.write_text(json.dumps(results))
    return path


def of_tests(change: Callable[[dict[str, Any]], object]) -> Callable[[Trial], None]:
    """Return what changes every annotation of every split."""

    def apply(trial: Trial) -> None:
        for split in ("train", "val", "test"):
            edit(trial.folder / f"own/{split}_annotations.json", lambda entries: [change(one) for one in entries])

    return apply


def only_answers(annotation: dict[str, Any], text: str | None = None) -> None:
    """Leave ten equal records."""
    chosen = text or annotation["multiple_choice_answer"]
    annotation["answers"] = [{"answer": chosen}] * 10


def agree_on(annotation: dict[str, Any], text: str) -> None:
    """Let ten annotators agree on a spelling."""
    annotation["answers"] = [{"answer": text, "answer_id": place} for place in range(1, 11)]
    annotation["multiple_choice_answer"] = text


ODD = {
    "ten equal records": (only_answers, "identical annotator records"),
    "a capital": (lambda annotation: agree_on(annotation, "Yes"), "'Yes' becomes 'yes'"),
    "an article": (lambda annotation: agree_on(annotation, "a"), "'a' becomes ''"),
    "a number word": (lambda annotation: agree_on(annotation, "one way"), "'one way' becomes '1 way'"),
}


@pytest.mark.parametrize(("change", "said"), ODD.values(), ids=ODD)
def test_scores_that_are_zero_by_the_rules_are_announced_by_every_command(
    trial: Trial, cli: CommandLine, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    of_tests(change)(trial)
    prepared = cli("data", "prepare", "tiny", *trial.catalog)
    assert_done(
        prepared,
        said,
        "test: best possible official accuracy with this vocabulary: 0.00",
        "test 12 of 12 questions",
    )
    trained = cli("train", "prior", *trial.data)
    assert_done(trained, said, "train 60 of 60 questions, val 12 of 12 questions, test 12 of 12")
    predicted = next(trial.folder.glob("runs/tiny/prior/*/seed-0/predictions.test.json"))
    evaluated = cli("evaluate", predicted, *FILES, "--json")
    assert said in evaluated.stderr
    assert "12 of 12 questions" in evaluated.stderr
    assert json.loads(evaluated.stdout)["accuracy"]["all"] == 0


def test_unusual_answer_types_are_named_with_counts(trial: Trial, cli: CommandLine) -> None:
    kinds = iter(["Yes/No"] * 5 + ["OPEN", "unanswerable"] + ["number"] * 5)
    edit(trial.folder / "own/test_annotations.json", lambda all_: [a.update(answer_type=next(kinds)) for a in all_])
    done = cli("evaluate", answer(trial), *FILES)
    assert_done(done, "7 of 12 questions count only in All", "'Yes/No' 5", "'OPEN' 1", "'unanswerable' 1")


def test_every_file_may_come_through_a_pipe(trial: Trial) -> None:
    pipes = f"<(cat {answer(trial)}) --questions <(cat {FILES[1]}) --annotations <(gzip -c {FILES[3]})"
    done = subprocess.run(
        ["bash", "-c", f"python -m vqabench evaluate {pipes} --json"],
        cwd=trial.folder,
        env=trial.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_done(done)
    assert json.loads(done.stdout)["accuracy"]["all"] == 100


def test_results_may_come_through_standard_input_and_a_named_pipe(trial: Trial, cli: CommandLine) -> None:
    results = answer(trial).read_text()
    assert_done(trial.run("evaluate", "/dev/stdin", *FILES, stdin=results), "100.00")
    pipe = trial.folder / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(results))
    writer.start()
    assert_done(cli("evaluate", pipe, *FILES), "100.00")
    writer.join()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(target: str) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return replace


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def sparse(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 31)


STRANGE = {
    "a pipe that nobody writes to": (fifo, "nothing writes to this pipe"),
    "an endless device": (link("/dev/zero"), "a device or socket, not a file"),
    "an empty device": (link("/dev/null"), "a device or socket, not a file"),
    "a loop of links": (loop, "cannot be read"),
    "a missing target": (link("nowhere"), "there is no such file"),
    "a folder": (folder, "cannot be read"),
    "nothing": (lambda path: path.write_text(""), "empty, but JSON is expected"),
    "zeros behind the text": (sparse, "holds zeros from byte"),
}


@pytest.mark.parametrize("name", ["r.json", "own/test_questions.json", "own/test_annotations.json"])
@pytest.mark.parametrize(("replace", "said"), STRANGE.values(), ids=STRANGE)
def test_what_is_no_file_is_refused_at_once_by_name(
    trial: Trial,
    cli: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    replace: Callable[[Path], object],
    said: str,
) -> None:
    monkeypatch.setattr(packed, "PATIENCE", 0.2)
    answer(trial)
    replace(trial.folder / name)
    done = cli("evaluate", "r.json", *FILES)
    assert_refused(done, Path(name).name, said)


@pytest.mark.parametrize("kind", ["questions", "annotations"])
def test_a_data_set_is_made_of_files_that_can_be_read_again(trial: Trial, cli: CommandLine, kind: str) -> None:
    fifo(trial.folder / f"own/test_{kind}.json")
    done = cli("data", "prepare", "tiny", *trial.catalog)
    assert_refused(done, f"test_{kind}.json")


def nest(depth: int) -> str:
    return "[" * depth + "]" * depth


BROKEN: dict[str, Callable[[str], bytes]] = {
    "cut in the middle": lambda text: text[: len(text) // 2].encode(),
    "cut at the end": lambda text: text[:-1].encode(),
    "cut in a packed file": lambda text: gzip.compress(text.encode())[:-20],
    "nested deeply": lambda text: text.replace("{", '{"x": ' + nest(5_000) + ", ", 2).encode(),
    "nested deeply all over": lambda _: nest(200_000).encode(),
    "thousands of digits for an id": lambda text: text.replace(
        '"question_id":', '"question_id": ' + "9" * 6_000
    ).encode(),
    "bytes that are no UTF-8": lambda text: text.encode().replace(b'"answer', b'"\xff\xfe": 1, "answer'),
    "Latin-1": lambda text: text.replace('"sheep', '"ü').replace("red", "rötlich").encode("latin-1"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "a page": lambda _: b"<!DOCTYPE html><html></html>",
    "numbers": lambda _: b"[1, 2, 3]",
    "null": lambda _: b"null",
    "an empty object": lambda _: b"{}",
    "zeros": lambda _: bytes(100_000),
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_broken_annotations_are_refused_in_one_line_that_names_the_file(
    trial: Trial, cli: CommandLine, make: Callable[[str], bytes]
) -> None:
    path = trial.folder / "own/test_annotations.json"
    content = make(path.read_text())
    path.write_bytes(content)
    done = cli("evaluate", answer_of(trial), *FILES)
    if content.decode("latin-1").count("\xff\xfe") and done.returncode == 0:
        return  # in a key that nobody reads
    assert_refused(done, "test_annotations.json")
    assert done.stderr.count("\n") == 1


def answer_of(trial: Trial) -> Path:
    """Write results without reading the annotations."""
    path = trial.folder / "r.json"
    path.write_text(json.dumps({str(number): "red" for number in range(2000, 2012)}))
    return path


UNUSUAL = {
    "NaN": '"loss": NaN, ',
    "infinity": '"loss": -Infinity, ',
    "half a pair": '"note": "\\ud83d", ',
    "a huge number": '"loss": 1e999, "n": ' + "9" * 400 + ", ",
    "nested within reason": f'"x": {nest(100)}, ',
}


@pytest.mark.parametrize("beside", UNUSUAL.values(), ids=UNUSUAL)
def test_what_stands_beside_the_entries_is_ignored(trial: Trial, cli: CommandLine, beside: str) -> None:
    results = answer(trial)
    for path in (results, trial.folder / FILES[1], trial.folder / FILES[3]):
        path.write_text(path.read_text().replace('"question_id"', f'{beside}"question_id"'))
    assert_done(cli("evaluate", results, *FILES), "100.00")
    assert_done(cli("data", "prepare", "tiny", *trial.catalog))
    (trial.folder / "ids").write_text("\n".join(map(str, range(1000, 1012))))
    assert_done(cli("data", "rebuild-cp", "tiny", "--out", "new", "--test-ids", "ids", *trial.catalog))
    kept = json.loads((trial.folder / "new/test_annotations.json").read_text())["annotations"]
    assert [one["question_id"] for one in kept] == list(range(1000, 1012))


@pytest.mark.parametrize("form", [str, float], ids=["text", "float"])
def test_ids_may_be_text_or_floats(trial: Trial, cli: CommandLine, form: Callable[[int], object]) -> None:
    for split in ("train", "val", "test"):
        for kind in ("questions", "annotations"):
            edit(
                trial.folder / f"own/{split}_{kind}.json",
                lambda entries: [one.update(question_id=form(one["question_id"])) for one in entries],
            )
    assert_done(cli("data", "prepare", "tiny", *trial.catalog))
    assert_done(cli("evaluate", answer(trial), *FILES), "100.00")


def test_missing_answers_are_refused_unless_they_are_to_count_as_wrong(trial: Trial, cli: CommandLine) -> None:
    results = answer(trial)
    results.write_text(json.dumps(json.loads(results.read_text())[:9]))
    refused = cli("evaluate", results, *FILES)
    assert_refused(refused, "r.json", "questions not answered: 3", "--missing wrong")
    done = cli("evaluate", results, *FILES, "--missing", "wrong")
    assert_done(done, "75.00", "3 of 12 questions have no answer and count as wrong")
    results.write_text(json.dumps(json.loads(answer(trial).read_text())[:11]))
    done = cli("evaluate", results, *FILES, "--missing", "wrong")
    assert_done(done, "1 of 12 questions has no answer and counts as wrong")
    results.write_text("[]")
    assert_done(cli("evaluate", results, *FILES, "--missing", "wrong"), "0.00", "12 of 12 questions")
    assert_refused(cli("evaluate", results, *FILES, "--missing", "right"), "--missing")


BEST = ("red car", "red bus", "blue car", "blue bus", "red", "blue car bus", "car")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set of 60 MB of annotations: with 200 times as much, memory would not do."""
    folder = tmp_path_factory.mktemp("large")
    filler = "x" * 6_000
    answers = [{"answer": "yes", "answer_confidence": "yes", "answer_id": place} for place in range(1, 11)]
    questions, annotations = [], []
    for number in range(9_000):
        ids = {"question_id": number, "image_id": number}
        kind = {"question_type": "what is it", "answer_type": "other", "answers": answers, "note": filler}
        questions.append({**ids, "question": "What is it?"})
        annotations.append({**ids, **kind, "multiple_choice_answer": BEST[number % 7]})
    (folder / "q.json").write_text(json.dumps({"questions": questions}))
    (folder / "a.json").write_text(json.dumps({"annotations": annotations}))
    (folder / "r.json").write_text(json.dumps({str(number): "yes" for number in range(9_000)}))
    (folder / "ids.txt").write_text("\n".join(map(str, range(0, 9_000, 7))))
    (folder / "catalog.toml").write_text(
        '[large]\ntitle = "large"\nfeatures_from = "nowhere"\n'
        'splits.train = { questions = "q.json", annotations = "a.json" }\n'
    )
    return folder


COMMANDS = {
    "evaluate": ("evaluate", "r.json", "--questions", "q.json", "--annotations", "a.json"),
    "rebuild-cp": (
        "data",
        "rebuild-cp",
        "large",
        "--test-ids",
        "ids.txt",
        "--out",
        "cp",
        "--catalog",
        "catalog.toml",
    ),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_files_are_read_in_a_small_multiple_of_their_size(
    trial: Trial, large: Path, command: tuple[str, ...]
) -> None:
    done, peak = measure(trial, large, command)
    assert_done(done)
    assert peak < 250e6 + 4 * (large / "a.json").stat().st_size


def measure(trial: Trial, folder: Path, command: tuple[str, ...]) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a command on one processor; return how it ended and its peak memory in bytes."""

    def confine() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

    # Not ru_maxrss: a child inherits that of the process which forked it.
    code = (
        "import re, sys; from pathlib import Path; from vqabench.cli import main\n"
        "try: main()\n"
        "finally: print('PEAK', re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1], "
        "file=sys.stderr)"
    )
    done = subprocess.run(
        ["python", "-c", code, *command],
        cwd=folder,
        env=trial.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=confine,
    )
    return done, 1024 * int(done.stderr.rpartition("PEAK ")[2])


def test_a_large_truncated_file_says_where_it_breaks_off(trial: Trial, cli: CommandLine, large: Path) -> None:
    content = (large / "a.json").read_bytes()
    (trial.folder / "cut.json").write_bytes(content[:-100_000])
    done = cli("evaluate", large / "r.json", "--questions", large / "q.json", "--annotations", "cut.json")
    assert_refused(done, "cut.json", "the file ends too early, after 60,")

"""Runs that are odd, linked, unreadable or somebody else's, and streams that cannot take what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.conftest import CommandLine
from tests.outcomes import assert_done, assert_refused
from tests.runs import make_manifest
from tests.trials.conftest import Trial
from vqabench.evaluation.scores import CATEGORIES, Scores
from vqabench.results import Run, find_runs

pytestmark = pytest.mark.slow

SOUND = "runs/d/updn/ce-plain/seed-0"
ODD = "runs/d/updn/ce-plain/seed-1"


def write_run(folder: Path, seed: int = 0, **changes: object) -> Run:
    """Write a finished run, scored on test and val."""
    folder.mkdir(parents=True)
    run = Run(folder)
    run.write_manifest(make_manifest(seed=seed, **changes))
    form = Scores(10, dict.fromkeys(CATEGORIES, 50.0), dict.fromkeys(CATEGORIES, 5.0), {})
    run.scores_file.write_bytes(msgspec.json.encode({"test": form, "val": form}))
    run.epochs_file.write_text('{"epoch": 1, "loss": 1.0, "val_accuracy": 40.0}\n')
    return run


@pytest.fixture
def odd(tmp_path: Path) -> Run:
    """Return one of two runs, which a trial spoils."""
    write_run(tmp_path / SOUND)
    return write_run(tmp_path / ODD, seed=1)


def replace(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def lead(folder: Path, target: Path | str) -> None:
    folder.rename("kept")
    folder.symlink_to(target)


def edit(name: str, **values: object) -> Callable[[Run], object]:
    """Change keys of a JSON file of a run."""

    def change(run: Run) -> None:
        file = run.folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def score(**values: object) -> Callable[[Run], object]:
    """Change keys of a run's scores on test."""

    def change(run: Run) -> None:
        scores = json.loads(run.scores_file.read_text())
        scores["test"] |= values
        run.scores_file.write_text(json.dumps(scores))

    return change


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
SPOILT: dict[str, Callable[[Run], object]] = {
    "run.json nested deep": lambda run: run.manifest_file.write_text(DEEP),
    "run.json nested rather deep": edit(
        "run.json", options={"backbone": json.loads('{"a":' * 50 + "1" + "}" * 50)}
    ),
    "run.json is a pipe": lambda run: instead(run.manifest_file, os.mkfifo),
    "run.json is a device": lambda run: instead(run.manifest_file, lambda path: path.symlink_to("/dev/zero")),
    "run.json is a folder": lambda run: instead(run.manifest_file, Path.mkdir),
    "run.json leads nowhere": lambda run: instead(run.manifest_file, lambda path: path.symlink_to("gone")),
    "run.json leads to itself": lambda run: instead(run.manifest_file, lambda path: path.symlink_to(path)),
    "run.json is empty": lambda run: run.manifest_file.write_bytes(b""),
    "run.json is no text": lambda run: run.manifest_file.write_bytes(b"\x80\xff\x00"),
    "run.json is huge": lambda run: os.truncate(run.manifest_file, 1 << 40),
    "seed is negative": edit("run.json", seed=-1),
    "seed is huge": edit("run.json", seed=10**30),
    "seed is a text": edit("run.json", seed="1"),
    "stages are nameless": edit("run.json", stages=[{}]),
    "stages have half an epoch": edit("run.json", stages=[{"epochs": 0.5}]),
    "label is endless": edit("run.json", label="x" * 100_000),
    "seconds are endless": edit("run.json", seconds=1e308),
    "options lack the backbone": edit("run.json", options={}),
    "status is unknown": edit("run.json", status="done"),
    "scores.json nested deep": lambda run: run.scores_file.write_text(DEEP),
    "scores.json is a pipe": lambda run: instead(run.scores_file, os.mkfifo),
    "scores.json is a device": lambda run: instead(run.scores_file, lambda path: path.symlink_to("/dev/zero")),
    "scores.json is a folder": lambda run: instead(run.scores_file, Path.mkdir),
    "scores.json is missing": lambda run: run.scores_file.unlink(),
    "an unknown split": edit("scores.json", x=None),
    "an unknown split of scores": lambda run: replace(run.scores_file, '"val"', '"x"'),
    "an accuracy of 1e308": score(accuracy=dict.fromkeys(CATEGORIES, 1e308)),
    "a negative accuracy": score(accuracy=dict.fromkeys(CATEGORIES, -1)),
    "an accuracy of NaN": lambda run: replace(run.scores_file, "50.0", "NaN"),
    "an accuracy beyond numbers": lambda run: replace(run.scores_file, "50.0", "1e999"),
    "an accuracy in words": lambda run: replace(run.scores_file, "50.0", '"50"'),
    "a category is missing": score(accuracy={"all": 1.0}),
    "a huge kappa": score(kappa=dict.fromkeys(CATEGORIES, 1e300)),
    "a type of 1e300 %": score(per_question_type={"what": {"questions": 1, "accuracy": 1e300}}),
    "a type of -1 questions": score(per_question_type={"what": {"questions": -1, "accuracy": 1.0}}),
    "a link to a folder that is gone": lambda run: lead(run.folder, "gone"),
    "a link to itself": lambda run: lead(run.folder, run.folder),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_an_odd_run_is_named_and_spoils_no_other(
    odd: Run, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Run], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(odd)
    done = cli("compare", "--format", "json")
    assert_done(done)
    assert [row["seeds"] for row in json.loads(done.stdout)["rows"]] == [[0]]
    assert "warning: left out, damaged: " in done.stderr
    assert ODD in done.stderr
    reported = cli("report")
    assert_done(reported)
    assert ODD in reported.stderr
    assert ODD in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"epoch": 1, "val_accuracy": 1e308}', '{"epoch": true}', "\x00"]
)
def test_odd_epochs_cost_a_run_its_curve_alone(odd: Run, cli: CommandLine, content: str) -> None:
    odd.epochs_file.write_text(content)
    assert_done(cli("report"))


def test_epochs_that_are_a_pipe_are_named(odd: Run, cli: CommandLine) -> None:
    instead(odd.epochs_file, os.mkfifo)
    assert_done(cli("report"), f"{ODD}/epochs.jsonl: a pipe, not a file")


def test_a_linked_run_counts_and_a_cycle_ends(odd: Run, cli: CommandLine, tmp_path: Path) -> None:
    odd.folder.rename(tmp_path / "scratch")
    odd.folder.symlink_to(tmp_path / "scratch")
    for name, target in {"up": "..", "self": ".", "root": "/", "runs": str(tmp_path / "runs")}.items():
        (odd.folder.parent / name).symlink_to(target)
    done = cli("compare", "--format", "json")
    assert [row["seeds"] for row in json.loads(done.stdout)["rows"]] == [[0, 1]]
    assert done.stderr == ""


def test_a_folder_of_runs_that_cannot_be_read_is_named(odd: Run, tmp_path: Path) -> None:
    write_run(tmp_path / "runs/d/lmh/ce-plain/seed-0", backbone="lmh")
    command = [sys.executable, "-m", "vqabench", "compare"]
    if os.geteuid() == 0:  # root may read everything
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    for locked in (odd.folder, tmp_path / "runs/d/lmh"):
        locked.chmod(0)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    for locked in (odd.folder, tmp_path / "runs/d/lmh"):
        locked.chmod(0o755)
    assert_done(done, f"{ODD}: cannot be read: Permission denied", "runs/d/lmh: cannot be read: Permission denied")


def test_many_damaged_runs_are_named_up_to_a_bound(cli: CommandLine, tmp_path: Path) -> None:
    write_run(tmp_path / SOUND)
    for seed in range(1, 31):
        write_run(tmp_path / f"runs/d/updn/ce-plain/seed-{seed}", seed).scores_file.unlink()
    assert cli("compare").stderr.count("left out, damaged") == 21


def test_a_hundred_thousand_question_types_take_no_minutes(odd: Run, cli: CommandLine) -> None:
    types = {f"t{number}": {"questions": number, "accuracy": 5.0} for number in range(100_000)}
    score(per_question_type=types)(odd)
    done = cli("compare", "--by", "question-type")
    assert_done(done, "t99999", "beyond the 1,000 question types with the most questions: t98999, t98998")
    assert "t98999" not in done.stdout


STEERING = "\x1b]0;owned\x07\x1b[31m\x9b1m\u202e\u200b[red]x[/]"


@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv", "json"])
def test_no_text_of_a_run_steers_the_terminal(cli: CommandLine, tmp_path: Path, form: str) -> None:
    write_run(tmp_path / SOUND, backbone=f"=1{STEERING}", label=f"a\nerror: b{STEERING}")
    done = cli("compare", "--format", form)
    assert_done(done)
    assert not set("\x1b\x07\x9b\u202e\u200b") & set(done.stdout + done.stderr)
    assert "red" in done.stdout  # as text
    assert not any(line.startswith("error: b") for line in done.stdout.splitlines())
    assert not (form == "csv" and ",=1" in done.stdout)
    if form == "json":
        assert json.loads(done.stdout)["rows"][0]["backbone"] == f"=1{STEERING}"


def test_no_text_of_a_plugin_steers_the_terminal(trial: Trial) -> None:
    trial.declare("one", f"[vqabench.backbones]\n{STEERING} = m:Cls\n")
    trial.declare("two", f"[vqabench.backbones]\ntwo = {STEERING} bad\n")
    trial.install("three", r"raise ValueError('\x1b]0;owned\x07[red]')")
    trial.declare("three", "[vqabench.backbones]\nthree = trial_three:Model\n")
    for arguments in (["plugins", "list"], ["plugins", "show", "three"], ["--debug", "plugins", "show", "three"]):
        ended = trial.cli(*arguments)
        assert not set("\x1b\x07\x9b\u202e") & set(ended.stdout + ended.stderr)
        assert "[red]" in ended.stdout + ended.stderr


def test_links_in_a_run_are_not_written_through_and_force_keeps_what_is_the_users(trial: Trial) -> None:
    assert_done(trial.train("question-only", "--set", "base.hidden=8"))
    (folder,) = trial.runs()
    names = ("predictions.test.json", "predictions.val.json", "scores.json", "epochs.jsonl", "run.json")
    for name in names:
        kept = trial.folder / name
        (folder / name).rename(kept)
        (folder / name).symlink_to(kept)
    before = {name: (trial.folder / name).read_bytes() for name in names}
    assert_done(trial.cli("predict", folder, *trial.catalog))
    assert_refused(trial.cli("predict", folder, "--out", folder / names[1], *trial.catalog), "belongs to a run")
    (folder / "notes.txt").write_text("mine")
    (folder / "plots").mkdir()
    (folder / "tensorboard").symlink_to(trial.folder / "own")
    done = trial.train("question-only", "--set", "base.hidden=8", "--force", "--log", "tensorboard")
    assert_done(done)
    assert {name: (trial.folder / name).read_bytes() for name in names} == before
    assert {path.name for path in folder.iterdir()} >= {"notes.txt", "plots", "run.json", "tensorboard"}
    assert not list((trial.folder / "own").glob("events*"))


def test_a_report_of_training_alone_says_what_is_missing(trial: Trial) -> None:
    catalog = trial.folder / "own" / "catalog.toml"
    catalog.write_text(catalog.read_text().partition("[tiny.splits.val]")[0])
    assert_done(trial.train("question-only", "--set", "base.hidden=8"))
    assert_done(trial.cli("report", *trial.catalog), "tiny has neither a test nor a val split")
    assert_done(trial.cli("compare"))


STREAMS = {
    "full": ("compare", ">/dev/full", 1, "stdout: No space left on device"),
    "full, csv": ("compare --format csv", ">/dev/full", 1, "stdout: No space left on device"),
    "full, help": ("--help", ">/dev/full", 1, "stdout: No space left on device"),
    "full stderr": ("compare", "2>/dev/full >/dev/null", 0, ""),
    "closed": ("--help", ">&-", 0, ""),
    "all closed": ("--help", ">&- 2>&- <&-", 0, ""),
    "a reader that goes away": ("compare", "| true; exit ${PIPESTATUS[0]}", 0, ""),
}


@pytest.mark.parametrize(("command", "redirect", "code", "said"), STREAMS.values(), ids=STREAMS)
def test_streams_that_take_nothing(
    odd: Run, tmp_path: Path, command: str, redirect: str, code: int, said: str
) -> None:
    odd.scores_file.unlink()  # so that something is printed on stderr, too
    line = f"{sys.executable} -m vqabench {command} {redirect}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert said in done.stderr


@pytest.mark.parametrize(("form", "encoding"), [("table", "ascii:strict"), ("json", "cp1252")])
def test_a_stream_loses_the_characters_that_it_cannot_encode(
    odd: Run, tmp_path: Path, form: str, encoding: str
) -> None:
    edit("run.json", label="図‡")(odd)
    command = [sys.executable, "-m", "vqabench", "compare", "--format", form]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    if form == "json":
        assert any(row["label"] == "図‡" for row in json.loads(done.stdout)["rows"])


@pytest.mark.parametrize("columns", ["0", "²"])  # no number from 1, and what `isdigit` takes for one
def test_errors_are_seen_however_wide_the_terminal_claims_to_be(trial: Trial, columns: str) -> None:
    done = trial.run("compare", "nowhere", environment={"COLUMNS": columns})
    assert_refused(done, "nowhere: there is no such folder of runs")


def test_runs_are_found_in_the_order_of_their_names_through_links(tmp_path: Path) -> None:
    for name in ("b/seed-1", "b/seed-0", "c/seed-0"):
        write_run(tmp_path / "runs" / name)
    (tmp_path / "runs" / "a").symlink_to(tmp_path / "runs" / "c")
    found = [run.folder.relative_to(tmp_path / "runs") for run in find_runs([tmp_path / "runs"])]
    assert found == [Path("a/seed-0"), Path("b/seed-0"), Path("b/seed-1")]

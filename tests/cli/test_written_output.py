"""`--json` and `--out`: what a command prints can go to a file, in the form that its name asks for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.runs import write_run
from tests.tiny import write_tiny

LISTS = [("data", "list"), ("plugins", "list")]
TEXTS = [("data", "info", "tiny"), ("plugins", "show", "rescale")]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_tiny(tmp_path / "own")
    monkeypatch.setenv("VQABENCH_CATALOG", str(path))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((40.0, 41.5)):
        write_run(tmp_path / "runs", accuracy, seed=seed)
        write_run(tmp_path / "runs", 60.0 - accuracy / 10, seed=seed, loss="rescale")


@pytest.mark.parametrize("command", [*LISTS, *TEXTS], ids=" ".join)
@pytest.mark.usefixtures("catalog")
def test_a_file_holds_what_would_be_printed(cli: CommandLine, tmp_path: Path, command: tuple[str, ...]) -> None:
    for name, option in {"out.txt": (), "out.json": ("--json",), "OUT.JSON": ("--json",)}.items():
        printed = cli(*command, *option)
        assert printed.returncode == 0, printed.stderr
        written = cli(*command, "--out", name)
        assert (written.returncode, written.stdout) == (0, "")
        assert name in written.stderr
        assert (tmp_path / name).read_text(encoding="utf-8") == printed.stdout


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
@pytest.mark.usefixtures("catalog")
def test_lists_can_be_csv_and_markdown(cli: CommandLine, tmp_path: Path, command: tuple[str, ...]) -> None:
    document = json.loads(cli(*command, "--json").stdout)
    assert cli(*command, "-o", "list.csv").returncode == 0
    with (tmp_path / "list.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [one["name"] for one in document]
    assert cli(*command, "-o", "list.md").returncode == 0
    markdown = (tmp_path / "list.md").read_text(encoding="utf-8").splitlines()
    assert len(markdown) == len(document) + 2
    assert all(line.startswith("| ") for line in markdown)


def test_the_list_of_plugins_is_the_same_as_csv_and_as_json(cli: CommandLine, tmp_path: Path) -> None:
    document = json.loads(cli("plugins", "list", "--json").stdout)
    assert cli("plugins", "list", "-o", "list.csv").returncode == 0
    with (tmp_path / "list.csv").open(encoding="utf-8", newline="") as file:
        lines = [line | {"clash": line["clash"] == "true"} for line in csv.DictReader(file)]
    assert lines == document


def test_what_the_doctor_finds_can_go_to_a_file(cli: CommandLine, tmp_path: Path) -> None:
    done = cli("doctor", "--out", "doctor.json")
    document = json.loads((tmp_path / "doctor.json").read_bytes())
    assert (done.returncode, done.stdout) == (0 if document["well"] else 1, "")
    assert cli("doctor", "--out", "doctor.txt").returncode == done.returncode
    assert document["findings"][0]["found"].split()[0] in (tmp_path / "doctor.txt").read_text(encoding="utf-8")


@pytest.mark.usefixtures("runs")
def test_the_name_of_the_file_chooses_the_form_of_a_comparison(cli: CommandLine, tmp_path: Path) -> None:
    for ending, form in {"md": "markdown", "tex": "latex", "csv": "csv", "json": "json", "txt": "table"}.items():
        printed = cli("compare", "--format", form)
        assert printed.returncode == 0, printed.stderr
        assert cli("compare", "--out", f"table.{ending}").returncode == 0
        assert (tmp_path / f"table.{ending}").read_text(encoding="utf-8") == printed.stdout
    assert cli("compare", "--format", "json").stdout == cli("compare", "--json").stdout
    chosen = cli("compare", "--format", "csv", "--out", "table.dat")
    assert chosen.returncode == 0
    assert (tmp_path / "table.dat").read_bytes() == (tmp_path / "table.csv").read_bytes()


def test_scores_can_be_written_in_every_form(cli: CommandLine, tmp_path: Path, catalog: Path) -> None:
    own = catalog.parent
    annotations = json.loads((own / "test_annotations.json").read_bytes())
    annotations = annotations["annotations"] if isinstance(annotations, dict) else annotations
    answers = [{"question_id": one["question_id"], "answer": one["multiple_choice_answer"]} for one in annotations]
    (tmp_path / "results.json").write_text(json.dumps(answers))
    files = ("--questions", own / "test_questions.json", "--annotations", own / "test_annotations.json")
    scores = json.loads(cli("evaluate", "results.json", *files, "--json").stdout)
    for name in ("scores.csv", "scores.md", "scores.json", "scores.txt"):
        assert cli("evaluate", "results.json", *files, "--out", name).returncode == 0
    assert json.loads((tmp_path / "scores.json").read_bytes()) == scores
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = {(line["by"], line["category"]): line for line in csv.DictReader(file)}
    assert float(lines["answer type", "all"]["accuracy"]) == scores["accuracy"]["all"]
    for name, one in scores["per_question_type"].items():
        assert float(lines["question type", name]["accuracy"]) == one["accuracy"]
        assert int(lines["question type", name]["questions"]) == one["questions"]


def test_what_scores_lack_stands_in_every_form(cli: CommandLine, tmp_path: Path, catalog: Path) -> None:
    path = catalog.parent / "test_annotations.json"
    document = json.loads(path.read_bytes())
    annotations = document["annotations"] if isinstance(document, dict) else document
    odd = next(one for one in annotations if one["answer_type"] != "odd")
    odd["answer_type"] = "odd"
    path.write_text(json.dumps(document))
    (tmp_path / "results.json").write_text(
        json.dumps([{"question_id": odd["question_id"], "answer": odd["multiple_choice_answer"]}])
    )
    files = ("--questions", catalog.parent / "test_questions.json", "--annotations", path, "--missing", "wrong")
    notes = {}
    for name in ("scores.txt", "scores.md", "scores.csv"):
        done = cli("evaluate", "results.json", *files, "--out", name)
        assert done.returncode == 0, done.stderr
        notes[name] = (tmp_path / name).read_text() + (done.stderr if name.endswith("csv") else "")
    for message in notes.values():
        assert "questions count only in All" in message
        assert "have no answer and count as wrong" in message
    with (tmp_path / "scores.csv").open(newline="") as file:
        (line,) = [line for line in csv.DictReader(file) if line["by"] == "other answer type"]
    assert (line["category"], line["questions"]) == ("odd", "1")
    assert float(line["accuracy"]) > 0


def test_the_papers_own_tables_come_in_every_form(cli: CommandLine, tmp_path: Path) -> None:
    for name in ("t.txt", "t.md", "t.tex", "t.csv"):
        done = cli("compare", "--published", "--metric", "kappa", "--split", "test", "--out", name)
        assert done.returncode == 0, done.stderr
        text = (tmp_path / name).read_text()
        assert "14.24" in text
        assert "84.56" not in text  # an accuracy
    wrong = cli("compare", "--published", "--against", "updn/ce-plain")
    assert (wrong.returncode, "there is no such folder of runs" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--out", "nowhere/t.csv"], "there is no folder"),
        (["compare", "--out", "own"], "own: a folder, not a file; name a file in it"),
        (["compare", "--json", "--out", "t.csv"], "t.csv: the extension means csv, but the format is json"),
        (
            ["compare", "--format", "latex", "--out", "t.md"],
            "means markdown, but the format is latex",
        ),
        (["compare", "--against", ""], "no row is called ''"),
        (["compare", "--json", "--format", "csv"], "--json and --format csv: choose one"),
        (["compare", "--format", "csv", "--columns", "all"], "always holds every column"),
        (["compare", "--out", "t.json", "--by", "question-type"], "always holds every column"),
        (["compare", "--columns", "gian"], "did you mean 'gain'"),
        (["compare", "--split", "train"], "'train' is not one of"),
        (["compare", "a", "b", "--explain", "--split", "val"], "drop the other options"),
        (["compare", "a", "b", "--explain", "--out", "x.tex"], "cannot write .tex; valid endings: "),
        (["data", "info", "tiny", "--out", "x.csv"], "cannot write .csv; valid endings: .json, .txt"),
        (["plugins", "list", "--out", "x.tex"], "cannot write .tex; valid endings: "),
        (["compare", "--out", "e.pdf"], "cannot write .pdf; valid endings: .md, .tex, .csv, .json, .txt"),
        (["report", "--out", "e.pdf"], "cannot write .pdf; valid endings: .html, .htm"),
        (["compare", "runs/plain--0", "--columns", "gain"], "no table has gain; these tables have seeds, Y/N, "),
        (["train", "updn", "--out", "nowhere/x.md"], "there is no folder"),
        (["bench", "--backbones", "updn", "--dry-run", "--out", "x.txt"], "add --json"),
    ],
)
@pytest.mark.usefixtures("catalog", "runs")
def test_a_file_that_cannot_be_is_one_line_before_anything_is_done(
    cli: CommandLine, tmp_path: Path, arguments: list[str], message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = cli(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 4
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("runs")
def test_a_file_of_a_run_is_never_written_over(cli: CommandLine, tmp_path: Path) -> None:
    (run,) = tmp_path.glob("runs/plain--0")
    before = (run / "run.json").read_bytes()
    done = cli("compare", "--out", run / "run.json")
    assert (done.returncode, "not overwritten" in done.stderr) == (2, True)
    assert (run / "run.json").read_bytes() == before


@pytest.mark.usefixtures("runs")
def test_a_text_file_may_hold_any_format(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("compare", "--json", "--out", "all.txt").returncode == 0
    assert (tmp_path / "all.txt").read_text() == cli("compare", "--json").stdout


@pytest.mark.usefixtures("runs")
def test_a_dash_is_stdout(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("compare", "--json", "--out", "-").stdout == cli("compare", "--json").stdout
    assert not (tmp_path / "-").exists()


@pytest.mark.usefixtures("runs")
def test_an_error_leaves_the_file_as_it_was(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("mine")
    done = cli("compare", "--against", "nobody", "--out", "table.md")
    assert done.returncode == 2
    assert (tmp_path / "table.md").read_text() == "mine"


@pytest.mark.usefixtures("runs")
def test_a_split_and_columns_are_chosen(cli: CommandLine) -> None:
    done = cli("compare", "--split", "val", "--metric", "accuracy", "--columns", "All,gain")
    assert done.returncode == 0, done.stderr
    assert "in-domain val: accuracy" in done.stdout
    assert "out-of-domain" not in done.stdout
    assert "Y/N" not in done.stdout
    partly = cli("compare", "runs/plain--0", "--columns", "All,gain")
    assert (partly.returncode, "no table has gain" in partly.stderr) == (0, True)
    lines = list(csv.DictReader(cli("compare", "--split", "val", "--format", "csv").stdout.splitlines()))
    assert {line["split"] for line in lines} == {"val"}


@pytest.mark.usefixtures("runs")
def test_rows_are_compared_with_a_chosen_one(cli: CommandLine, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "b", 55.0, backbone="other", objective="bce")
    done = cli("compare", "--against", "updn/ce-rescale", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    against = {f"{row['backbone']}/{row['loss']}": row["against"] for row in document["rows"]}
    assert against == {"other/plain": "updn ce-rescale", "updn/plain": "updn ce-rescale", "updn/rescale": ""}
    assert "gain: against updn/ce-rescale, even if other settings differ" in document["notes"]
    wrong = cli("compare", "--against", "updn/ce-rescal")
    assert wrong.returncode == 2
    assert "no row is called 'updn/ce-rescal': did you mean 'updn/ce-rescale'?" in wrong.stderr

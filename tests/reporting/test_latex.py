"""LaTeX tables: what they say, and that they fit a column whatever stands in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.runs import write_run
from vqabench.evaluation.comparison import Comparison, compare, show_tables
from vqabench.reporting.latex import to_latex
from vqabench.results import Run, find_runs

CLASSES = {
    "two columns of A4": r"\documentclass[twocolumn,a4paper]{article}",
    "two columns of 11 points": r"\documentclass[11pt,twocolumn,a4paper]{article}",
    "columns of 219 points": (
        r"\documentclass[11pt,twocolumn]{article}\setlength\textwidth{455pt}\setlength\columnsep{17pt}"
    ),
    "one column": r"\documentclass{article}",
}
HOSTILE = r"a_b&c|50%\input{x}^~#$ «é» “[”*"


def compare_in(folder: Path, **options: Any) -> Comparison:
    return compare(find_runs([folder]), **options)


def write_seeds(folder: Path, accuracy: float, count: int = 3, **about: Any) -> list[Run]:
    return [
        write_run(folder, accuracy * (1 + (0.0, 0.01, 0.006)[seed]), seed=seed, **about) for seed in range(count)
    ]


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    about: dict[str, Any] = {"dataset": "vqa-cp-v2", "objective": "bce"}
    write_seeds(tmp_path, 40.0, **about)
    write_seeds(tmp_path, 50.0, loss="mask+rescale", **about)
    write_seeds(tmp_path, 3.5, loss="focal", **about)
    return compare_in(tmp_path)


def compile_tables(tables: str, folder: Path, document: str) -> str:
    """Compile tables with the packages that their first line names; give what pdfLaTeX complains of."""
    if shutil.which("pdflatex") is None:
        assert os.environ.get("CI") != "true", "there is no pdflatex"
        pytest.skip("there is no pdflatex to compile with")
    packages = "".join(re.findall(r"\\usepackage(?:\[\w+\])?\{\w+\}", tables.splitlines()[0]))
    document += r"\setlength\textheight{700pt}"
    (folder / "tables.tex").write_text(f"{document}{packages}\\begin{{document}}\n{tables}\n\\end{{document}}\n")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "tables.pdf").stat().st_size > 1000
    return "\n".join(re.findall(r"^.*(?:Overfull|multiply defined).*$", done.stdout, re.MULTILINE))


def test_a_table_names_methods_as_papers_do_and_has_its_notes_below(comparison: Comparison) -> None:
    (table, *_) = re.findall(
        r"\\begin\{table\}.*?\\end\{table\}", to_latex(comparison, None, "answer-type"), re.DOTALL
    )
    assert "UpDn + Answer Mask + Re-scaling & " in table
    assert r"\caption{vqa-cp-v2, out-of-domain test: accuracy in percent (objective BCE).}" in table
    assert r"\label{tab:vqa-cp-v2-test-accuracy-1}" in table
    assert r" & Y/N & Num. & Other & All & ID \\" in table
    assert r"\textbf{50.27}$_{\pm 0.25}$\textsuperscript{\dag}" in table
    notes = table.partition(r"\end{tabularx}")[2]
    assert r"Means over 3 seeds, $\pm$ one standard deviation." in notes
    assert r"\textsuperscript{\dag} p \textless{} 0.01 against plain" in notes
    assert "ID: the same weights" in notes
    assert "p (Holm)" not in notes  # the table has no such column
    assert "%" not in notes.replace(r"\%", "")


def test_a_minus_is_no_hyphen_and_a_hyphen_no_minus(comparison: Comparison) -> None:
    table = to_latex(comparison, "accuracy", "answer-type", columns=("All", "gain", "95 % CI"))
    assert r"$-$36.69" in table
    assert len(re.findall(r"\$-\$\d", table)) > 2
    assert not re.search(r"(?<![\w$])-\d", table)
    assert "out-of-domain" in table
    assert r"95 \% CI" in table


def test_one_seed_is_never_bold_and_a_note_says_what_to_do(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0)
    write_run(tmp_path, 50.0, loss="rescale")
    table = to_latex(compare_in(tmp_path), None, "answer-type")
    assert r"\textbf" not in table
    assert "Only one seed per row, so gains are not tested." in table
    assert r"\pm" not in table.replace(r"$\pm$ one", "")


def test_rows_that_differ_in_seeds_or_objective_say_so_by_their_names(tmp_path: Path) -> None:
    write_seeds(tmp_path / "a", 40.0)
    write_seeds(tmp_path / "b", 50.0, count=1, objective="bce", backbone="own-model")
    table = to_latex(compare_in(tmp_path), "accuracy", "answer-type")
    assert "UpDn (CE, 3 seeds)" in table
    assert "own-model (BCE, 1 seed)" in table


def test_runs_that_are_left_out_stand_in_a_comment(tmp_path: Path) -> None:
    write_seeds(tmp_path, 40.0)
    write_run(tmp_path, 40.0, seed=7, status="stopped")
    tables = to_latex(compare_in(tmp_path), "accuracy", "answer-type")
    (line,) = [line for line in tables.splitlines() if "stopped" in line]
    assert line.startswith("% left out, stopped: ")


@pytest.mark.parametrize("document", CLASSES.values(), ids=CLASSES)
def test_tables_fit_a_column_whatever_names_and_numbers_they_hold(tmp_path: Path, document: str) -> None:
    write_seeds(tmp_path / "a", 40.0, dataset="vqa-cp-v2", objective="bce")
    write_seeds(tmp_path / "b", 99.0, dataset="vqa-cp-v2", objective="bce", loss="rescale")
    write_seeds(tmp_path / "c", -30.0, dataset="vqa-cp-v2", objective="bce", loss="equalized-focal")
    write_seeds(tmp_path / "d", 60.0, count=1, dataset="vqa-cp-v2", objective="ce", label=HOSTILE)
    write_seeds(
        tmp_path / "e", 60.0, dataset="vqa-cp-v2", backbone="a" * 70, loss="x" * 40, label="hidden=1024,lr=0.003"
    )
    write_seeds(tmp_path / "f", 60.0, dataset=HOSTILE, backbone=HOSTILE, select="test")
    comparison = compare_in(tmp_path, published=True)
    every = ("seeds", "Y/N", "Num.", "Other", "All", "in-domain", "gain", "95 % CI", "p (Holm)", "differs")
    tables = [
        to_latex(comparison, None, "answer-type"),
        to_latex(comparison, None, "answer-type", columns=every)
        .partition("\n")[2]
        .replace(r"\label{", r"\label{all-"),
        to_latex(comparison, None, "question-type").partition("\n")[2].replace(r"\label{", r"\label{types-"),
    ]
    assert compile_tables("\n\n\\clearpage\n".join(tables), tmp_path, document) == ""


def test_many_rows_and_many_types_make_several_tables_that_fit_a_page(tmp_path: Path) -> None:
    for number in range(50):
        write_run(tmp_path, float(number), label=f"hidden={number}", options={"backbone": {"hidden": number}})
    comparison = compare_in(tmp_path)
    tables = to_latex(comparison, "accuracy", "answer-type", "test")
    assert tables.count(r"\begin{table}") == 2
    tables += to_latex(comparison, None, "question-type", "test").partition("\n")[2].replace("{tab:", "{tab:types-")
    assert "(50) updn ce-plain" in tables
    assert compile_tables(tables, tmp_path, CLASSES["two columns of A4"]) == ""


@pytest.mark.parametrize("document", CLASSES.values(), ids=CLASSES)
def test_the_papers_own_tables_fit_a_column_and_claim_no_seeds(tmp_path: Path, document: str) -> None:
    tables = to_latex(show_tables(None, ["no runs"]), None, "answer-type")
    assert "Means over" not in tables
    assert "% no runs" in tables
    assert "Overfull" not in compile_tables(tables, tmp_path, document)

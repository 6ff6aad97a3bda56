from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.lines import Line2D

from tests.reporting.findings import HOSTILE, gather_written
from tests.runs import write_run
from vqabench.errors import InputError
from vqabench.evaluation.findings import Curve, DatasetFindings, Point
from vqabench.evaluation.prior import TypeShift
from vqabench.paths import Paths
from vqabench.reporting.charts import (
    Figure,
    Line,
    LineChart,
    build_accuracies,
    build_gains,
    build_scatter,
    build_shifts,
)
from vqabench.reporting.figures import COLUMN, PAGE, check_figures, draw, render, write_figures
from vqabench.workflows.report import gather

SHIFT = TypeShift(
    "is there a",
    {"train": 30, "test": 20},
    0.5,
    ("yes", "no"),
    {"train": (0.75, 0.25), "test": (0.25, 0.75), "updn ce-plain": (0.5, 0.5)},
)


@pytest.fixture
def findings(tmp_path: Path) -> DatasetFindings:
    for seed in (0, 1, 2):
        write_run(tmp_path / "runs", 40.0 + seed, seed=seed)
        write_run(tmp_path / "runs", 50.0 + 2 * seed, seed=seed, loss="rescale").append_epoch(
            {"epoch": 1, "val_accuracy": 10.0}
        )
    return gather_written(tmp_path / "runs")


@pytest.fixture
def shift() -> TypeShift:
    shares: dict[str, tuple[float, ...]] = {
        "train": (0.75, 0.25),
        "test": (0.25, 0.75),
        "updn ce-plain": (0.5, 0.5),
    }
    return TypeShift("is there a", {"train": 30, "test": 20}, 0.5, ("yes", "no"), shares)


def axes_of(figure: Figure) -> Axes:
    (axes,) = draw(figure).axes
    return axes


def points_of(line: Line2D) -> list[list[float]]:
    points: list[list[float]] = np.asarray(line.get_xydata(), float).tolist()
    return points


def test_every_chart_is_written_as_pdf_and_svg_and_named_after_what_it_shows(
    findings: DatasetFindings, tmp_path: Path
) -> None:
    written = list(write_figures([findings], tmp_path / "new" / "figures"))
    names = ["d-domains", "d-accuracy", "d-gains-updn-ce-rescale", "d-curves-updn-ce-val"]
    assert [path.name for path in written] == [f"{name}.{ending}" for name in names for ending in ("pdf", "svg")]
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".pdf":
            assert content.startswith(b"%PDF-1.")
            assert content.rstrip().endswith(b"%%EOF")
            assert b"/FontFile2" in content  # TrueType
            assert b"/Type3" not in content
        else:
            ElementTree.fromstring(content)


def test_the_svg_has_the_names_of_the_rows_as_text(findings: DatasetFindings) -> None:
    for (charts,) in (build_accuracies(findings), build_scatter(findings)):
        text = " ".join(ElementTree.fromstring(render(charts.figures[0])["svg"]).itertext())
        assert "updn ce-plain" in text
        assert "updn ce-rescale" in text


def test_the_same_chart_gives_the_same_bytes_without_a_date(findings: DatasetFindings) -> None:
    (charts,) = build_accuracies(findings)
    first = render(charts.figures[0])
    assert first == render(charts.figures[0])
    assert b"Date" not in first["pdf"]
    assert not re.search(rb"<dc:date>|\d{4}-\d\d-\d\dT", first["svg"])


def test_bars_are_the_numbers_of_the_table_with_their_deviations(findings: DatasetFindings) -> None:
    (charts,) = build_accuracies(findings)
    table = [float(cell.text) for row in charts.numbers.rows for cell in row[1:]]
    axes = axes_of(charts.figures[0])
    bars = [one for one in axes.containers if isinstance(one, BarContainer)]
    errors = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    assert [round(one.patches[0].get_width(), 2) for one in bars] == table[::2]
    spans = [segment[:, 0] for one in errors for segment in one.lines[2][0].get_segments()]
    assert [round((high - low) / 2, 2) for low, high in spans] == table[1::2]
    legend = axes.get_legend_handles_labels()[1]
    assert legend == ["out-of-domain test", "in-domain val"]


def test_gains_and_losses_are_the_numbers_of_the_table(findings: DatasetFindings) -> None:
    (charts,) = build_gains(findings)
    (bar,) = (one for one in axes_of(charts.figures[0]).containers if isinstance(one, BarContainer))
    assert f"{bar.patches[0].get_width():+.2f}" == charts.numbers.rows[0][1].text == "+11.00"


def test_points_lie_where_the_table_says(findings: DatasetFindings) -> None:
    (charts,) = build_scatter(findings)
    marks = [line for line in axes_of(charts.figures[0]).lines if not str(line.get_label()).startswith("_")]
    for mark, row in zip(marks, charts.numbers.rows, strict=True):
        assert mark.get_label() == f"{row[0].text} {row[1].text}"
        x, y = points_of(mark)[0]
        assert (f"{x:.2f}", f"{y:.2f}") == (row[2].text, row[4].text)


def test_lines_go_through_the_means_of_their_epochs_and_bands_span_the_seeds() -> None:
    points = tuple(Point(epoch, 10.0 * epoch, 9.0 * epoch, 12.0 * epoch) for epoch in (1, 2, 3))
    axes = axes_of(Figure("", "c", LineChart((Line("a", 0, Curve(2, points)), Line("b", 7, Curve(1, points[:1]))))))
    first, second = axes.lines
    assert points_of(first) == [[1, 10], [2, 20], [3, 30]]
    assert points_of(second) == [[1, 10]]
    (band,) = axes.collections  # of the line with several seeds
    low, high = band.get_paths()[0].get_extents().intervaly
    assert (low, high) == (9, 36)


def test_shares_are_the_numbers_of_the_table(shift: TypeShift) -> None:
    (charts,) = build_shifts([shift])
    axes = axes_of(charts.figures[0])
    columns = [[float(row[n].text) for row in charts.numbers.rows] for n in (1, 2, 3)]
    bars = [
        [patch.get_width() for patch in one.patches] for one in axes.containers if isinstance(one, BarContainer)
    ]
    assert [*bars, [x for x, _ in points_of(axes.lines[0])]] == columns


def test_a_long_name_takes_the_width_of_the_page_and_others_a_column(tmp_path: Path) -> None:
    for label, width in (("a=1", COLUMN), ("a=" + "1" * 60, PAGE)):
        write_run(tmp_path / label, 40.0, label=label)
        (charts,) = build_accuracies(gather_written(tmp_path / label))
        assert draw(charts.figures[0]).get_size_inches()[0] == width


def test_names_that_begin_with_an_underscore_are_in_the_legend() -> None:
    curve = Curve(1, (Point(1, 10.0, 10.0, 10.0),))
    axes = axes_of(Figure("", "c", LineChart((Line("_mine", 0, curve), Line("b", 7, curve)))))
    assert [name.strip() for name in axes.get_legend_handles_labels()[1]] == ["_mine", "b"]


def test_a_long_name_of_letters_that_take_several_bytes_is_cut(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", 40.0, dataset="犬" * 100)
    written = list(write_figures(gather([], None, Paths(tmp_path / "runs", tmp_path / "no-data")), tmp_path / "f"))
    assert [path.suffix for path in written] == [".pdf", ".svg"]
    assert all(path.is_file() for path in written)


def test_names_from_outside_stay_text_and_their_files_in_the_folder(tmp_path: Path) -> None:
    for name in ("../$x^2$ " + HOSTILE, "../$x^2$!" + HOSTILE, "犬\x07"):
        write_run(tmp_path / "runs", 40.0, dataset=name, label=name)
    paths = Paths(tmp_path / "runs", tmp_path / "no-data")
    (*_, last) = written = list(write_figures(gather([], None, paths), tmp_path / "figures"))
    assert len(set(written)) == 6  # two names differ in signs alone
    assert {path.parent for path in written} == {tmp_path / "figures"}
    assert HOSTILE in " ".join(ElementTree.fromstring(written[1].read_bytes()).itertext())
    assert last.name == "犬-accuracy.svg"


def test_a_folder_that_is_a_file_and_files_of_a_run_are_refused(findings: DatasetFindings, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(InputError, match="taken: not a folder"):
        check_figures(tmp_path / "taken")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "d-domains.pdf"):
        (folder / name).touch()
    with pytest.raises(InputError, match="belongs to a run"):
        next(write_figures([findings], folder))


def test_without_matplotlib_one_line_says_how_to_install_it_and_nothing_is_written(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", 40.0)
    blocked = "import sys; sys.modules['matplotlib'] = None; from vqabench.__main__ import main; main()"
    command = [sys.executable, "-c", blocked, "report", "runs", "--figures", "figures"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --figures needs matplotlib; install it: ")
    assert line.endswith('pip install "vqabench[plots]"')
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]

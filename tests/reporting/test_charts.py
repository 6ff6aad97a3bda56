from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.reporting.findings import gather_written
from tests.runs import write_run
from vqabench.reporting.charts import LONGEST_LABEL, MOST_ROWS, BarChart, build_accuracies, shorten


@given(st.text(max_size=120))
def test_a_long_name_keeps_its_beginning_and_its_end(name: str) -> None:
    short = shorten(name)
    assert len(short) <= LONGEST_LABEL
    assert short == name or (name.startswith(short.split("…")[0]) and len(name) > LONGEST_LABEL)


def test_of_many_rows_the_most_accurate_are_drawn_in_their_order_and_the_note_says_so(tmp_path: Path) -> None:
    for number in range(MOST_ROWS + 2):
        write_run(tmp_path, 10.0 + number, label=f"{number:03}")
    (charts,) = build_accuracies(gather_written(tmp_path))
    assert isinstance(charts.figures[0].plot, BarChart)
    names = [group.name for group in charts.figures[0].plot.groups]
    assert len(names) == MOST_ROWS == len(charts.numbers.rows)
    assert "000" not in " ".join(names)
    assert names == sorted(names)
    assert f"The {MOST_ROWS} most accurate of {MOST_ROWS + 2} rows" in charts.note

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reporting.findings import HOSTILE, describe_changed, gather_written
from tests.runs import write_run
from vqabench.evaluation.findings import DatasetFindings
from vqabench.reporting.charts import (
    MOST_ROWS,
    STYLES,
    build_accuracies,
    build_gains,
    build_learning_curves,
)
from vqabench.reporting.page import make_page
from vqabench.reporting.svg import draw, draw_legend


@pytest.fixture
def findings(tmp_path: Path) -> DatasetFindings:
    for seed in (0, 1, 2):
        write_run(tmp_path, 40.0 + seed, seed=seed)
        run = write_run(tmp_path, 50.0 + 2 * seed, seed=seed, loss="rescale")
        for epoch in (1, 2):
            run.append_epoch({"epoch": epoch, "val_accuracy": 10.0 * epoch + seed, "test_accuracy": 5.0})
    return gather_written(tmp_path)


def test_the_same_findings_make_the_same_page(findings: DatasetFindings) -> None:
    assert make_page([findings]) == make_page([findings])


def test_a_page_asks_for_nothing_and_runs_nothing_but_its_own_script(findings: DatasetFindings) -> None:
    page = make_page([findings])
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;;")
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy[1]
    assert not re.search(r"""\b(src|href)=["'](?!#|data:image/png)""", page)
    assert "url(" not in page
    assert "@import" not in page
    assert " style=" not in page


def test_tables_have_every_row_and_column_of_the_comparison(findings: DatasetFindings) -> None:
    page = make_page([findings])
    for text in (
        "41.00 ±1.00",
        "<b>52.00 ±2.00†</b>",
        "+11.00",
        "p (Holm)",
        "how many",
        "† p &lt; 0.01 against plain",
    ):
        assert text in page, text
    assert page.count("<caption>") == page.count("<table")


def test_every_name_in_the_page_is_given_once(findings: DatasetFindings) -> None:
    page = make_page([findings, replace(findings, name="again")])
    names = Counter(re.findall(r'\bid="([^"]+)"', page))
    assert names.most_common(1)[0][1] == 1
    references = [name for text in re.findall(r'aria-labelledby="([^"]+)"', page) for name in text.split()]
    references += re.findall(r'href="#([^"]+)"', page)
    assert set(references) <= names.keys()


def test_text_from_runs_and_data_is_escaped_everywhere(tmp_path: Path) -> None:
    for loss in ("plain", "rescale"):
        run = write_run(
            *(tmp_path, 40.0),
            loss=loss,
            dataset=HOSTILE,
            backbone=HOSTILE,
            label=HOSTILE,
            notes=[HOSTILE],
            pretraining=[HOSTILE],
            options={"backbone": {HOSTILE: HOSTILE}},
            versions={HOSTILE: HOSTILE},
        )
        run.append_epoch({"epoch": 1, "val_accuracy": 1.0})
    findings = gather_written(tmp_path)
    pair = describe_changed(findings.comparison.rows, HOSTILE)
    page = make_page([replace(findings, pairs=(pair,), missing=(HOSTILE,))])
    assert page.count("<script>") == 1
    assert "<script>alert" not in page
    assert page.count("alert(1)") > 40
    assert not re.search(r"""["']<?script""", page)


def test_a_run_that_is_not_honest_is_branded_wherever_its_row_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, 40.0, select="test")
    run.append_epoch({"epoch": 1, "val_accuracy": 1.0})
    page = make_page([gather_written(tmp_path)])
    assert "updn ce-plain" in page
    assert not re.findall(r"updn ce-plain(?! ‡)", page)
    assert "‡ the epoch was chosen on the test split" in page


def test_bars_have_the_deviation_and_gains_their_confidence_interval(findings: DatasetFindings) -> None:
    (accuracy,) = build_accuracies(findings)
    assert [cell.text for cell in accuracy.numbers.rows[1]] == ["updn ce-rescale", "52.00", "2.00", "52.00", "2.00"]
    assert draw(accuracy.figures[0], "k").count("whisker") == 4 * 3
    (gains,) = build_gains(findings)
    (line,) = gains.numbers.rows
    assert [cell.text for cell in line] == ["how many", "+11.00", "+8.5 to +13.5"]
    assert draw(gains.figures[0], "k").count("whisker") == 3


def test_curves_say_what_was_not_watched(tmp_path: Path) -> None:
    write_run(tmp_path, 40.0).append_epoch({"epoch": 1, "val_accuracy": 12.5})
    findings = gather_written(tmp_path)
    (charts,) = build_learning_curves(findings)
    assert len(charts.figures) == 1
    assert "--track-test" in charts.note
    assert [cell.text for cell in charts.numbers.rows[0]] == ["updn ce-plain", "val", "1", "12.5"]


def test_charts_of_many_rows_say_what_they_leave_out_and_tables_hold_all(tmp_path: Path) -> None:
    for number in range(MOST_ROWS + 5):
        options = {"backbone": {"hidden": number}}
        run = write_run(tmp_path, float(number), label=f"hidden={number}", options=options)
        run.append_epoch({"epoch": 1, "val_accuracy": 1.0})
    findings = gather_written(tmp_path)
    (accuracy,) = build_accuracies(findings)
    drawn = [line[0].text for line in accuracy.numbers.rows]
    assert drawn == [f"updn ce-plain @hidden={n}" for n in sorted(map(str, range(5, MOST_ROWS + 5)))]
    assert f"{MOST_ROWS} most accurate of {MOST_ROWS + 5} rows" in accuracy.note
    (curves,) = build_learning_curves(findings)
    assert len(draw_legend(curves.figures[0])) == STYLES
    assert f"The first {STYLES} of {MOST_ROWS + 5} rows" in curves.note
    page = make_page([findings])
    assert all(f"ce-plain @hidden={number}</th>" in page for number in range(MOST_ROWS + 5))


def test_provenance_tells_what_seeds_share_and_where_they_differ(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, 40.0, seed=seed, seconds=60.0 + seed, versions={"torch": "2.13.0"})
    page = make_page([gather_written(tmp_path)])
    assert '<th scope="row">versions.torch</th><td>2.13.0</td>' in page
    assert '<th scope="row">options.backbone.hidden</th><td>8</td>' in page
    assert '<th scope="row">seconds</th>' not in page
    assert '<th scope="row" class="stick">1</th><td>61.0</td>' in page

"""The page that `vqabench report` makes, in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Page

from tests.browser import CONTRASTS, FAULTS, chromium, opened
from tests.conftest import CommandLine
from tests.reporting.findings import HOSTILE, describe_changed, gather_written
from tests.runs import write_run
from tests.tiny import write_tiny
from tests.training.runs import SIZES, places_in, run
from vqabench.data.vqa.annotations import read_annotations, read_questions, write_annotations, write_questions
from vqabench.reporting.page import make_page
from vqabench.results import find_runs

LEARNING: dict[str, Any] = {"epochs": 8, "precision": "float32", "settings": SIZES | {"recipe.lr": 0.04}}
"""Enough for the two strategies to answer differently."""
PHONE = (360, 640)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def make_hostile(folder: Path) -> None:
    """Put text that would be a script into questions, types and human answers."""
    for split in ("train", "val", "test"):
        questions, annotations = folder / f"{split}_questions.json", folder / f"{split}_annotations.json"
        asked = [msgspec.structs.replace(one, question=one.question + HOSTILE) for one in read_questions(questions)]
        write_questions(questions, asked)
        answered = []
        for one in read_annotations(annotations):
            last = msgspec.structs.replace(one.answers[-1], answer=HOSTILE)
            kind = one.question_type + HOSTILE
            answered.append(msgspec.structs.replace(one, question_type=kind, answers=(*one.answers[:-1], last)))
        write_annotations(annotations, answered)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two strategies with two seeds on hostile data, and make a report with the real command line."""
    folder = tmp_path_factory.mktemp("report")
    paths = places_in(folder)
    make_hostile(folder / "own")
    for loss in ("plain", "focal"):
        for seed in (0, 1):
            run(paths, loss=loss, seeds=(seed,), track_test=loss == "focal", **LEARNING)
    for one in find_runs([paths.runs]):
        manifest = one.read_manifest()
        one.write_manifest(manifest, label=HOSTILE, notes=[*manifest.notes, HOSTILE])
    command = [sys.executable, "-W", "error", "-m", "vqabench", "report", "runs", "-o", "report.html"]
    where = ["--data-dir", "data", "--catalog", "own/catalog.toml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VQABENCH_")}
    done = subprocess.run(
        [*command, *where], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("report.html: ")
    assert "questions that updn ce-focal" in done.stderr
    return folder / "report.html"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report of runs with known numbers, one of them undefined, and a changed question with a picture."""
    folder = tmp_path_factory.mktemp("written")
    accuracies = {"plain": 9.5, "focal": 30.25, "ldam": None, "mask": 2.0, "rescale": 9.5}
    for loss, accuracy in accuracies.items():
        write_run(folder, accuracy, loss=loss)
    findings = gather_written(folder)
    page = make_page([replace(findings, pairs=(describe_changed(findings.comparison.rows, "sheep"),))])
    (folder / "page.html").write_text(page, encoding="utf-8")
    return folder / "page.html"


@pytest.mark.parametrize("width", [1200, PHONE[0]])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_an_error_or_a_request_and_fits(
    browser: Browser, report: Path, written: Path, width: int, scheme: str
) -> None:
    for path in (report, written):
        with opened(browser, path, width, PHONE[1], color_scheme=scheme) as shown:
            shown.page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
            assert shown.page.evaluate("document.scrollingElement.scrollWidth") <= width
            assert shown.console == []
            assert shown.requests == [path.as_uri()]


def test_it_shows_all_that_there_is(browser: Browser, report: Path) -> None:
    with opened(browser, report) as shown:
        heads = shown.page.locator("h3").all_inner_texts()
        assert heads == [
            "Conclusions",
            "Out of domain against in domain",
            "Tables",
            "Accuracy",
            "Gains by question type",
            "Learning curves",
            "Answers that shifted most",
            "Changed questions",
            "Configuration and provenance",
        ]
        assert shown.page.locator(".curves").count() == 2  # in domain, and out of domain
        assert shown.page.locator(".scene .region").count() > 0
        assert "% sure" in shown.page.locator(".card").first.inner_text()


def test_text_from_data_and_runs_stays_text(browser: Browser, report: Path) -> None:
    with opened(browser, report) as shown:
        assert shown.page.evaluate("document.scripts.length") == 1
        questions = shown.page.locator("h6").all_inner_texts()
        assert questions
        assert all(question.endswith("?" + HOSTILE) for question in questions)
        assert HOSTILE in shown.page.locator(".card").first.inner_text()
        assert HOSTILE in shown.page.locator("#d1-tables tbody th").nth(1).inner_text()
        drawn = shown.page.locator("svg title").all_text_contents()
        assert any(HOSTILE in title for title in drawn)


def numbers_of(page: Page, column: int) -> list[str]:
    rows = page.locator("#d1-tables table.sortable").first.locator("tbody tr")
    return [row.locator("th, td").nth(column).inner_text() for row in rows.all()]


@pytest.mark.parametrize("way", ["click", "Enter", "Space"])
def test_a_table_is_sorted_by_click_and_by_keyboard(browser: Browser, written: Path, way: str) -> None:
    with opened(browser, written) as shown:
        table = shown.page.locator("#d1-tables table.sortable").first
        assert table.locator("thead th").all_inner_texts()[6] == "All"
        head = table.locator("thead th").nth(6)

        def sort() -> None:
            button = head.get_by_role("button", name="All")
            if way == "click":
                button.click()
            else:
                button.focus()
                shown.page.keyboard.press(way)

        sort()
        assert head.get_attribute("aria-sort") == "descending"
        assert numbers_of(shown.page, 6) == ["30.25", "9.50", "9.50", "2.00", "–"]
        assert numbers_of(shown.page, 1)[1:3] == ["ce-plain", "ce-rescale"]  # equal: as they stood
        sort()
        assert head.get_attribute("aria-sort") == "ascending"
        assert numbers_of(shown.page, 6) == ["2.00", "9.50", "9.50", "30.25", "–"]
        table.get_by_role("button", name="strategy").click()
        assert head.get_attribute("aria-sort") is None
        assert numbers_of(shown.page, 1) == ["ce-focal", "ce-ldam", "ce-mask", "ce-plain", "ce-rescale"]


def test_the_keyboard_reaches_the_content_first_and_every_table(browser: Browser, written: Path) -> None:
    with opened(browser, written) as shown:
        shown.page.keyboard.press("Tab")
        assert shown.page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert shown.page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
        shown.page.keyboard.press("Enter")
        assert shown.page.evaluate("document.activeElement.id") == "content"
        for _ in range(2):  # past the numbers of the scatter plot, which are folded
            shown.page.keyboard.press("Tab")
        assert shown.page.evaluate("document.activeElement.getAttribute('role')") == "region"
        assert shown.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_page_can_be_read_by_a_screen_reader(browser: Browser, report: Path, written: Path) -> None:
    for path in (report, written):
        with opened(browser, path) as shown:
            assert shown.page.evaluate(FAULTS) == []
            assert shown.page.locator("figure svg[role=img]").count() > 0
            assert shown.page.locator("thead button").count() > 10


COLORS = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"


def test_text_can_be_read_in_light_and_in_dark(browser: Browser, report: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        with opened(browser, report, color_scheme=scheme) as shown:
            shown.page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
            contrasts = shown.page.evaluate(CONTRASTS)
            assert {"TD.", "SUMMARY.", "text.number", "text.label", "text.tick", "P.about"} <= contrasts.keys()
            assert {name: value for name, value in contrasts.items() if value < 4.5} == {}
            seen[scheme] = shown.page.evaluate(COLORS)
    assert set(seen["light"]).isdisjoint(seen["dark"])


def test_a_picture_of_attention_enlarges_by_click_and_by_keyboard_and_goes_back(
    browser: Browser, report: Path
) -> None:
    for width in (1200, PHONE[0]):
        with opened(browser, report, width) as shown:
            button = shown.page.locator(".enlarge").first
            small = button.locator("svg").bounding_box()
            assert shown.page.get_by_text("Click a picture to enlarge it.").is_visible()
            name = button.get_attribute("aria-label") or ""
            assert name.startswith("Enlarge: Attention of updn ce-")
            button.focus()
            shown.page.keyboard.press("Enter")
            dialog = shown.page.locator("dialog")
            large = dialog.locator("svg").bounding_box()
            assert small is not None
            assert large is not None
            assert large["width"] > 1.5 * small["width"]
            assert large["x"] >= 0
            assert large["x"] + large["width"] <= width
            assert HOSTILE in dialog.inner_text()
            assert shown.page.evaluate(FAULTS) == []  # nothing has its name twice
            shown.page.keyboard.press("Escape")
            assert not dialog.is_visible()
            assert button.locator("svg").count() == 1
            assert button.evaluate("one => document.activeElement === one")
            button.click()
            dialog.get_by_role("button", name="Close").click()
            assert not dialog.is_visible()
            assert shown.console == []


def test_the_page_begins_with_what_can_be_said_and_a_scatter(browser: Browser, report: Path) -> None:
    with opened(browser, report) as shown:
        lines = shown.page.locator(".said li").all_inner_texts()
        assert len(lines) == 1
        assert "updn ce-focal" in lines[0]
        assert "over 2 seeds" in lines[0] or "not tested over seeds" in lines[0]
        assert "images" in lines[0]  # the questions are here, too
        assert shown.page.locator(".dots .mark").count() == 2
        top = [shown.page.locator(f"#{key}").bounding_box() for key in ("d1-said", "d1-domains", "d1-tables")]
        paths = [box["y"] for box in top if box is not None]
        assert len(paths) == 3
        assert paths == sorted(paths)


def test_distributions_lie_over_one_another(browser: Browser, report: Path) -> None:
    with opened(browser, report) as shown:
        chart = shown.page.locator("#d1-answers .overlay").first
        answers = chart.locator(".label").count()
        assert chart.locator(".behind").count() == answers
        assert chart.locator(".outline").count() == answers
        assert chart.locator(".mark").count() == 2 * answers
        behind, outline = (chart.locator(kind).first.bounding_box() for kind in (".behind", ".outline"))
        assert behind is not None
        assert outline is not None
        assert abs(behind["y"] - outline["y"]) < 3


def test_on_a_phone_a_row_keeps_its_name_and_has_a_rule(browser: Browser, written: Path) -> None:
    with opened(browser, written, PHONE[0]) as shown:
        table = shown.page.locator("#d1-tables .scroll").first
        table.evaluate("one => { one.scrollLeft = 200; }")
        name = table.locator("tbody .stick").first
        before = name.evaluate("one => getComputedStyle(one, '::before').content")
        assert "updn" in before  # the backbone's own column does not stand on a phone
        box, frame = name.bounding_box(), table.bounding_box()
        assert box is not None
        assert frame is not None
        assert abs(box["x"] - frame["x"]) < 1
        for side in ("right", "bottom"):
            width = name.evaluate(f"one => getComputedStyle(one).border{side.capitalize()}Width")
            assert width != "0px"


def test_a_page_bears_a_title_and_a_date(cli: CommandLine, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", 40.0, started="2026-01-02T03:04:05+00:00")
    done = cli("report", "--title", "Ours <b>", SOURCE_DATE_EPOCH="86400")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>Ours &lt;b&gt;</title>" in page
    assert "<h1>Ours &lt;b&gt;</h1>" in page
    assert "Made on 2 January 1970 by vqabench" in page
    assert "from runs trained 2026-01-02." in page


def test_without_a_script_everything_is_there_but_sorting(browser: Browser, written: Path) -> None:
    with opened(browser, written, java_script_enabled=False) as shown:
        assert shown.page.locator("table.sortable").count() > 3
        assert shown.page.locator("button").count() == 0
        assert shown.page.locator(".scene").first.is_visible()
        assert not shown.page.get_by_text("Click a picture").is_visible()
        assert not shown.page.locator("#sorting").is_visible()
        assert shown.page.locator("#d1-tables").get_by_text("30.25").first.is_visible()
        assert shown.page.locator("figure svg").first.is_visible()


def test_the_browser_runs_no_other_script_and_asks_for_nothing(browser: Browser, written: Path) -> None:
    attack = """() => {
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", "<img src='http://127.0.0.1:9/' onerror='window.ran = true'>");
      return window.ran === true;
    }"""
    with opened(browser, written) as shown:
        assert shown.page.evaluate(attack) is False
        shown.page.wait_for_timeout(200)
        assert shown.page.evaluate("window.ran === true") is False
        assert "Content Security Policy" in " ".join(shown.console)


def test_a_picture_is_drawn_pixel_by_pixel(browser: Browser, written: Path) -> None:
    with opened(browser, written) as shown:
        picture = shown.page.locator(".scene image").first
        assert picture.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"
        box = picture.bounding_box()
        assert box is not None
        assert box["width"] > 20
        decoded = """one => new Promise((done) => {
          const image = new Image();
          image.onload = () => done([image.naturalWidth, image.naturalHeight]);
          image.src = one.getAttribute("href");
        })"""
        assert picture.evaluate(decoded) == [2, 1]


def test_the_same_runs_make_the_same_bytes_from_data_or_without(cli: CommandLine, tmp_path: Path) -> None:
    catalog = write_tiny(tmp_path / "own")
    common = (
        "--dataset",
        "tiny",
        "--catalog",
        catalog,
        "--epochs",
        "1",
        "--set",
        "hidden=8",
        "--set",
        "embedding=8",
    )
    for loss in ("plain", "focal"):
        assert cli("train", "updn", "--loss", loss, *common).returncode == 0
    pages = []
    for name in ("a.html", "b.html"):
        assert cli("report", "-o", name, "--catalog", catalog).returncode == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    message = cli("report", "runs", "--out", "c.html", "--catalog", catalog, "--data-dir", "elsewhere")
    assert message.returncode == 0
    assert (
        "warning: answer distributions and changed questions are left out: tiny is not prepared; run: "
        "vqabench data prepare tiny" in message.stderr
    )
    assert "Missing from this report" in (tmp_path / "c.html").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"a.html", "b.html", "c.html", "data", "own", "runs"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "nowhere/report.html"], "there is no folder"),
        (["-o", "own"], "--out own: is a folder; name a file, such as own/report.html"),
        (["gone"], "gone: there is no such folder of runs; begin with: vqabench train NAME"),
        ([], "runs: no runs yet"),
        (["own"], "holds no run (no run.json in it or below); begin with: vqabench train NAME"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    cli: CommandLine, tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_tiny(tmp_path / "own")
    done = cli("report", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert {path.name for path in tmp_path.iterdir()} == {"own"}

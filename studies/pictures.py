"""Write pictures of the sections of a report, for pages that cannot show HTML.

    vqabench report RUNS -o report.html
    python studies/pictures.py report.html docs/pictures

renders each section of charts, and the first changed questions, in headless Chromium.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import FloatRect, Page, sync_playwright

WIDTH, TALLEST = 1000, 1500
"""Pixels."""


def take(page: Page, folder: Path) -> None:
    """Write a picture of each section of the page, cut off if it is too tall."""
    for section in page.locator("main > section").all():
        key, name = section.get_attribute("id") or "", section.locator("h2").inner_text()
        for part in section.locator("> section").all():
            kind = (part.get_attribute("id") or "").removeprefix(f"{key}-")
            box = part.bounding_box()
            if kind not in ("said", "tables", "runs") and box is not None:
                clip = FloatRect(x=0.0, y=box["y"], width=WIDTH, height=min(box["height"], TALLEST))
                page.screenshot(path=folder / f"{name}-{kind}.png", clip=clip, full_page=True)
                print(folder / f"{name}-{kind}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(arguments.report.resolve().as_uri())
        take(page, arguments.folder)
        browser.close()


if __name__ == "__main__":
    main()

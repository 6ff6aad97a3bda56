"""A real browser, headless, that opens pages from files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    "--disable-dev-shm-usage",
)


def find_chromium() -> str:
    """Find Chromium, or skip the test; where CI is true there must be one."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        told = f"no browser: none of {', '.join(NAMES)} is installed"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium."""
    executable = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page, and what has come of opening it."""

    page: Page
    console: list[str] = field(default_factory=list)
    """Messages, errors and dialogs."""
    requests: list[str] = field(default_factory=list)
    """Addresses asked for, without those that hold their own content."""


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1200, height: int = 900, **context: Any) -> Iterator[Opened]:
    """Open a file in a window of its own."""
    window = browser.new_context(viewport={"width": width, "height": height}, **context)
    try:
        shown = Opened(window.new_page())
        shown.page.on("console", lambda message: shown.console.append(message.text))
        shown.page.on("pageerror", lambda error: shown.console.append(str(error)))
        shown.page.on(
            "dialog", lambda dialog: (shown.console.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        shown.page.on("request", lambda request: shown.requests.append(request.url))
        shown.page.goto(path.as_uri())
        shown.requests[:] = [url for url in shown.requests if not url.startswith("data:")]
        yield shown
    finally:
        window.close()

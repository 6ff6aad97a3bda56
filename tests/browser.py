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
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

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
class OpenedDataset:
    """A page, and what has come of opening it."""

    page: Page
    console: list[str] = field(default_factory=list)
    """Messages, errors and dialogs."""
    requests: list[str] = field(default_factory=list)
    """Addresses asked for, without those that hold their own content."""

    def hear(self, dialog: Dialog) -> None:
        """Record a dialog and close it: the page must not open any."""
        self.console.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextmanager
def opened(
    browser: Browser, path: Path, width: int = 1200, height: int = 900, **context: Any
) -> Iterator[OpenedDataset]:
    """Open a file in a window of its own."""
    window = browser.new_context(viewport={"width": width, "height": height}, **context)
    try:
        shown = OpenedDataset(window.new_page())
        shown.page.on("console", lambda message: shown.console.append(message.text))
        shown.page.on("pageerror", lambda error: shown.console.append(str(error)))
        shown.page.on("dialog", shown.hear)
        shown.page.on("request", lambda request: shown.requests.append(request.url))
        shown.page.goto(path.as_uri())
        shown.requests[:] = [url for url in shown.requests if not url.startswith("data:")]
        yield shown
    finally:
        window.close()


FAULTS = """() => {
  const faults = [];
  const named = (element) => {
    const ids = (element.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean);
    return ids.map((id) => document.getElementById(id)?.textContent.trim() || "").join(" ").trim()
      || element.getAttribute("aria-label") || "";
  };
  const all = (selector) => [...document.querySelectorAll(selector)];
  for (const svg of all("svg:not(svg svg)"))
    if (svg.getAttribute("aria-hidden") !== "true" && (svg.getAttribute("role") !== "img" || !named(svg)))
      faults.push("a drawing without a name");
  for (const image of all("img")) if (!image.alt) faults.push("an image without a name");
  for (const head of all("th")) if (!["row", "col"].includes(head.scope)) faults.push("a head without a scope");
  for (const button of all("button"))
    if (!button.textContent.trim() && !named(button)) faults.push("a button without a name");
  for (const table of all("table"))
    if (!table.caption?.textContent.trim()) faults.push("a table without a caption");
  for (const part of all("[role=region], nav, section")) if (!named(part)) faults.push("a region without a name");
  for (const link of all("a[href^='#']"))
    if (!document.getElementById(link.getAttribute("href").slice(1))) faults.push("a link to nowhere");
  for (const selector of ["h1", "main", "nav", "header", "title", "meta[name=viewport]"])
    if (all(selector).filter((one) => !one.closest("svg")).length !== 1) faults.push("not one " + selector);
  if (document.documentElement.lang !== "en") faults.push("no language");
  let level = 0;
  for (const head of all("h1, h2, h3, h4, h5, h6")) {
    if (Number(head.tagName[1]) > level + 1) faults.push("a heading skips a level: " + head.textContent);
    level = Number(head.tagName[1]);
  }
  const ids = all("[id]").map((element) => element.id);
  if (new Set(ids).size !== ids.length) faults.push("an id stands twice");
  return faults;
}"""
"""Lists what keeps a page from those who do not see it, or have no mouse."""

CONTRASTS = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([red, green, blue]) => [red, green, blue]
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || ["SCRIPT", "title", "desc"].includes(element.tagName)) continue;
    const drawn = element instanceof SVGElement;
    const style = getComputedStyle(element);
    const scene = element.closest(".scene")?.querySelector(".ground");
    const behind = scene ? parse(getComputedStyle(scene).fill) : ground(element);
    const [one, other] = [light(parse(drawn ? style.fill : style.color)), light(behind)].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    const name = element.tagName + "." + (element.getAttribute("class") || "");
    found[name] = Math.min(found[name] ?? 99, contrast);
  }
  return found;
}"""
"""Gives the lowest contrast of each kind of text to what is behind it, as WCAG reckons it: 1 to 21."""

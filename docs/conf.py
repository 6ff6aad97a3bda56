"""Configuration of the documentation's site: `sphinx-build -W docs site`."""

import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_copy_source = False


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Append a table of contents to the first page: the pages that it links to, in this order."""
    if page == "index":
        pages = "\n".join(re.findall(r"\]\((\w[\w-]*)\.md\)", source[0]))
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"


def setup(app: Sphinx) -> None:
    """Connect the function above."""
    app.connect("source-read", add_contents)

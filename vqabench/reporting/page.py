"""A report as one self-contained page: no network, no other file."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib.resources import files
from itertools import count
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vqabench import __version__
from vqabench.errors import counted
from vqabench.evaluation.findings import DatasetFindings
from vqabench.reporting import svg
from vqabench.reporting.charts import build_charts, name_row
from vqabench.reporting.drawings import lay_out_pair
from vqabench.reporting.grids import By, Grid, Text, lay_out
from vqabench.reporting.output import clean
from vqabench.reporting.verdicts import judge_rows
from vqabench.results import Manifest


def make_page(findings: Sequence[DatasetFindings], title: str | None = None, made: date | None = None) -> str:
    """Return the page: HTML with its style sheet and script. The same findings give the same text.

    `title` defaults to the names of the data sets; `made` is the date to print. Text from data sets, plugins and
    runs is escaped and cleaned.
    """
    numbers = count(1)

    def new_key() -> str:
        return f"c{next(numbers)}"

    sections = [_lay_out(f"d{number}", own, new_key) for number, own in enumerate(findings, 1)]
    environment = Environment(
        loader=PackageLoader("vqabench.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (
        files("vqabench.reporting").joinpath("templates", name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js")
    )
    page = environment.get_template("report.html").render(
        title=title or f"vqabench report: {', '.join(own.name for own in findings)}",
        made=f"{made.day} {made:%B %Y}" if made else "",
        trained=_format_span(findings),
        version=__version__,
        policy=_make_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        markers=svg.draw_markers(),
        draw=lambda figure: svg.draw(figure, new_key()),
        draw_legend=svg.draw_legend,
        sections=sections,
    )
    return clean(page)


def _make_policy(style: str, script: str) -> str:
    """Return a content security policy that allows this style sheet, this script and embedded pictures only."""
    hashes = [f"'sha256-{b64encode(hashlib.sha256(own.encode()).digest()).decode()}'" for own in (style, script)]
    allowed = f"style-src {hashes[0]}; script-src {hashes[1]}; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _format_span(findings: Sequence[DatasetFindings]) -> str:
    """Return the first and the last day on which runs were started, as far as they are recorded."""
    starts = [manifest.started for own in findings for row in own.comparison.rows for manifest in row.manifests]
    days = sorted({match[0] for start in starts if (match := re.match(r"\d{4}-\d\d-\d\d", start))})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""


def _lay_out(key: str, findings: DatasetFindings, new_key: Callable[[], str]) -> dict[str, Any]:
    """Return the content of the page on one data set; `key` is unique in the page."""
    comparison = findings.comparison
    runs = sum(len(row.seeds) for row in comparison.rows)
    groups = {group for row in comparison.rows for _, _, group, _ in row.cells}
    kinds: dict[str, By] = {"By question type": "question-type", "By the training prior": "prior"}
    return {
        "key": key,
        "name": findings.name,
        "summary": f"{counted(len(comparison.rows), 'row')} of {counted(runs, 'run')}",
        "notes": (*comparison.left_out, *comparison.all_notes),
        "missing": findings.missing,
        "tables": lay_out(comparison, None, "answer-type"),
        "more": [(name, lay_out(comparison, "accuracy", by)) for name, by in kinds.items() if by in groups],
        "charts": build_charts(findings),
        "verdicts": judge_rows(findings),
        "pairs": [lay_out_pair(pair, new_key) for pair in findings.pairs],
        "provenance": [_describe_runs(name_row(row), row.manifests) for row in comparison.rows],
    }


def _describe_runs(name: str, manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Return everything that manifests record: what is the same for all, and what differs between seeds."""
    everything = [msgspec.to_builtins(manifest) for manifest in manifests]
    # `config` repeats other fields, as they were given.
    flat = [dict(_flatten({key: own for key, own in one.items() if key != "config"})) for one in everything]
    keys = list(dict.fromkeys(key for one in flat for key in one if key != "seed"))
    shared = {key: flat[0][key] for key in keys if len({one.get(key) for one in flat}) == 1}
    differ = [key for key in keys if key not in shared]
    brands = "; ".join(dict.fromkeys(brand for manifest in manifests for brand in manifest.brands()))
    if brands:
        shared["not comparable with unmarked runs"] = brands
    lines = tuple((Text(one["seed"]), *(Text(one.get(key, "–")) for key in differ)) for one in flat)
    grid = Grid(f"{name}: what differs between the seeds", ("seed", *differ), 1, lines)
    return {"name": name, "shared": shared, "own": grid}


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, own in value.items():
        if isinstance(own, Mapping) and own:
            yield from _flatten(own, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _format_value(own)


def _format_value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_format_value(own)}" for key, own in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(map(_format_value, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None or value == "" else str(value)

"""A report as one page that needs nothing else: no network, no other file."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vqabench import __version__
from vqabench.errors import counted
from vqabench.evaluation.comparison import Comparison
from vqabench.evaluation.findings import DatasetFindings
from vqabench.reporting import figures
from vqabench.reporting.drawings import PairCards, lay_out_pair
from vqabench.reporting.figures import Charts, Keys, name_row
from vqabench.reporting.grids import By, Grid, choose_notes, lay_out
from vqabench.reporting.output import clean
from vqabench.reporting.plots import draw_markers
from vqabench.reporting.provenance import Provenance, describe_runs
from vqabench.reporting.verdicts import judge_rows


@dataclass(frozen=True)
class Section:
    """All about one data set, laid out."""

    key: str
    """Its own in the page."""
    name: str
    summary: str
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    tables: tuple[Grid, ...]
    more: tuple[tuple[str, list[Grid]], ...]
    """Others, by heading."""
    charts: tuple[tuple[str, str, list[Charts]], ...]
    """Key, heading and charts of each kind."""
    verdicts: tuple[str, ...]
    """What can be said, a paragraph each."""
    pairs: tuple[PairCards, ...]
    provenance: tuple[tuple[str, Provenance], ...]


def make_page(findings: Sequence[DatasetFindings], title: str | None = None, made: date | None = None) -> str:
    """Make the page: HTML with its style and its script. The same findings make the same text.

    `title` stands at its top, by default the data sets; `made` is the date that it bears.

    Text from data sets, plugins and runs is escaped wherever it stands, and cleaned.
    """
    numbers = count(1)
    sections = [_lay_out(f"d{n}", own, lambda: f"c{next(numbers)}") for n, own in enumerate(findings, 1)]
    loader = PackageLoader("vqabench.reporting")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (_read(name) for name in ("report.css", "report.js"))
    page = environment.get_template("report.html").render(
        title=title or f"vqabench report: {', '.join(own.name for own in findings)}",
        made=f"{made.day} {made:%B %Y}" if made else "",
        trained=_span(findings),
        version=__version__,
        policy=_permit(style, script),
        style=Markup(style),
        script=Markup(script),
        markers=draw_markers(),
        sections=sections,
    )
    return clean(page)


def _read(name: str) -> str:
    return files("vqabench.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _permit(style: str, script: str) -> str:
    """Give the page's policy: nothing from elsewhere, and no style or script but these very ones."""
    hashes = [f"'sha256-{b64encode(hashlib.sha256(own.encode()).digest()).decode()}'" for own in (style, script)]
    allowed = f"style-src {hashes[0]}; script-src {hashes[1]}; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _span(findings: Sequence[DatasetFindings]) -> str:
    """Return from when to when the runs were trained, as far as they say so."""
    starts = [manifest.started for own in findings for row in own.comparison.rows for manifest in row.manifests]
    days = sorted({match[0] for start in starts if (match := re.match(r"\d{4}-\d\d-\d\d", start))})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""


def _lay_out(key: str, findings: DatasetFindings, keys: Keys) -> Section:
    comparison = findings.comparison
    runs = sum(len(row.seeds) for row in comparison.rows)
    charts = (
        ("domains", "Out of domain against in domain", figures.draw_scatter(findings, keys)),
        ("accuracy", "Accuracy", figures.draw_accuracies(findings, keys)),
        ("gains", "Gains by question type", figures.draw_gains(findings, keys)),
        ("curves", "Learning curves", figures.draw_learning(findings, keys)),
        ("answers", "Answers that shifted most", figures.draw_shifts(findings.shifts, keys)),
    )
    return Section(
        key,
        findings.name,
        f"{counted(len(comparison.rows), 'row')} of {counted(runs, 'run')}",
        (*comparison.left_out, *choose_notes(comparison, "answer-type")),
        findings.missing,
        tuple(lay_out(comparison, None, "answer-type")),
        _lay_out_more(comparison),
        tuple(kind for kind in charts if kind[2]),
        tuple(judge_rows(findings)),
        tuple(lay_out_pair(pair, keys) for pair in findings.pairs),
        tuple((name_row(row), describe_runs(name_row(row), row.manifests)) for row in comparison.rows),
    )


def _lay_out_more(comparison: Comparison) -> tuple[tuple[str, list[Grid]], ...]:
    """Lay out what there are numbers for beside those by answer type."""
    groups = {key[2] for row in comparison.rows for key in row.cells}
    kinds: dict[str, By] = {"By question type": "question-type", "By the training prior": "prior"}
    return tuple((name, lay_out(comparison, "accuracy", by)) for name, by in kinds.items() if by in groups)

"""Comparisons and scores in forms that other programs and papers read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from vqabench.evaluation.comparison import Comparison
from vqabench.evaluation.published import SPLIT, Published
from vqabench.evaluation.rows import Row
from vqabench.reporting.grids import Grid, Text, choose_notes


def to_json(content: Any) -> str:
    """Give one JSON document."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def to_markdown(grids: list[Grid], notes: tuple[str, ...]) -> str:
    """Give GitHub's tables, the best numbers in bold."""
    return "\n\n".join([*(_markdown_table(grid) for grid in grids), *(f"> {_escape(note)}" for note in notes)])


def _markdown_table(grid: Grid) -> str:
    rule = ["---"] * grid.names + ["---:"] * (len(grid.head) - grid.names)
    lines = [[_escape(name) for name in grid.head], rule, *([_markdown_cell(c) for c in row] for row in grid.rows)]
    return "\n".join([f"**{_escape(grid.title)}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _markdown_cell(cell: Text) -> str:
    text = _escape(cell.text)
    return f"**{text}**" if cell.best else text


def _escape(text: str) -> str:
    text = " ".join(text.split())  # a line is a row
    for mark in "\\|*_`<[]~&#":
        text = text.replace(mark, f"\\{mark}")
    return text


def to_latex(grids: list[Grid], notes: tuple[str, ...]) -> str:
    """Give tables that need the package `booktabs`; the best numbers in bold.

    Letters that pdfLaTeX does not know, as Chinese ones, need LuaLaTeX or XeLaTeX and a font that has them.
    """
    comments = [f"% {line}" for note in notes for line in note.splitlines()]
    return "\n\n".join([*map(_latex_table, grids), *comments])


def _latex_table(grid: Grid) -> str:
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escape_latex(grid.title)}}}",
        r"\centering",
        rf"\begin{{tabular}}{{{'l' * grid.names}{'r' * (len(grid.head) - grid.names)}}}",
        r"\toprule",
        _latex_line(map(_escape_latex, grid.head)),
        r"\midrule",
        *(_latex_line(map(_latex_cell, row)) for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_line(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _latex_cell(cell: Text) -> str:
    mean = _escape_latex(cell.mean)
    bold = rf"\textbf{{{mean}}}" if cell.best else mean
    return bold + _escape_latex(cell.spread) + _escape_latex(cell.mark)


_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "†": r"\textsuperscript{\dag}",
    "‡": r"\textsuperscript{\ddag}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
}


def _escape_latex(text: str) -> str:
    """Spell a text for LaTeX; letters that it has no name for stay as they are, in UTF-8."""
    opens = text.startswith(("[", "*"))  # the end of the line before would take it for an argument
    edge = "{}" if opens else " " if text.startswith(" ") else ""
    return edge + "".join(_LATEX.get(mark, mark) for mark in " ".join(text.split()))


_CSV_HEAD = (
    "dataset backbone objective loss label seeds branded split metric by category mean deviation gain "
    "low high p p_holm effect paired source"
)


def to_csv(comparison: Comparison) -> str:
    """Give a line per configuration, split, metric and category (or question type), and the published ones."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV_HEAD.split(), lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        writer.writerows(map(_disarm, _csv_lines(row)))
    printed = {id(one): one for row in comparison.rows for one in row.published}
    printed |= {id(one): one for one in comparison.published}
    for one in printed.values():
        writer.writerows(_published_csv_lines(one))
    return stream.getvalue()


def _disarm(line: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a spreadsheet from taking text for a formula: a quotation mark goes in front."""
    armed = {key for key, value in line.items() if isinstance(value, str) and value.startswith(tuple("=+-@\t\r"))}
    return {key: f"'{value}" if key in armed else value for key, value in line.items()}


def _csv_lines(row: Row) -> Iterator[dict[str, Any]]:
    about = {name: getattr(row, name) for name in ("dataset", "backbone", "objective", "loss", "label")}
    about |= {"seeds": " ".join(map(str, row.seeds)), "branded": int(row.branded), "source": "ours"}
    for key, cell in sorted(row.cells.items()):
        line = about | dict(zip(("split", "metric", "by", "category"), key, strict=True))
        line |= {"mean": cell.mean, "deviation": cell.deviation, "gain": cell.gain}
        if cell.test is not None:
            line |= asdict(cell.test) | {"paired": int(cell.test.paired)}
        yield line


def _published_csv_lines(printed: Published) -> Iterator[dict[str, Any]]:
    about = {name: getattr(printed, name) for name in ("dataset", "backbone", "objective", "loss", "metric")}
    about |= {"split": SPLIT, "by": "answer-type", "source": f"Table {printed.table}, {printed.run_by}"}
    for category, number in printed.numbers.items():
        yield about | {"category": category, "mean": number}


def comparison_to_json(comparison: Comparison) -> str:
    """Give one JSON document of a comparison."""
    return to_json(lay_flat(comparison))


def lay_flat(comparison: Comparison | None) -> dict[str, Any]:
    """Give every row with its numbers: split -> metric (or `question-type`, `prior`) -> category -> mean, ..."""
    rows = []
    for row in comparison.rows if comparison is not None else ():
        numbers: dict[str, Any] = {}
        for (split, metric, by, category), cell in sorted(row.cells.items()):
            table = metric if by == "answer-type" or metric != "accuracy" else by
            numbers.setdefault(split, {}).setdefault(table, {})[category] = msgspec.to_builtins(cell)
        hidden = ("cells", "setting", "plain", "runs", "manifests", "published")
        about = {name: value for name, value in vars(row).items() if name not in hidden}
        provenance = [
            msgspec.to_builtins(manifest) | {"folder": str(run.folder)}
            for run, manifest in zip(row.runs, row.manifests, strict=True)
        ]
        printed = [_lay_published_flat(one) for one in row.published]
        about |= {"branded": row.branded, "scores": numbers, "runs": provenance}
        rows.append(about | ({"published": printed} if printed else {}))
    notes = choose_notes(comparison, "answer-type") if comparison is not None else ()
    tables = [_lay_published_flat(one) for one in comparison.published] if comparison is not None else []
    return {"rows": rows, "notes": notes} | ({"published": tables} if tables else {})


def _lay_published_flat(printed: Published) -> dict[str, Any]:
    return vars(printed) | {"significant": sorted(printed.significant)}

"""Comparisons and scores as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import msgspec

from vqabench.errors import InputError
from vqabench.evaluation.comparison import Comparison
from vqabench.evaluation.published import SPLIT, Published
from vqabench.evaluation.rows import Row
from vqabench.reporting.grids import Grid, describe_nothing
from vqabench.reporting.lists import disarm
from vqabench.reporting.output import clean_line


def to_json(content: Any) -> str:
    """Return one JSON document."""
    try:
        encoded = msgspec.json.encode(content)
    except UnicodeEncodeError:  # the name of a file or folder that is no UTF-8
        encoded = msgspec.json.encode(_without_halves(msgspec.to_builtins(content)))
    return msgspec.json.format(encoded, indent=2).decode()


def _without_halves(value: Any) -> Any:
    """Return plain values with U+FFFD in the place of half characters, which JSON in UTF-8 cannot hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(own) for key, own in value.items()}
    return [_without_halves(own) for own in value] if isinstance(value, list | tuple) else value


def to_markdown(grids: Sequence[Grid], notes: Sequence[str]) -> str:
    """Return tables in GitHub's Markdown, the best numbers in bold."""
    tables = []
    for grid in grids:
        rows = [[f"**{_escape(c.text)}**" if c.best else _escape(c.text) for c in row] for row in grid.rows]
        tables.append(f"**{_escape(grid.title)}**\n\n{_draw_markdown(grid.head, rows, grid.names)}")
    return "\n\n".join([*tables, *(f"> {_escape(note)}" for note in notes)])


def table_to_markdown(head: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """Return a table of texts, and notes below it."""
    table = _draw_markdown(head, [[*map(_escape, row)] for row in rows], len(head))
    return "\n\n".join([table, *(f"> {_escape(note)}" for note in notes)])


def _draw_markdown(head: Sequence[str], rows: Iterable[Iterable[str]], names: int) -> str:
    rule = ["---"] * names + ["---:"] * (len(head) - names)
    return "\n".join(f"| {' | '.join(line)} |" for line in (map(_escape, head), rule, *rows))


def _escape(text: str) -> str:
    return re.sub(r"[\\|*_`<\[\]~&#]", r"\\\g<0>", clean_line(text))  # one line: it is a row


_CSV_HEAD = (
    "dataset backbone objective loss label seeds branded split metric by category mean deviation gain "
    "low high p p_holm effect paired source against"
)


def to_csv(comparison: Comparison) -> str:
    """Return a line per configuration, split, metric and category (or question type), and the published ones."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV_HEAD.split(), lineterminator="\n")
    writer.writeheader()
    # The paper's row on several configurations of ours is written once.
    printed = {id(one): one for row in comparison.rows for one in row.published}
    printed |= {id(one): one for one in comparison.published}
    lines = [line for row in comparison.rows for line in _csv_lines(row)]
    lines += [line for one in printed.values() for line in _published_csv_lines(one)]
    for line in lines:
        writer.writerow({key: disarm(value) if isinstance(value, str) else value for key, value in line.items()})
    return stream.getvalue()


def _csv_lines(row: Row) -> Iterator[dict[str, Any]]:
    about = {name: getattr(row, name) for name in ("dataset", "backbone", "objective", "loss", "label")}
    about |= {"seeds": " ".join(map(str, row.seeds)), "branded": int(row.branded), "source": "ours"}
    about |= {"against": row.against}
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


def narrow(comparison: Comparison, metric: str | None, split: str | None) -> Comparison:
    """Return a comparison with the numbers of one metric or split alone; None means every one."""

    def keeps(own_split: str, own_metric: str) -> bool:
        return split in (None, own_split) and metric in (None, own_metric)

    rows = []
    for row in comparison.rows:
        cells = {key: cell for key, cell in row.cells.items() if keeps(*key[:2])}
        rows.append(
            replace(row, cells=cells, published=tuple(one for one in row.published if keeps(SPLIT, one.metric)))
        )
    printed = tuple(one for one in comparison.published if keeps(SPLIT, one.metric))
    if not printed and not any(row.cells for row in rows):
        raise InputError(describe_nothing(metric, split))
    return replace(comparison, rows=tuple(rows), published=printed)


def lay_flat(comparison: Comparison | None) -> dict[str, Any]:
    """Return every row with its numbers: split -> metric (or `question-type`, `prior`) -> category -> mean, ..."""
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
    notes = (*comparison.left_out, *comparison.all_notes) if comparison is not None else ()
    tables = [_lay_published_flat(one) for one in comparison.published] if comparison is not None else []
    return {"rows": rows, "notes": notes} | ({"published": tables} if tables else {})


def _lay_published_flat(printed: Published) -> dict[str, Any]:
    return vars(printed) | {"significant": sorted(printed.significant)}

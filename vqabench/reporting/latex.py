"""Tables for a paper: each fits a column of a two-column page, with its notes below."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from vqabench.evaluation.comparison import Comparison
from vqabench.evaluation.rows import Row
from vqabench.reporting.grids import (
    HEADS,
    P_HOLM,
    By,
    Grid,
    Text,
    choose_notes,
    deal,
    keep_columns,
    lay_out,
    without_spreads,
)

WIDTH = 219.0
"""Points: the narrowest column in use, that of ACL's style. Tables are as wide as their column."""
NAMES = 46.0
"""Points left for names, which break into lines."""
GAP, DIGIT, SIGN, DOT, SMALL = 4.0, 4.9, 6.3, 2.7, 0.75
"""Points: between columns; of a bold digit, a plus or minus and a point of 8 points; share of that at 6 points."""
LINES = 40
"""Maximum number of lines of one table, so that it fits on a page."""
LONGEST_WORD, LONGEST_RUN = 10, 7
"""Letters of a word that never breaks, and those of a longer word between two places to break it."""
DEFAULT = (*HEADS.values(), "in-domain")
"""Columns if none are chosen; the number of seeds is in a note or in the name."""
IN_DOMAIN = "ID"
_PACKAGES = (
    r"% Needs in the preamble: \usepackage{booktabs} \usepackage{tabularx} (\usepackage[T1]{fontenc} is best)"
)
_UNICODE = "% Some letters here are not Latin ones: compile with LuaLaTeX or XeLaTeX and a font that has them."

_SIGNS = {
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
    "×": r"$\times$",
    "λ": r"$\lambda$",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
    "–": "--",
    "−": "$-$",
}


def to_latex(
    comparison: Comparison, metric: str | None, by: By, split: str | None = None, columns: Sequence[str] = ()
) -> str:
    """Return tables that compile with pdfLaTeX, the best numbers in bold, after a comment on what they need."""
    tables: list[str] = []
    for grid in lay_out(comparison, metric, by, split, columns):
        own = [row for row in comparison.rows if row.dataset == grid.key[0]]
        if not columns and by != "question-type":
            heads = DEFAULT if by == "answer-type" else grid.head[grid.names :]
            grid = keep_columns(grid, [head for head in heads if head != "seeds"])
        names: list[str] = []
        if by == "question-type":
            # Heads are long, so a note explains numbers in their place.
            numbered = {f"({number})": head for number, head in enumerate(grid.head[grid.names :], 1)}
            names = ["; ".join(f"{number} {head}" for number, head in numbered.items())]
            grid = replace(grid, head=(*grid.head[: grid.names], *numbered))
        for part in _cut(grid):
            explained = [note if note.endswith(".") else f"{note}." for note in choose_notes(comparison, [part])]
            notes = [*names, *_explain(part, own), *explained]
            tables.append(_table(part, notes, len(tables) + 1))
    comments = [_PACKAGES, *(f"% {line}" for note in comparison.left_out for line in note.splitlines())]
    if re.search(r"[^\x00-\u024f\u2010-\u201f]", "".join(tables)):
        comments.append(_UNICODE)
    return "\n".join([*comments, "", "\n\n".join(tables)])


def _explain(grid: Grid, rows: Sequence[Row]) -> Iterator[str]:
    """Yield notes that explain our numbers; tables of the paper alone have none."""
    counts = {len(row.seeds) for row in rows}
    if len(counts) > 1:
        yield "Means over the seeds of a row, ± one standard deviation if there are several."
    elif counts == {1} and "gain" not in grid.head:  # otherwise a note on the gains says so
        yield "Only one seed per row, so gains are not tested."
    elif counts and counts != {1}:
        yield f"Means over {counts.pop()} seeds, ± one standard deviation."
    if "in-domain" in grid.head:
        yield f"{IN_DOMAIN}: the same weights on all questions of the in-domain split val."


def _cut(grid: Grid) -> Iterator[Grid]:
    """Cut a grid into grids that fit a column and a page."""
    if not _fits(grid):
        grid = without_spreads(grid)
    for part in deal(grid, _fits):
        for start in range(0, len(part.rows), LINES):
            yield replace(part, rows=part.rows[start : start + LINES])


def _fits(grid: Grid) -> bool:
    width = NAMES
    for number in range(grid.names, len(grid.head)):
        cells = [row[number] for row in grid.rows]
        widths = [_measure(cell.mean) + SMALL * _measure(cell.spread.strip() + cell.mark) for cell in cells]
        width += GAP + max([_measure(_head(grid.head[number])), *widths])
    return width <= WIDTH


def _measure(text: str) -> float:
    return sum(DOT if mark in ".,:()" else SIGN if mark in "+-−±%<" else DIGIT for mark in text)


def _head(name: str) -> str:
    if name == "in-domain":
        return IN_DOMAIN
    return name if name == P_HOLM else name[:1].upper() + name[1:]


def _table(grid: Grid, notes: Sequence[str], number: int) -> str:
    heads = [_escape(_head(name)) for name in grid.head[grid.names :]]
    about = f" ({grid.about})" if grid.about else ""
    label = re.sub(r"[^a-z0-9]+", "-", "-".join(grid.key).lower()).strip("-")
    lines = [
        r"\begin{table}[tb]",
        rf"\caption{{{_escape(grid.title.replace(' x 100', ' × 100') + about)}.}}",
        rf"\label{{tab:{label}-{number}}}",
        r"\vspace{2pt}",
        r"\fontsize{8}{9.5}\selectfont",
        r"\setlength{\tabcolsep}{2pt}",
        rf"\begin{{tabularx}}{{\columnwidth}}{{@{{}}>{{\raggedright\arraybackslash}}X*{{{len(heads)}}}{{r}}@{{}}}}",
        r"\toprule",
        _line(["", *heads]),
        r"\midrule",
        *(_line([_name(row[: grid.names]), *map(_number, row[grid.names :])]) for row in grid.rows),
        r"\bottomrule",
        r"\end{tabularx}",
        *([r"\par\smallskip", r"\fontsize{7}{8.5}\selectfont\raggedright"] if notes else []),
        *(rf"{_escape(note)}\par" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _name(cells: Sequence[Text]) -> str:
    shown = [cell.text if cell.display is None else cell.display for cell in cells]
    return _escape(" ".join(filter(None, shown)))


def _number(cell: Text) -> str:
    mean = _escape(cell.mean, number=True)
    spread = rf"$_{{\pm {cell.spread.strip(' ±')}}}$" if "±" in cell.spread else _escape(cell.spread, number=True)
    return (rf"\textbf{{{mean}}}" if cell.best else mean) + spread + _escape(cell.mark)


def _escape(text: str, *, number: bool = False) -> str:
    """Return a text for LaTeX. Long words may break; letters that LaTeX has no name for stay, in UTF-8."""
    text = " ".join(text.split())
    opens = text.startswith(("[", "*"))  # LaTeX would read it as an argument of the line before
    if number:
        text = re.sub(r"(?<!\w)-(?=\d)", "−", text)
    return ("{}" if opens else "") + " ".join(map(_escape_word, text.split(" ")))


def _escape_word(word: str) -> str:
    """Return a word for LaTeX; a long one may break after signs, or else anywhere."""
    signs = [_SIGNS.get(mark, mark) for mark in word]
    if len(word) <= LONGEST_WORD:
        return "".join(signs)
    run, parts = 0, []
    for mark, sign in zip(word, signs, strict=True):
        run += 1
        parts.append(sign)
        if mark in ",;:/_+.@)]=}-" or run == LONGEST_RUN:
            parts.append(r"\allowbreak{}" if mark != "-" else "")
            run = 0
    return "".join(parts).removesuffix(r"\allowbreak{}")

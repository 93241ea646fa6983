"""The headline metrics as a table for a paper, in Markdown and in LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report import phrasing, questions

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{''}",
    "`": r"\textasciigrave{}",
    # After \\, a star or a bracket would be read as its option.
    "*": "{*}",
    "[": "{[}",
    "]": "{]}",
    "−": "$-$",
    "–": r"\textendash{}",
    "→": r"$\to$",
    "↓": r"$\downarrow$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "α": r"$\alpha$",
    "\u00a0": "~",
}


@dataclass(frozen=True)
class PaperTable:
    """A table as plain text: the first `texts` columns are names, the others numbers."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 2


@dataclass(frozen=True)
class Pasted:
    """A table in one format, with the name of its file."""

    format: str
    file: str
    text: str


def headline(rows: Sequence[ComparisonRow], groups: str, caption: str) -> PaperTable:
    """The rows that answer a question; `groups` is what the corpus calls them."""
    asked = questions.asked(rows)
    if all(row.adapted is None for row in asked):
        head = ["Metric", "Set", "Value (95 % interval)"]
        body = [[phrasing.title(row), row.dataset, _with_interval(row.base, row)] for row in asked]
    else:
        head = ["Metric", "Set", "Base", "Adapted", "Difference (95 % interval)", "p"]
        body = [
            [
                phrasing.title(row),
                row.dataset,
                phrasing.number(row.base.value, row.unit),
                phrasing.number(row.adapted.value, row.unit) if row.adapted else "–",
                _with_interval(row.shown, row, sign=True) if row.shown else "–",
                _p(row),
            ]
            for row in asked
        ]
    sizes = [[str(row.n), str(row.groups)] for row in asked]
    return PaperTable(
        caption,
        [*head, "Items", groups[:1].upper() + groups[1:]],
        [[*line, *size] for line, size in zip(body, sizes, strict=True)],
    )


def several(rows: Mapping[str, Sequence[ComparisonRow]], against: str, caption: str) -> PaperTable:
    """The same of several models: `rows` of each model but the first, `against`, by label."""
    asked = [questions.asked(of_model) for of_model in rows.values()]
    body = []
    for members in zip(*asked, strict=True):
        first = members[0]
        values = [_with_interval(first.base, first)]
        values += [_with_interval(row.adapted, row) if row.adapted else "–" for row in members]
        body.append([phrasing.title(first), first.dataset, *values])
    return PaperTable(caption, ["Metric", "Set", against, *rows], body)


def formats(table: PaperTable) -> list[Pasted]:
    """The table in every format."""
    return [Pasted("Markdown", "table.md", markdown(table)), Pasted("LaTeX", "table.tex", latex(table))]


def markdown(table: PaperTable) -> str:
    """The table for a Markdown file, with its caption below."""
    lines = [
        _markdown_line(table.head),
        "|" + "---|" * table.texts + "--:|" * (len(table.head) - table.texts),
        *map(_markdown_line, table.rows),
    ]
    return "\n".join([*lines, "", str(phrasing.markdown(table.caption)), ""])


def latex(table: PaperTable) -> str:
    """The table for a LaTeX file; texts in other scripts than Latin need XeLaTeX or LuaLaTeX."""
    columns = "l" * table.texts + "r" * (len(table.head) - table.texts)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_line(table.head),
        r"\midrule",
        *map(_latex_line, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """The text as LaTeX shows it: no character of it is a command, and none joins with its neighbour."""
    line = " ".join(str(phrasing.plain(text)).split(" "))
    escaped = "".join(_LATEX.get(char, char) for char in line.replace("\n", " ").replace("\t", " "))
    return re.sub("-(?=-)", "-{}", escaped)  # two hyphens would become a dash


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(str(phrasing.markdown(cell)) for cell in cells)} |"


def _latex_line(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(escape_latex, cells))} \\\\"


def _with_interval(estimate: Estimate, row: ComparisonRow, sign: bool = False) -> str:
    value = (phrasing.signed if sign else phrasing.number)(estimate.value, row.unit)
    return f"{value} ({phrasing.span(estimate, row.unit, sign)})"


def _p(row: ComparisonRow) -> str:
    """p after correction, where there is one; none where the row is not judged."""
    p = row.adjusted_p if row.adjusted_p is not None else row.difference.p if row.difference else None
    if p is None or p != p or row.control_fault or not row.comparable:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"

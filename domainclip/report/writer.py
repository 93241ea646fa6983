"""Write the files of a report, a comparison or an ablation to their folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from domainclip.data.pseudonyms import pseudonym, pseudonym_key
from domainclip.evaluation.evaluate import Evaluation
from domainclip.report import (
    ablation_csv,
    ablation_page,
    ablation_results,
    comparison,
    comparison_file,
    csv_links,
    page,
    phrasing,
    tuning_page,
    tuning_results,
)
from domainclip.report.ablation_results import AblationTable
from domainclip.report.context import ReportContext
from domainclip.report.results_file import to_results
from domainclip.report.strict_file import Strict
from domainclip.report.tuning_results import Tuning

_HIDDEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_TEMPLATES = Path(__file__).parent / "templates"


def write(folder: Path, evaluation: Evaluation, context: ReportContext) -> Path:
    """Write results.json, items.parquet, report.md, table.md, table.tex and report.html; returns the last."""
    folder.mkdir(parents=True, exist_ok=True)
    results = _json(to_results(evaluation, context))
    sections = page.build(evaluation, context)
    _place(folder / "results.json", lambda file: file.write_text(results, encoding="utf-8"))
    _place(folder / "items.parquet", lambda file: pq.write_table(_items(evaluation), file))
    _place(folder / "report.md", lambda file: file.write_text(_markdown(sections), encoding="utf-8"))
    _write_paper(folder, sections)
    _place(folder / "report.html", lambda file: file.write_text(_html(sections), encoding="utf-8"))
    return folder / "report.html"


def write_comparison(
    folder: Path,
    evaluations: Sequence[Evaluation],
    context: ReportContext,
    models: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Write results_compare.json, compare.md, table.md, table.tex and compare.html; returns the last."""
    folder.mkdir(parents=True, exist_ok=True)
    file = comparison_file.to_file(evaluations, context, models)
    sections = comparison.build(evaluations, context, models)
    results = _json(file)
    _place(folder / "results_compare.json", lambda path: path.write_text(results, encoding="utf-8"))
    _write_paper(folder, sections)
    markdown, html = _markdown(sections, "compare.md.j2"), _html(sections, "compare.html.j2")
    _place(folder / "compare.md", lambda path: path.write_text(markdown, encoding="utf-8"))
    _place(folder / "compare.html", lambda path: path.write_text(html, encoding="utf-8"))
    return folder / "compare.html"


def write_ablation(folder: Path, table: AblationTable, name: str = "ablation") -> Path:
    """Write NAME.json, NAME.csv, NAME.md and NAME.html; returns the last."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = ablation_page.build(table, name)
    texts = {
        "json": _json(ablation_results.to_file(table)),
        "csv": ablation_csv.csv(table),
        "md": _markdown(sections, "ablation.md.j2"),
        "html": _html(sections, "ablation.html.j2"),
    }
    for suffix, text in texts.items():
        _place(folder / f"{name}.{suffix}", partial(Path.write_text, data=text, encoding="utf-8"))
    return folder / f"{name}.html"


def write_tuning(folder: Path, tuning: Tuning) -> Path:
    """Write tuning.json, tuning.md and tuning.html; returns the last."""
    sections = tuning_page.build(tuning)
    texts = {
        "json": _json(tuning_results.to_file(tuning)),
        "md": _markdown(sections, "tuning.md.j2"),
        "html": _html(sections, "tuning.html.j2"),
    }
    for suffix, text in texts.items():
        _place(folder / f"tuning.{suffix}", partial(Path.write_text, data=text, encoding="utf-8"))
    return folder / "tuning.html"


def _write_paper(folder: Path, sections: dict[str, Any]) -> None:
    for pasted in sections["paper"]:
        _place(folder / pasted.file, partial(Path.write_text, data=pasted.text, encoding="utf-8"))


def _json(file: Strict) -> str:
    """JSON in which characters that reverse text are escaped: the same data, safe to display."""
    text = file.model_dump_json(indent=1) + "\n"
    return _HIDDEN.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text)


def _html(sections: dict[str, Any], template: str = "report.html.j2") -> str:
    # All output passes through `plain` and then through the HTML escape: no template can omit it.
    pages = _environment(autoescape=True, finalize=phrasing.plain)
    sheets = (_TEMPLATES / name for name in ("base.css", "style.css"))
    style = Markup("\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets))
    return pages.get_template(template).render(
        sections, style=style, marks=phrasing.MARKS, address=csv_links.address
    )


def base_style() -> str:
    """The style sheet that all pages share."""
    return (_TEMPLATES / "base.css").read_text(encoding="utf-8")


def _markdown(sections: dict[str, Any], template: str = "report.md.j2") -> str:
    pages = _environment(autoescape=False, finalize=phrasing.markdown)
    return pages.get_template(template).render(sections, fence=phrasing.fence)


def _environment(autoescape: bool, finalize: Callable[[object], object]) -> Environment:
    # jinja's automatic choice would turn escaping off for the suffix .j2, so it is set explicitly.
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        finalize=finalize,
        keep_trailing_newline=True,
    )


def _items(evaluation: Evaluation) -> pa.Table:
    """Scores by item, under pseudonyms keyed with the secret of this machine; no caption, path or label."""
    key = pseudonym_key()
    known = cache(lambda value: pseudonym(value, key))
    columns: dict[str, list[Any]] = {name: [] for name in _ITEMS.names}
    for row in evaluation.rows:
        if row.base_scores.ndim > 1:  # a mean over classes, which have rows of their scores
            continue
        if row.probe == "subgroups":  # sex=F would tie a pseudonym to an attribute
            continue
        adapted = [None] * row.n if row.adapted_scores is None else row.adapted_scores.tolist()
        columns["probe"] += [row.probe] * row.n
        columns["dataset"] += [row.dataset] * row.n
        columns["metric"] += [row.metric] * row.n
        columns["item"] += map(known, row.ids)
        columns["group"] += map(known, row.owners)
        columns["base"] += row.base_scores.tolist()
        columns["adapted"] += adapted
    return pa.table(columns, schema=_ITEMS)


_ITEMS = pa.schema(
    [(name, pa.string()) for name in ("probe", "dataset", "metric", "item", "group")]
    + [("base", pa.float64()), ("adapted", pa.float64())]
)


def _place(file: Path, fill: Callable[[Path], object]) -> None:
    """Write a file atomically: a reader sees the old content or the new one, never a part."""
    draft = file.with_name(f".{file.name}.draft")
    fill(draft)
    os.replace(draft, file)

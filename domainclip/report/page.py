"""The report before it is drawn: its sections, as text and numbers, the same for HTML and Markdown."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from domainclip.evaluate import BETTER, WORSE, Evaluation, Row
from domainclip.report import charts, words
from domainclip.report.context import CorpusFacts, Example, ReportContext, RunFacts

_SHOWN = 40  # lines of one chart
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Claim:
    """A headline figure: two numbers and the sentence about them."""

    verdict: str
    mark: str
    before: str
    after: str
    sentence: str


@dataclass(frozen=True)
class Line:
    """One row of a table of figures, as text."""

    name: str
    dataset: str
    n: str
    groups: str
    base: str
    base_span: str
    adapted: str
    adapted_span: str
    difference: str
    difference_span: str
    verdict: str
    mark: str
    primary: bool


@dataclass(frozen=True)
class PartSection:
    """One figure class by class, or language by language."""

    title: str
    chart: charts.Dumbbells | None
    left_out: int  # lines that the chart has no room for
    lines: Sequence[Line]


def build(evaluation: Evaluation, context: ReportContext) -> dict[str, Any]:
    """Everything that the templates name."""
    valid = evaluation.valid and not context.invalid
    # What is not valid is neither better nor worse.
    rows = evaluation.rows if valid else [replace(row, verdict=None) for row in evaluation.rows]
    whole = [row for row in rows if not row.part]
    return {
        "title": context.title,
        "subtitle": _subtitle(context),
        "single": all(row.adapted is None for row in rows),
        "judged": any(row.verdict for row in rows),
        "valid": valid,
        "invalid": [*context.invalid, *([] if evaluation.valid else evaluation.warnings[:1])],
        "claims": _claims(whole, context.retention_set, valid),
        "lines": [_line(row) for row in whole],
        "worse": words.changes(rows, WORSE),
        "better": words.changes(rows, BETTER),
        "nothing_worse": words.nothing(rows, WORSE),
        "nothing_better": words.nothing(rows, BETTER),
        "warnings": [*evaluation.warnings, *context.warnings],
        "overview": _overview(whole),
        "parts": list(_parts(rows)),
        "curves": _curves(context),
        "run": _run(context.run),
        "corpora": [_corpus(facts) for facts in (context.corpus, context.retention) if facts is not None],
        "base": [
            (_label(key), _text(value)) for key, value in context.base.items() if value not in (None, "")
        ],
        "measuring": _measuring(evaluation),
        "protocol": [_protocol(entry) for entry in evaluation.protocol],
        "examples": [_example(example) for example in context.examples],
        "citations": list(dict.fromkeys(context.citations)),
        "command": context.command,
        "recipe": context.recipe,
    }


def _subtitle(context: ReportContext) -> str:
    base = str(context.base.get("name", "a model"))
    if context.run is None:
        return f"{base}, measured on {context.corpus.name}"
    return f"{base}, adapted to {context.corpus.name} by {context.run.strategy.replace('_', ' ')}"


def _claims(whole: Sequence[Row], retention_set: str, valid: bool) -> list[Claim]:
    """The domain first, then what was kept of the rest."""
    primary = sorted((row for row in whole if row.primary), key=lambda row: row.dataset == retention_set)
    return [
        Claim(
            verdict=row.verdict or "",
            mark=words.MARKS.get(row.verdict or "", ""),
            before=words.number(row.base.value, row.unit),
            after="" if row.adapted is None else words.number(row.adapted.value, row.unit),
            sentence=words.claim(row, retention_set, valid),
        )
        for row in primary
    ]


def _line(row: Row) -> Line:
    adapted, difference = row.adapted, row.difference
    return Line(
        name=f"{words.probe_name(row.probe)} {words.metric_name(row.metric)}",
        dataset=row.dataset,
        n=str(row.n),
        groups=str(row.groups),
        base=words.number(row.base.value, row.unit),
        base_span=words.span(row.base, row.unit),
        adapted=words.number(adapted.value, row.unit) if adapted else "",
        adapted_span=words.span(adapted, row.unit) if adapted else "",
        difference=words.signed(difference.value, row.unit) if difference else "",
        difference_span=words.span(difference, row.unit, sign=True) if difference else "",
        verdict=row.verdict or "",
        mark=words.MARKS.get(row.verdict or "", ""),
        primary=row.primary,
    )


def _overview(whole: Sequence[Row]) -> list[tuple[str, charts.Dumbbells]]:
    """One chart a set: figures of different sets do not share an axis."""
    found = []
    for name in dict.fromkeys(row.dataset for row in whole):
        chart = charts.dumbbells(
            [row for row in whole if row.dataset == name],
            lambda row: f"{words.probe_name(row.probe)} {words.metric_name(row.metric)}",
        )
        if chart:
            found.append((name, chart))
    return found


def _parts(rows: Sequence[Row]) -> Iterator[PartSection]:
    """Worst change first. Only the first figure of a probe is drawn; the others are tables."""
    drawn = set()
    for key in dict.fromkeys((row.probe, row.dataset, row.whole) for row in rows if row.part):
        members = [row for row in rows if row.part and (row.probe, row.dataset, row.whole) == key]
        members.sort(key=lambda row: (row.difference.value if row.difference else row.base.value, row.part))
        chart = None
        if key[:2] not in drawn:
            chart = charts.dumbbells(_ends(members), lambda row: row.part)
            drawn.add(key[:2])
        probe, dataset, metric = key
        title = f"{words.probe_name(probe)} {words.metric_name(metric)} on {dataset}"
        yield PartSection(title, chart, max(0, len(members) - _SHOWN), [_line(row) for row in members])


def _ends(members: Sequence[Row]) -> Sequence[Row]:
    """Those that changed most, downwards and upwards, when there are too many to draw."""
    if len(members) <= _SHOWN:
        return members
    return [*members[: _SHOWN // 2], *members[-_SHOWN // 2 :]]


def _curves(context: ReportContext) -> list[tuple[str, charts.Curve]]:
    batch = context.run.batch_size if context.run else 0
    chance = math.log(batch) if batch > 1 else None
    named = f"Loss; dashed: chance, ln {batch} = {chance:.2f}" if chance else "Loss"
    wanted = ((named, "loss", "loss", chance), ("Logit scale", "scale", "logit scale", None))
    drawn = [(title, charts.curve(context.training, key, name, line)) for title, key, name, line in wanted]
    return [(title, curve) for title, curve in drawn if curve]


def _run(run: RunFacts | None) -> Pairs:
    if run is None:
        return []
    share = run.learning / max(1, run.weights)
    rows = [
        ("Strategy", run.strategy.replace("_", " ")),
        ("Weights that learned", f"{run.learning:,} of {run.weights:,} ({share:.2%})"),
        ("Steps", f"{run.steps:,} of {run.batch_size} pairs"),
        ("Time", f"{words.duration(run.seconds)} on {run.device}"),
        *((_label(key), _text(value)) for key, value in run.facts.items()),
    ]
    if run.versions:
        rows.append(("Versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())))
    return rows


def _corpus(facts: CorpusFacts) -> dict[str, Any]:
    told = [("Card", facts.card), ("Licence", facts.license), ("Fingerprint", facts.fingerprint[:16])]
    return {
        "name": facts.name,
        "facts": [(key, value) for key, value in told if value],
        "splits": [(name, f"{items:,}", f"{groups:,}") for name, (items, groups) in facts.splits.items()],
        "quarantine": [(reason, f"{count:,}") for reason, count in facts.quarantine.items()],
        "remarks": [*facts.findings, *facts.notes],
    }


def _measuring(evaluation: Evaluation) -> Pairs:
    return [
        ("Intervals", "95 %, percentiles of a bootstrap over groups; base and adapted on the same resamples"),
        ("Resamples", f"{evaluation.resamples:,}, seed {evaluation.seed}"),
        (
            "Real difference",
            "the interval of the paired difference excludes zero; for classes and languages, "
            "also p ≤ 0.05 after Holm's adjustment",
        ),
    ]


def _protocol(entry: Mapping[str, Any]) -> dict[str, Any]:
    details = dict(entry["details"])
    prompts = details.pop("prompts", {})
    pairs = [
        (
            "Items",
            str(entry["items"]) + (f", {entry['unreadable']} unreadable" if entry["unreadable"] else ""),
        ),
        ("Headline", words.metric_name(entry["primary"])),
        ("Source", f"{entry['citation']}, version {entry['version']} of the probe"),
        *((_label(key), _text(value)) for key, value in details.items()),
    ]
    if entry["chance"]:
        shown = (f"{words.metric_name(name)} {value:.3g}" for name, value in entry["chance"].items() if value)
        pairs.append(("Chance", ", ".join(shown)))
    title = f"{words.probe_name(entry['probe'])} on {entry['dataset']}"
    said = [(name, "; ".join(p["positive"]), "; ".join(p["negative"])) for name, p in prompts.items()]
    return {"title": title, "facts": [(key, value) for key, value in pairs if value], "prompts": said}


def _example(example: Example) -> dict[str, Any]:
    data = base64.b64encode(example.picture).decode("ascii")
    return {
        "source": Markup("data:image/png;base64,{}").format(data),
        "caption": example.caption,
        "before": words.number(example.base_rank, "rank"),
        "after": "" if example.adapted_rank is None else words.number(example.adapted_rank, "rank"),
    }


def _label(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _text(value: Any) -> str:
    """A value of the protocol as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        nested = ((key, _text(inner), isinstance(inner, Mapping)) for key, inner in value.items())
        return ", ".join(f"{key} ({inner})" if deep else f"{key} {inner}" for key, inner, deep in nested)
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else str(value)

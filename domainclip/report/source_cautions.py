"""What source and acquisition do to the headline of classification: sentences beside the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.verdicts import BETTER, ComparisonRow
from domainclip.report import phrasing, questions

_HEADLINES = ("macro_accuracy", "macro_auroc")  # of the probe zero_shot


def source_cautions(evaluation: Evaluation) -> list[str]:
    """Sentences on every set with sources: what they alone would score, and where no gain is shown."""
    cautions: list[str] = []
    for entry in evaluation.protocol:
        if entry["probe"] == "sources" and entry["details"].get("alone"):
            rows = [row for row in evaluation.rows if row.dataset == entry["dataset"]]
            cautions += _cautions(rows, entry["details"])
    return cautions


def _cautions(rows: Sequence[ComparisonRow], details: Mapping[str, Any]) -> Iterator[str]:
    headline = next((r for r in rows if r.probe == "zero_shot" and r.metric in _HEADLINES), None)
    if headline is None:
        return
    alone = details["alone"].get(headline.metric)
    before, after = questions.amounts(headline)
    if alone is not None:
        reached = after or before
        value = headline.adapted.value if headline.adapted else headline.base.value
        more = "" if value > alone else ", which is no more"
        yield (
            f"{str(details['by']).capitalize()} alone: a table of them, fitted on "
            f"{details['alone']['fitted_on']}, has a {phrasing.metric_name(headline.metric)} of "
            f"{_shown(alone, headline)}; the model has {reached}{more}."
        )
    gained = headline.verdict == BETTER
    within = _weakest(rows, "within_sources")
    if within is None:
        yield (
            "Within no source are there two classes with enough items: whether the classes or only the "
            "sources are distinguished is not measured."
        )
    elif gained and not _is_shown(within):
        yield (
            f"The gain is not shown within sources: {_change(within)}. The model may have learned to tell "
            "sources apart."
        )
    elif details["sources_with_two_classes"] < details["sources"]:
        yield (
            f"Within sources, {details['sources_with_two_classes']} of {details['sources']} can be measured; "
            "the others have no two classes with enough items."
        )
    new = _weakest(rows, "on_new_sources")
    if new is None and not isinstance(details["new_sources"], str):
        yield (
            "Not measured on sources that were not trained on: hold one out with corpus.splits.by=source, or "
            "measure new data with domainclip eval RUN --against base corpus.path=NEW, with their path."
        )
    elif new is not None and gained and not _is_shown(new):
        yield f"The gain is not shown on sources that were not trained on: {_change(new)}."


def _weakest(rows: Sequence[ComparisonRow], where: str) -> ComparisonRow | None:
    """The AUROC or the accuracy: the one that shows no gain, or else the first; None where neither is there.

    A model that only stops to give answers of other sources gains accuracy, and tells no class from another.
    """
    names = (f"auroc_{where}", f"accuracy_{where}")
    found = [row for row in rows if row.probe == "sources" and row.metric in names]
    found.sort(key=lambda row: names.index(row.metric))
    return next((row for row in found if not _is_shown(row)), found[0] if found else None)


def _is_shown(row: ComparisonRow) -> bool:
    """Whether the adapted model is better than the base, and better than chance beyond its interval."""
    return row.verdict == BETTER and _is_above_chance(row)


def _is_above_chance(row: ComparisonRow) -> bool:
    return row.adapted is not None and (row.chance is None or row.adapted.low > row.chance)


def _shown(value: float, row: ComparisonRow) -> str:
    return f"{100 * value:.0f}\u00a0%" if questions.is_per_cent(row) else phrasing.number(value, row.unit)


def _change(row: ComparisonRow) -> str:
    before, after = questions.amounts(row)
    chance = "" if row.chance is None else f" (chance\u00a0{_shown(row.chance, row)})"
    name = phrasing.metric_name(row.metric)
    verdict = row.verdict or "not judged"
    if verdict == BETTER and not _is_above_chance(row):
        verdict = "not shown to be more than chance"
    return f"{name} {before}\u00a0→\u00a0{after}{chance}, {verdict}"

"""The evaluations of a run on other corpora than its own: a line each in `external.jsonl` of its folder.

The file holds no path, caption or name of a file, and is never pushed; the model card quotes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from domainclip.config.strict_model import StrictModel

FILE = "external.jsonl"
EXTERNAL = "external test set:"  # begins the statement of a report on one


class ExternalMetric(StrictModel):
    """A headline metric of the adapted model with its 95 % interval, and the value of the base if known."""

    probe: str
    metric: str
    unit: str
    value: float
    low: float | None  # null: too few groups for an interval
    high: float | None
    base: float | None = None
    verdict: str | None = None


class ExternalEvaluation(StrictModel):
    """One evaluation on an external corpus."""

    when: str  # date, UTC
    corpus: str  # as in the report
    fingerprint: str
    items: int
    groups: int
    metrics: list[ExternalMetric]


def add(run: Path, evaluation: ExternalEvaluation) -> None:
    """Add a line to the record of a run; OSError is raised where it cannot be written."""
    handle = os.open(run / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(evaluation.model_dump(), ensure_ascii=False) + "\n")


def summary(run: Path) -> str:
    """The external corpora that a run was measured on, in words, or the command that measures one."""
    known = [f"{one.corpus} ({one.items:,} items, {one.when})" for one in load(run)]
    if not known:
        return (
            "no external test set was measured; the last step before the model is used: "
            "domainclip eval RUN --against base corpus.path=NEW, with the path of new data"
        )
    return f"external test sets that were measured: {', '.join(known)}"


def load(run: Path) -> Sequence[ExternalEvaluation]:
    """The evaluations of a run, of each corpus the latest; a line that was cut short is left out."""
    try:
        lines = (run / FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    latest: dict[str, ExternalEvaluation] = {}
    for line in lines:
        try:
            known = ExternalEvaluation.model_validate_json(line)
        except ValidationError:
            continue
        latest.pop(known.fingerprint, None)
        latest[known.fingerprint] = known
    return list(latest.values())

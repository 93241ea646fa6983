"""An evaluation on another corpus than that of the run: its folder, its statement, its record in the run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from domainclip.errors import DomainclipError
from domainclip.evaluation import contamination
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.run_folders import find_run
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.pipelines.eval_request import TrainedRun
from domainclip.pipelines.measured_corpus import MeasuredCorpus
from domainclip.report import external_evaluations, model_card, results_file
from domainclip.report.context import ReportContext
from domainclip.report.external_evaluations import ExternalEvaluation, ExternalMetric
from domainclip.report.usage import ModelUse

log = logging.getLogger("domainclip")


def folder_of(parent: Path, measured: MeasuredCorpus) -> Path:
    """The folder of the report in `parent`: named as the corpus, with a digest if another corpus has it."""
    folder = parent / measured.name
    fingerprint = measured.corpus.fingerprint
    taken = _fingerprint(folder)
    return folder if taken in ("", fingerprint) else parent / f"{measured.name}-{fingerprint[:8]}"


def _fingerprint(folder: Path) -> str:
    """The fingerprint of the corpus that a report in the folder is about; "" where there is none."""
    for name in ("results.json", "results_compare.json"):
        try:
            data = json.loads((folder / name).read_text(encoding="utf-8"))
            return str(data["corpus"]["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""


def statement(measured: MeasuredCorpus, run: TrainedRun, data: EvaluationSet) -> str:
    """What of an external corpus is measured, and whether the run was trained on it.

    On the corpus of the run: the external corpora that it was measured on.
    """
    if not measured.external:
        return external_evaluations.summary(run.folder)
    corpus = measured.corpus
    total = sum(map(len, corpus.splits.values()))
    n = len(data.items)
    which = (
        f"all {n:,} items are measured"
        if n == total
        else f"its {data.name} split, {n:,} of {total:,} items, is"
    )
    which += "" if n == total else " measured"
    record = contamination.load(str(run.folder))
    if record is None:
        unknown = "the run has no record of its training images to compare them with"
        return f"{external_evaluations.EXTERNAL} {which}; {unknown}"
    images = ([corpus.digests[id], *corpus.view_digests.get(id, [])] for id in data.items["id"][:])
    trained_on = record.items_of(list(images))
    known = "" if record.whole else ", as far as its record reaches"
    number = "none was" if not trained_on else "1 was" if trained_on == 1 else f"{trained_on:,} were"
    return f"{external_evaluations.EXTERNAL} {which}; {number} trained on{known}"


def record_in_runs(
    names: Sequence[str], evaluations: Sequence[Evaluation], context: ReportContext, data: EvaluationSet
) -> None:
    """Note the evaluation in each run that was measured, and quote it in the model card of the run.

    A card that was edited by hand stays as it is.
    """
    for place, name in enumerate(names):
        run = find_run(name)
        if run is None or context.invalid:
            continue
        # Each further model has an evaluation against the first, which is the "base" of all of them.
        evaluation = evaluations[max(0, place - 1)]
        entry = ExternalEvaluation(
            when=datetime.now(UTC).date().isoformat(),
            corpus=context.corpus.name,
            fingerprint=data.fingerprint,
            items=len(data.items),
            groups=len(set(data.items["group"][:])),
            metrics=_metrics(evaluation.rows, data.name, first=place == 0),
        )
        try:
            before = _card(run)
        except DomainclipError as error:
            before = None
            log.warning("warning: %s: the external evaluation is not in its model card: %s", run, error)
        try:
            external_evaluations.add(run, entry)
            _rewrite_card(run, before)
        except OSError as error:
            log.warning("warning: %s: the external evaluation is not recorded: %s", run, error.strerror)


def _metrics(rows: Sequence[ComparisonRow], dataset: str, first: bool) -> list[ExternalMetric]:
    metrics = []
    for row in rows:
        value = row.base if first or row.adapted is None else row.adapted
        headline = row.primary and row.comparable and row.dataset == dataset
        if not headline or not math.isfinite(value.value):
            continue
        compared = not first and row.adapted is not None
        metrics.append(
            ExternalMetric(
                probe=row.probe,
                metric=row.metric,
                unit=row.unit,
                value=value.value,
                low=value.low if math.isfinite(value.low) else None,
                high=value.high if math.isfinite(value.high) else None,
                base=row.base.value if compared else None,
                verdict=row.verdict if compared else None,
            )
        )
    return metrics


def _card(run: Path) -> str | None:
    """The model card as it would be written now; None for a run without results."""
    if not (run / "results.json").is_file():
        return None
    results = results_file.load(run / "results.json")
    use = ModelUse.of(run / "model", model_card.family(results))
    return model_card.render(results, model_card.CardFacts.of(run), use, external_evaluations.load(run))


def _rewrite_card(run: Path, before: str | None) -> None:
    card = run / "README.md"
    if before is None or not card.is_file():
        return
    if card.read_text(encoding="utf-8") != before:
        log.warning("warning: %s was edited: the external evaluation is not added to it", card)
        return
    after = _card(run)
    if after is not None:
        card.write_text(after, encoding="utf-8")

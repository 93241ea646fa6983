"""What a run leaves: its folder, and the report of what was gained and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from domainclip.data.checks.findings import Finding
from domainclip.data.quarantine import UnusableItem
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.split_usage import SplitUsage
from domainclip.pipelines.inputs import Inputs
from domainclip.report import results_file
from domainclip.report.citations import sources
from domainclip.report.context import CorpusFacts, Example, ReportContext, RunFacts
from domainclip.report.model_card import CardFacts, write_card
from domainclip.report.model_facts import model_facts
from domainclip.report.provenance import environment, versions
from domainclip.report.redaction import public_recipe
from domainclip.report.writer import write
from domainclip.training.loop import Trained
from domainclip.training.monitoring.metrics_log import read_metrics
from domainclip.training.setup import TrainingSetup
from domainclip.training.weight_interpolation import InterpolationResult


def run_facts(
    setup: TrainingSetup, trained: Trained, folder: Path, swept: InterpolationResult | None
) -> RunFacts:
    """How the adapted model came to be."""
    sizes = {name: weight.numel() for name, weight in setup.model.weights().items()}
    facts = environment()
    extra: dict[str, Any] = {
        "objectives": setup.terms.weights,
        "peak_rate": setup.peak_rate,
    }
    if swept is not None:
        extra["interpolation"] = swept.facts()
    if setup.recipe.train.micro_batch_size == "auto":
        extra["micro_batch_size"] = trained.micro_batch_size or "all"
    if setup.recipe.train.final_weights == "best":
        extra["weights_of_step"] = trained.weights_of_step
    if trained.unusable:
        extra["unreadable_in_training"] = len(trained.unusable)
    if trained.alarms:
        extra["alarms"] = [alarm.code for alarm in trained.alarms]
    return RunFacts(
        strategy=next(iter(setup.recipe.strategy)),
        learning=sum(size for name, size in sizes.items() if setup.factors[name] > 0),
        weights=sum(sizes.values()),
        steps=trained.steps,
        seconds=next((line["seconds"] for line in reversed(read_metrics(folder))), 0.0),
        device=facts["device"],
        batch_size=min(setup.recipe.train.batch_size, len(setup.pairs)),
        versions=versions(),
        facts=extra,
    )


def report_context(
    ready: Inputs,
    sets: Sequence[EvaluationSet],
    *,
    command: str,
    warnings: Sequence[str],
    readings: SplitUsage,
    shown: Sequence[Example],
    run: RunFacts | None = None,
    training: Sequence[dict[str, Any]] = (),
    trained_on: Sequence[str] = (),
) -> ReportContext:
    """What the report says besides the figures; `ready.base` is the model that the others stand against."""
    recipe, corpus = ready.recipe, ready.corpus
    general = next((one for one in sets if one.name == "general"), None)
    return ReportContext(
        title=recipe.report.title or f"{recipe.name.replace('_', ' ')}: what adaptation gained and cost",
        command=command,
        recipe=public_recipe(recipe),  # a report is sent around: paths name people and projects
        base=model_facts(ready.base),
        corpus=_corpus_facts(
            corpus.card, corpus.fingerprint, corpus.splits, corpus.unusable, corpus.notes, ready.findings
        ),
        retention=None
        if general is None
        else _corpus_facts(general.card, "", {"all": general.items}, [], [], []),
        run=run,
        training=training,
        warnings=list(dict.fromkeys(warnings)),
        invalid=ready.invalid,
        citations=sources(ready.recipe, ready.parts, ready.terms),
        examples=shown,
        trained_on=trained_on,
        readings=readings,
        versions=versions(),
    )


def write_run(folder: Path, ready: Inputs, evaluation: Evaluation, about: ReportContext) -> Path:
    """The report of a run, and the card of its model; the report's path."""
    page = write(folder, evaluation, about)
    facts = CardFacts(ready.recipe, ready.corpus.card, about.citations, ready.recipe.report.license)
    write_card(folder, results_file.load(folder / "results.json"), facts)
    return page


def _corpus_facts(
    card: Any,
    fingerprint: str,
    splits: Any,
    bad: Sequence[UnusableItem],
    notes: Sequence[str],
    findings: Sequence[Finding],
) -> CorpusFacts:
    return CorpusFacts(
        name=card.pretty_name or card.name,
        card=card.name,
        license=card.license,
        fingerprint=fingerprint,
        splits={name: _sizes(items) for name, items in splits.items()},
        quarantine=dict(Counter(item.reason for item in bad)),
        notes=list(notes),
        findings=[finding.text for finding in findings],
    )


def _sizes(items: Dataset) -> tuple[int, int]:
    return len(items), len(set(items["group"][:]))

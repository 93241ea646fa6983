"""Hop 9: the report of a run, and the card of its model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import Dataset

from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card
from domainclip.data.checks.findings import Finding, tolerated_copies
from domainclip.data.quarantine import UnusableItem
from domainclip.distributed import collectives
from domainclip.distributed.phases import phase
from domainclip.evaluation.base import RETENTION
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.precision_parity import precision_parity
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.split_usage import Measured, SplitUsage, evaluation_of, record_split_usage
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines.closing import close
from domainclip.pipelines.inputs import EvaluationInputs, Inputs
from domainclip.pipelines.run_decisions import record_trained_run
from domainclip.report import external_evaluations, manifest, results_file, writer
from domainclip.report.citations import sources
from domainclip.report.context import CorpusFacts, Examples, ReportContext, RunFacts
from domainclip.report.external_evaluations import EXTERNAL
from domainclip.report.gallery import gallery_examples
from domainclip.report.model_card import CardFacts, write_card
from domainclip.report.model_facts import model_facts
from domainclip.report.provenance import environment, versions
from domainclip.report.redaction import public_recipe
from domainclip.report.source_cautions import source_cautions
from domainclip.training.monitoring.metrics_log import read_metrics
from domainclip.training.run_context import RunContext
from domainclip.training.validation import validation_warnings
from domainclip.training.weight_interpolation import AdaptedModel


@phase("writing the report")
def write_run_report(
    evaluation: Evaluation,
    base: CachedEncoder,
    adapted: AdaptedModel,
    inputs: Inputs,
    protocol: Protocol,
    run: RunContext,
) -> Path | None:
    """Write report and model card into the run folder; the report's path, on the first process."""
    recipe, folder = inputs.recipe, run.folder
    examples = gallery_examples(
        recipe, protocol.reported[0], [base, adapted.encoder], protocol.probes, evaluation
    )
    precision = precision_line(base.model, protocol)
    run.say(*filter(None, [precision]))
    collectives.wait_for_all()
    if collectives.rank() > 0:
        return None
    floor = () if adapted.interpolation is None else adapted.interpolation.unmet(evaluation.rows)
    run.warn(*adapted.warnings, *floor)
    warnings = [*_warnings(inputs, protocol, adapted), *floor]
    # The base was recorded, under the same id, before it was trained.
    measured = Measured(
        evaluation_of(folder, recipe.evaluate.split), adapted=[adapted.model.fingerprint("all")]
    )
    usage = record_split_usage(protocol.reported, evaluation, measured, folder)
    run.warn(*filter(None, [usage.warning]))
    context = report_context(
        inputs,
        protocol,
        base.model,
        command=run.options.command,
        warnings=warnings,
        readings=usage,
        external=external_evaluations.summary(folder),
        cautions=source_cautions(evaluation),
        examples=examples,
        precision=precision,
        run=run_facts(adapted, folder),
        training=read_metrics(folder),
        citations=sources(recipe, inputs.components, inputs.objectives),
        adapted=model_facts(adapted.encoder.model, folder.name),
    )
    page = writer.write(folder, evaluation, context)
    record_trained_run(folder, inputs.corpus, protocol, evaluation)
    facts = CardFacts(recipe, inputs.corpus.card, context.citations, recipe.report.license)
    write_card(folder, results_file.load(folder / "results.json"), facts)
    manifest.write(folder)
    close(evaluation, context, run.say, folder, recipe, protocol.reported[0])
    return page


def _warnings(inputs: Inputs, protocol: Protocol, adapted: AdaptedModel) -> list[str]:
    """The warnings of all hops in their order."""
    recipe = inputs.recipe
    validation = adapted.trained.setup.validation
    halved = protocol.interpolation is not None and protocol.interpolation.max_retention_drop is not None
    return [
        *inputs.warnings,
        *validation_warnings(recipe.train, recipe.evaluate.split, halved),
        *(validation.floor_warnings if validation is not None and recipe.train.steers else ()),
        *(f"while training, {alarm.text}" for alarm in adapted.trained.alarms),
        *adapted.warnings,
    ]


def precision_line(base: DualEncoder, protocol: Protocol) -> str:
    """How far embeddings of the first set lie from fp32, on all processes; empty where they are fp32."""
    parity = precision_parity(base, protocol.embeddings, protocol.reported[0])
    return "" if parity is None else str(parity)


def run_facts(adapted: AdaptedModel, folder: Path) -> RunFacts:
    """How the adapted model was trained."""
    trained = adapted.trained
    setup = trained.setup
    removed = adapted.removed_source
    learning, weights = setup.weight_counts if removed is None else removed.weight_counts
    facts: dict[str, Any] = {"objectives": setup.objectives.weights, "peak_rate": setup.peak_rate}
    if adapted.interpolation is not None:
        facts["interpolation"] = adapted.interpolation.facts()
    if removed is not None:
        facts |= removed.facts()
    if adapted.scorer is not None:
        facts |= adapted.scorer.facts()
    if adapted.shares is not None:
        facts |= adapted.shares.facts()
    if setup.settings.micro_batch_size == "auto":
        facts["micro_batch_size"] = trained.micro_batch_size or "all"
    if setup.settings.final_weights == "best":
        facts["weights_of_step"] = trained.weights_of_step
    if trained.unusable:
        facts["unreadable_in_training"] = len(trained.unusable)
    records = read_metrics(folder)
    alone = [line["without_negative"] for line in records if "without_negative" in line]
    if any(alone):
        facts["pairs_without_negative"] = f"{fmean(alone):.1%} of those in the logged steps"
    if trained.alarms:
        facts["alarms"] = [alarm.code for alarm in trained.alarms]
    return RunFacts(
        strategy=setup.strategy,
        learning=learning,
        weights=weights,
        steps=trained.steps,
        seconds=next((line["seconds"] for line in reversed(records)), 0.0),
        device=environment()["device"],
        batch_size=min(setup.settings.batch_size, len(setup.pairs)),
        versions=versions(),
        facts=facts,
    )


def report_context(
    inputs: EvaluationInputs,
    protocol: Protocol,
    base: DualEncoder,
    *,
    command: str,
    warnings: Sequence[str],
    readings: SplitUsage,
    examples: Examples | None = None,
    run: RunFacts | None = None,
    training: Sequence[dict[str, Any]] = (),
    citations: Sequence[str] = (),
    adapted: Mapping[str, Any] | None = None,
    external: str = "",
    cautions: Sequence[str] = (),
    one_run: bool = False,
    precision: str = "",
) -> ReportContext:
    """Everything in a report besides the metrics; `base` is the model that the others are compared with.

    `external` states which external corpus is measured, or was; `cautions` limit the verdict of the report;
    `one_run` states that the adapted model is that of a single training run; `precision` that embeddings are
    not in fp32.
    """
    recipe, corpus = inputs.recipe, inputs.corpus
    retention = next((data for data in protocol.reported if data.name == RETENTION), None)
    return ReportContext(
        title=recipe.report.title or _title(recipe, corpus.card, external.startswith(EXTERNAL)),
        command=command,
        recipe=public_recipe(recipe),  # a report is sent around: paths name people and projects
        base=model_facts(base),
        adapted=adapted or {},
        corpus=_corpus_facts(
            corpus.card, corpus.fingerprint, corpus.splits, corpus.unusable, corpus.notes, inputs.findings
        ),
        retention=None
        if retention is None
        else _corpus_facts(retention.card, "", {"all": retention.items}, [], [], []),
        run=run,
        one_run=one_run or run is not None,
        training=training,
        warnings=list(dict.fromkeys(warnings)),
        invalid=[*inputs.invalid, *protocol.overlap.invalid],
        citations=citations,
        examples=examples,
        external=external,
        trained_on=protocol.overlap.statements,
        readings=readings,
        cautions=[*cautions, *tolerated_copies(inputs.findings)],
        precision=precision,
        versions=versions(),
    )


def _title(recipe: Recipe, card: Card, external: bool) -> str:
    name = recipe.name.replace("_", " ")
    if external:
        return f"{name}, measured on {card.pretty_name or card.name}"
    return f"{name}: what adaptation gained and cost"


def _corpus_facts(
    card: Card,
    fingerprint: str,
    splits: Mapping[str, Dataset],
    unusable: Sequence[UnusableItem],
    notes: Sequence[str],
    findings: Sequence[Finding],
) -> CorpusFacts:
    return CorpusFacts(
        name=card.pretty_name or card.name,
        card=card.name,
        license=card.license,
        fingerprint=fingerprint,
        splits={name: (len(items), len(set(items["group"][:]))) for name, items in splits.items()},
        quarantine=dict(Counter(item.reason for item in unusable)),
        notes=list(notes),
        findings=[finding.text for finding in findings],
        group_name=card.group_name,
        class_name=card.class_name,
    )

"""The table of an ablation: every figure over the seeds, against the base and the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from domainclip.components import build_components
from domainclip.evaluation import base as evaluation_base
from domainclip.evaluation import split_usage, verdicts
from domainclip.evaluation.base import EvaluationSet, Metric, ProbeResult
from domainclip.evaluation.statistics import closed_form, estimates
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.statistics.seeds import over_seeds
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, UNKNOWN, WORSE
from domainclip.pipelines import reporting
from domainclip.pipelines.ablation.measure import Found, Measuring, of_run
from domainclip.pipelines.ablation.runs import Ended
from domainclip.report import redaction, results_file, writer
from domainclip.report.ablation_results import AblationRow, AblationTable, Variant
from domainclip.report.citations import sources


def finish(measuring: Measuring, ended: Sequence[Ended], folder: Path, command: str) -> Path:
    """Measures what the complete runs left, and writes the table; the page's path."""
    ready, ablation = measuring.ready, measuring.ablation
    recipe = ablation.measured
    complete = [one for one in ended if not one.error]
    invalid = list(ready.invalid)
    found: dict[tuple[str, int], Found] = {}
    for one in complete:
        found[one.run.variant, one.run.seed], alike = of_run(measuring, one.run)
        if not alike:
            invalid.append(f"{one.run.variant} prepares images differently from the base: not comparable")
        own = results_file.load(one.run.folder / "results.json")
        if not own.valid:
            invalid += [f"{one.run.folder.name} is not valid: {why}" for why in own.warnings[:1]]
    warnings = list(measuring.warnings)
    rows = list(_rows(measuring, found, warnings))
    general = next((one for one in measuring.sets if one.name == evaluation_base.RETENTION), None)
    facts = reporting.report_context(
        ready, measuring.sets, command=command, warnings=[], readings=_readings(measuring.sets[0]), shown=[]
    )
    table = AblationTable(
        name=ablation.name,
        split=recipe.evaluate.split,
        general="" if general is None else general.name,
        base=facts.base,
        corpus=facts.corpus,
        variants=list(_variants(measuring, ended)),
        rows=_judged(rows),
        reference=ablation.plan.reference,
        resamples=recipe.evaluate.bootstrap_samples,
        seed=recipe.evaluate.seed,
        command=command,
        warnings=list(dict.fromkeys(warnings)),
        invalid=list(dict.fromkeys(invalid)),
        readings=str(facts.readings),
        citations=_citations(measuring, complete),
        versions=facts.versions,
    )
    return writer.write_ablation(folder, table)


def _rows(
    measuring: Measuring, found: Mapping[tuple[str, int], Found], warnings: list[str]
) -> Iterator[AblationRow]:
    recipe, plan = measuring.ablation.measured, measuring.ablation.plan
    for place, base in measuring.base.items():
        each = {key: one[place] for key, one in found.items() if place in one}
        names, left_out = verdicts.are_comparable([base, *each.values()])
        warnings += [f"{place[0]} on {place[1]}: {why}" for why in left_out]
        for name in names:
            first = _metric(base, name)
            scores: dict[str, dict[int, Any]] = {variant: {} for variant in plan.variants}
            for (variant, seed), one in each.items():
                scores[variant][seed] = _metric(one, name).scores
            scores = {variant: seeds for variant, seeds in scores.items() if seeds}
            how = (recipe.evaluate.bootstrap_samples, recipe.evaluate.seed)
            trials = over_seeds(first.aggregate, first.scores, scores, first.groups, *how, plan.reference)
            alone = estimates.compare_paired(
                first.aggregate, first.scores, None, first.groups, *how, first.unit == "share"
            )
            yield AblationRow(
                probe=place[0],
                dataset=place[1],
                metric=name,
                higher_is_better=first.higher_is_better,
                unit=first.unit,
                chance=first.chance,
                primary=name == base.primary,
                n=len(first.ids),
                groups=alone.groups,
                base=alone.base,
                trials=trials,
                judged=first.judged,
            )


def _metric(found: ProbeResult, name: str) -> Metric:
    return next(one for one in found.metrics if one.name == name)


def _judged(rows: Sequence[AblationRow]) -> list[AblationRow]:
    """The rows with their verdicts: a table is one family, and what stands against the reference another."""
    first = _verdicts([(row, {v: one.from_base for v, one in row.trials.items()}) for row in rows])
    second = _verdicts([(row, {v: one.from_reference for v, one in row.trials.items()}) for row in rows])
    return [
        replace(row, verdicts=one, reference_verdicts=other)
        for row, one, other in zip(rows, first, second, strict=True)
    ]


def _verdicts(told: Sequence[tuple[AblationRow, Mapping[str, Estimate | None]]]) -> list[dict[str, str]]:
    """By variant, for each row; figures that only describe take no part in the adjustment."""
    judged = [row.judged for row, _ in told]
    places = [
        (place, variant, change)
        for place, (_, changes) in enumerate(told)
        for variant, change in changes.items()
        if change is not None
    ]
    p = [change.p if judged[place] and change.p is not None else float("nan") for place, _, change in places]
    found: list[dict[str, str]] = [{} for _ in told]
    for (place, variant, change), adjusted in zip(places, closed_form.holm(p), strict=True):
        row = told[place][0]
        found[place][variant] = _verdict(change, adjusted, row.higher_is_better) if row.judged else NO_VERDICT
    return found


def _verdict(change: Estimate, p: float, higher_is_better: bool) -> str:
    if p != p:
        return UNKNOWN
    if p > 0.05 or not change.sign:
        return SAME
    return BETTER if (change.sign > 0) == higher_is_better else WORSE


def _variants(measuring: Measuring, ended: Sequence[Ended]) -> Iterator[Variant]:
    plan = measuring.ablation.plan
    for name, said in plan.variants.items():
        own = [one for one in ended if one.run.variant == name]
        done = [one for one in own if not one.error]
        runs = [results_file.load(one.run.folder / "results.json").run for one in done]
        yield Variant(
            name=name,
            said=[_public(line) for line in said],
            seeds=[one.run.seed for one in done],
            failed={one.run.seed: _public_error(one) for one in own if one.error},
            seconds=sum(float(run["seconds"]) for run in runs) / len(runs) if runs else 0.0,
            learning=int(runs[0]["learning"]) if runs else 0,
            weights=int(runs[0]["weights"]) if runs else 0,
        )


def _public(line: str) -> str:
    """A line of the plan without paths of this machine: the table is sent around."""
    key = line.partition("=")[0]
    return f"{key}=(local)" if any(redaction.search(line)) else redaction.without_path(line)


def _public_error(one: Ended) -> str:
    """The line of a fault without paths of this machine; of a line that names more than one may, its code."""
    said = redaction.hide(one.error, redaction.local_paths(one.run.recipe, one.run.folder))
    kinds = sorted({what for _, what in redaction.search(said)})
    return f"exit code {one.code}; its message names {kinds[0]} and stays here" if kinds else said


def _readings(data: EvaluationSet) -> split_usage.SplitUsage:
    """How often the split was read so far; every run has noted itself, and its model is no new look."""
    return split_usage.record(data.fingerprint, data.split, [])


def _citations(measuring: Measuring, complete: Sequence[Ended]) -> list[str]:
    """The parts of every variant, each once."""
    said: list[str] = []
    for recipe in {one.run.variant: one.run.recipe for one in complete}.values():
        built = build_components(recipe)
        said += sources(recipe, built, built.objectives or measuring.ready.terms)
    return list(dict.fromkeys(said))

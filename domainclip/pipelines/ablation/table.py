"""The table of an ablation: every metric over the seeds, against the base and the reference."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path

from domainclip.components import build_components
from domainclip.evaluation import split_usage, verdicts
from domainclip.evaluation.base import RETENTION, Metric, ProbeResult
from domainclip.evaluation.biased_metrics import described
from domainclip.evaluation.split_usage import Measured
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.statistics.gallery_effects import GalleryEffects
from domainclip.evaluation.statistics.seeds import over_seeds
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, UNKNOWN, WORSE
from domainclip.pipelines.ablation.choice import choose
from domainclip.pipelines.ablation.measure import AblationBaseline, ResultKey, Results, measure_run
from domainclip.pipelines.ablation.plan import Ablation
from domainclip.pipelines.ablation.runs import Ended
from domainclip.pipelines.reporting import report_context
from domainclip.report import redaction, results_file
from domainclip.report.ablation_results import AblationRow, AblationTable, Variant
from domainclip.report.citations import sources

log = logging.getLogger("domainclip")
_ONE_RUN = "one training run: the intervals hold the luck of the items, and not that of the seed"


def make_table(
    baseline: AblationBaseline, ended: Sequence[Ended], folder: Path, command: str
) -> AblationTable:
    """Measure the models of the complete runs on the items of the baseline, and compare them."""
    ablation, protocol = baseline.ablation, baseline.protocol
    recipe = ablation.measured
    complete = [end for end in ended if not end.error]
    invalid, warnings = list(baseline.inputs.invalid), list(baseline.warnings)
    weights: list[str] = []
    results: dict[tuple[str, int], Results] = {}
    faults = dict(baseline.control_faults)
    for end in complete:
        measured = measure_run(baseline, end.run)
        results[end.run.variant, end.run.seed] = measured.results
        weights.append(measured.weights)
        warnings += measured.warnings
        faults = {**measured.control_faults, **faults}
        invalid += measured.invalid
        file = results_file.load(end.run.folder / "results.json")
        if not file.valid:
            invalid += [f"{end.run.folder.name} is not valid: {why}" for why in file.warnings[:1]]
    if len({seed for _, seed in results}) == 1:
        warnings.append(_ONE_RUN)
    warnings += [
        f"{probe} on {dataset}: not judged, since {fault}" for (probe, dataset), fault in faults.items()
    ]
    names_by_key, left_out = _comparable(baseline.results, results)
    retention = next((data for data in protocol.reported if data.name == RETENTION), None)
    context = report_context(
        baseline.inputs,
        protocol,
        baseline.inputs.base,
        command=command,
        warnings=[],
        readings=_record(baseline, weights, folder),
    )
    rows = _judged(list(_rows(baseline, results, names_by_key, faults)))
    table = AblationTable(
        name=ablation.name,
        split=recipe.evaluate.split,
        general="" if retention is None else retention.name,
        base=context.base,
        corpus=context.corpus,
        variants=list(_variants(ablation, ended)),
        rows=rows,
        reference=ablation.plan.reference,
        resamples=recipe.evaluate.bootstrap_samples,
        seed=recipe.evaluate.seed,
        command=command,
        warnings=list(dict.fromkeys([*warnings, *left_out])),
        invalid=list(dict.fromkeys(invalid)),
        readings=str(context.readings),
        citations=_citations(baseline, complete),
        versions=context.versions,
        choice=None if invalid else choose(baseline, results, rows),
    )
    for reason in table.invalid:  # exit code 0 alone would hide it
        log.warning("not valid: %s", reason)
    return table


def _comparable(
    base: Results, runs: Mapping[tuple[str, int], Results]
) -> tuple[dict[ResultKey, list[str]], list[str]]:
    """By probe and set, the metrics of base and runs on the same items; and why others are left out."""
    names_by_key, warnings = {}, []
    for key, result in base.items():
        names, left_out = verdicts.are_comparable(
            [result, *(run[key] for run in runs.values() if key in run)]
        )
        names_by_key[key] = names
        warnings += [f"{key[0]} on {key[1]}: {why}" for why in left_out]
    return names_by_key, warnings


def _rows(
    baseline: AblationBaseline,
    runs: Mapping[tuple[str, int], Results],
    names_by_key: Mapping[ResultKey, Sequence[str]],
    faults: Mapping[ResultKey, str],
) -> Iterator[AblationRow]:
    recipe, plan = baseline.ablation.measured, baseline.ablation.plan
    bootstrap = (recipe.evaluate.bootstrap_samples, recipe.evaluate.seed)
    for key, base in baseline.results.items():
        for name in names_by_key[key]:
            metric = _metric(base, name)
            measured: dict[str, dict[int, Metric]] = {variant: {} for variant in plan.variants}
            for (variant, seed), results in runs.items():
                if key in results:
                    measured[variant][seed] = _metric(results[key], name)
            measured = {variant: seeds for variant, seeds in measured.items() if seeds}
            share = metric.unit == "share"
            trials = over_seeds(
                metric.aggregate,
                metric.scores,
                {v: {seed: other.scores for seed, other in seeds.items()} for v, seeds in measured.items()},
                metric.groups,
                *bootstrap,
                plan.reference,
                share,
                metric.biased,
                metric.gallery,
                _effects(measured),
            )
            alone = described(verdicts.compare_metric([base], name, *bootstrap), [base])
            yield AblationRow(
                probe=key[0],
                dataset=key[1],
                metric=name,
                higher_is_better=metric.higher_is_better,
                unit=metric.unit,
                chance=metric.chance,
                primary=name == base.primary,
                n=len(metric.ids),
                groups=alone.groups,
                base=alone.base,
                trials=trials,
                comparable=metric.comparable and key not in faults,
            )


def _effects(measured: Mapping[str, Mapping[int, Metric]]) -> dict[str, dict[int, GalleryEffects]] | None:
    """The effects of the answers on a metric of retrieval, by variant and seed; None for any other metric."""
    effects = {
        variant: {seed: metric.gallery for seed, metric in seeds.items() if metric.gallery is not None}
        for variant, seeds in measured.items()
    }
    return effects if all(effects.values()) else None


def _metric(result: ProbeResult, name: str) -> Metric:
    return next(metric for metric in result.metrics if metric.name == name)


def _judged(rows: Sequence[AblationRow]) -> list[AblationRow]:
    """The rows with their verdicts; comparisons with the base are one family, with the reference another.

    Intervals and p of a family are corrected for their number. Descriptive metrics take no part.
    """
    judged = [trial for row in rows if row.comparable for trial in row.trials.values()]
    comparisons = (
        max(1, sum(not isnan(trial.base_change.p) for trial in judged)),
        max(1, sum(not isnan(t.reference_change.p) for t in judged if t.reference_change is not None)),
    )
    return [_with_verdicts(row, comparisons if row.comparable else (1, 1)) for row in rows]


def _with_verdicts(row: AblationRow, comparisons: tuple[int, int]) -> AblationRow:
    trials = {name: replace(trial, comparisons=comparisons) for name, trial in row.trials.items()}
    return replace(
        row,
        trials=trials,
        verdicts={name: _verdict(trial.from_base, row) for name, trial in trials.items()},
        reference_verdicts={
            name: _verdict(trial.from_reference, row)
            for name, trial in trials.items()
            if trial.from_reference is not None
        },
    )


def _verdict(change: Estimate, row: AblationRow) -> str:
    if not row.comparable:
        return NO_VERDICT
    if isnan(change.low):
        return UNKNOWN
    if not change.sign:
        return SAME
    return BETTER if (change.sign > 0) == row.higher_is_better else WORSE


def _variants(ablation: Ablation, ended: Sequence[Ended]) -> Iterator[Variant]:
    plan = ablation.plan
    for name, lines in plan.variants.items():
        ends = [end for end in ended if end.run.variant == name]
        complete = [end for end in ends if not end.error]
        runs = [results_file.load(end.run.folder / "results.json").run for end in complete]
        yield Variant(
            name=name,
            overrides=[_public(line) for line in lines],
            seeds=[end.run.seed for end in complete],
            failed={end.run.seed: public_error(end) for end in ends if end.error},
            seconds=sum(float(run["seconds"]) for run in runs) / len(runs) if runs else 0.0,
            learning=int(runs[0]["learning"]) if runs else 0,
            weights=int(runs[0]["weights"]) if runs else 0,
        )


def _public(line: str) -> str:
    """A line of the plan without paths of this machine: the table is sent around."""
    key = line.partition("=")[0]
    return f"{key}=(local)" if any(redaction.search(line)) else redaction.without_path(line)


def public_error(end: Ended) -> str:
    """The line of an error without paths of this machine; of one that must not be public, the exit code."""
    error = redaction.hide(end.error, redaction.local_paths(end.run.recipe, end.run.folder))
    kinds = sorted({what for _, what in redaction.search(error)})
    return f"exit code {end.code}; its message names {kinds[0]} and stays here" if kinds else error


def record_base(baseline: AblationBaseline, folder: Path) -> None:
    """Record the base in the folder of the runs, before they begin: with it they are one evaluation."""
    data = baseline.protocol.reported[0]
    measured = Measured(split_usage.evaluation_of(folder, data.split), base=[baseline.weights])
    split_usage.record(data.fingerprint, data.split, measured, _prompts(baseline), folder)


def _record(baseline: AblationBaseline, weights: Sequence[str], folder: Path) -> split_usage.SplitUsage:
    """Record the models of the table, with the runs of the folder, as one evaluation."""
    data = baseline.protocol.reported[0]
    evaluation = split_usage.evaluation_of(folder, data.split, weights)
    measured = Measured(evaluation, base=[baseline.weights], adapted=weights)
    return split_usage.record(data.fingerprint, data.split, measured, _prompts(baseline), folder)


def _prompts(baseline: AblationBaseline) -> str:
    """The sha256 of the prompts on the set of the corpus, as the runs record it; empty without any."""
    name = baseline.protocol.reported[0].name
    details = [result.details for (_, dataset), result in baseline.results.items() if dataset == name]
    return next((str(entry["prompts_sha256"]) for entry in details if "prompts_sha256" in entry), "")


def _citations(baseline: AblationBaseline, complete: Sequence[Ended]) -> list[str]:
    """The sources of the components of every variant, each once."""
    citations: list[str] = []
    for recipe in {end.run.variant: end.run.recipe for end in complete}.values():
        components = build_components(recipe)
        citations += sources(recipe, components, components.objectives or baseline.inputs.objectives)
    return list(dict.fromkeys(citations))

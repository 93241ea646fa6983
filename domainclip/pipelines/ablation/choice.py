"""The variant that the validation split chooses; the test split plays no part in it.

The first headline metric of the plan decides, among the variants that improve it and whose mean loss on the
retention set is at most the plan's `max_retention_drop`: of the same metric, or of the first headline metric
that is measured there. Of these, all within one standard error of the best, the error of their paired
difference, count as equally good, and the first in the plan wins: a plan lists the simple variants first.
Where no variant qualifies, the base stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from domainclip.evaluation.base import RETENTION, Metric
from domainclip.evaluation.statistics.paired_error import paired_error
from domainclip.pipelines.ablation.measure import AblationBaseline, Results
from domainclip.report.ablation_results import AblationRow, Candidate, Choice

_NOISE = 1e-12  # 0.50 - 0.49 is a hair more than 0.01


def choose(
    baseline: AblationBaseline, runs: Mapping[tuple[str, int], Results], rows: Sequence[AblationRow]
) -> Choice | None:
    """The choice among the variants with complete runs; None where no metric of the plan can be judged."""
    plan = baseline.ablation.plan
    row = _deciding_row(baseline, rows)
    if row is None:
        return None
    general = _on_retention(row, rows)
    limit = None if general is None or general.unit != "share" else plan.max_retention_drop
    candidates = list(_candidates(row, general, limit, list(plan.variants)))
    better = [c for c in candidates if c.allowed and c.gain > 0]
    best = max(better, key=lambda candidate: candidate.gain, default=None)
    chosen = None
    if best is not None:
        errors = {c.variant: _error(baseline, runs, row, c.variant, best.variant) for c in better}
        chosen = next(c.variant for c in better if best.gain - c.gain <= errors[c.variant] + _NOISE)
    return Choice(
        variant=chosen,
        best=None if best is None else best.variant,
        metric=f"{row.probe}/{row.dataset}/{row.metric}",
        max_retention_drop=limit,
        candidates=candidates,
        retention_metric="" if general is None else f"{general.probe}/{general.dataset}/{general.metric}",
    )


def _deciding_row(baseline: AblationBaseline, rows: Sequence[AblationRow]) -> AblationRow | None:
    """The first metric that the plan names on the validation split, or the first headline metric there."""
    split, named = baseline.ablation.measured.evaluate.split, baseline.ablation.plan.metrics
    judged = [row for row in rows if row.dataset == split and row.comparable and isfinite(row.base.value)]
    by_name = {f"{row.probe}/{row.dataset}/{row.metric}": row for row in judged}
    first = next((by_name[name] for name in named if name in by_name), None)
    return first or next((row for row in judged if row.primary), None)


def _on_retention(row: AblationRow, rows: Sequence[AblationRow]) -> AblationRow | None:
    """The same metric on the retention set, or the first headline metric that is measured there."""
    there = [r for r in rows if r.dataset == RETENTION and r.comparable and isfinite(r.base.value)]
    same = (r for r in there if (r.probe, r.metric) == (row.probe, row.metric))
    return next(same, None) or next((r for r in there if r.primary), None)


def _candidates(
    row: AblationRow, general: AblationRow | None, limit: float | None, variants: Sequence[str]
) -> Iterator[Candidate]:
    sign = 1 if row.higher_is_better else -1
    for variant in variants:
        trials = row.trials.get(variant)
        if trials is None:
            continue
        drop = None if general is None else _drop(general, variant)
        yield Candidate(
            variant=variant,
            mean=trials.mean,
            gain=sign * (trials.mean - row.base.value),
            retention_drop=drop,
            allowed=limit is None or (drop is not None and drop <= limit + _NOISE),
        )


def _drop(general: AblationRow, variant: str) -> float | None:
    trials = general.trials.get(variant)
    if trials is None:
        return None
    drop = general.base.value - trials.mean
    return drop if general.higher_is_better else -drop


def _error(
    baseline: AblationBaseline,
    runs: Mapping[tuple[str, int], Results],
    row: AblationRow,
    variant: str,
    best: str,
) -> float:
    """The standard error of the difference of two variants, seed by seed; 0 where it cannot be known."""
    if variant == best:
        return 0.0
    seeds = [seed for name, seed in runs if name == variant and (best, seed) in runs]
    pairs = [(_metric(runs[variant, seed], row), _metric(runs[best, seed], row)) for seed in seeds]
    if not pairs:
        return 0.0
    settings, first = baseline.ablation.measured.evaluate, pairs[0][0]
    scores = [(one.scores, other.scores) for one, other in pairs]
    error = paired_error(first.aggregate, scores, first.groups, settings.bootstrap_samples, settings.seed)
    return error if isfinite(error) else 0.0


def _metric(results: Results, row: AblationRow) -> Metric:
    result = results[row.probe, row.dataset]
    return next(metric for metric in result.metrics if metric.name == row.metric)

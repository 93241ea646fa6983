"""Comparison rows of a report, and their verdicts: whether a difference between models is significant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from domainclip.evaluation.base import RETENTION, ProbeResult, gallery_effects
from domainclip.evaluation.statistics import estimates
from domainclip.evaluation.statistics.changes import ALPHA, Change
from domainclip.evaluation.statistics.drops import drop_at_most
from domainclip.evaluation.statistics.estimates import Estimate, estimate_of

BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "no difference shown", "too few groups to tell"
KEPT = "kept within the margin"  # no difference is shown, and none larger than `retention.margin` is possible
NO_VERDICT = "not judged"  # a descriptive metric, one that its own noise biases, or one whose control failed


@dataclass(frozen=True)
class MetricHeader:
    """The facts of a metric that are the same for every model.

    A metric with a slash, `recall/cat`, is a part of the metric before the slash.
    """

    probe: str
    dataset: str
    metric: str
    higher_is_better: bool
    unit: str
    chance: float | None
    primary: bool
    n: int
    groups: int


@dataclass(frozen=True)
class ComparisonRow(MetricHeader):
    """One metric of one model, or of two with their difference: a row of the report."""

    undefined: float  # share of the resamples in which the metric is undefined
    base: Estimate
    adapted: Estimate | None
    difference: Estimate | None
    ids: Sequence[str]
    owners: Sequence[str]  # the group of each id
    base_scores: np.ndarray
    adapted_scores: np.ndarray | None
    change: Change | None = None  # from which interval and p of the difference follow
    verdict: str | None = None  # one of the six verdicts above; None for a single model
    least_p: float = 0.0  # smallest p that any difference could reach
    comparable: bool = True  # whether its difference may be called better or worse
    control_fault: str = ""  # why it is not judged although it could be: a control that failed
    too_few: str = ""  # why there is no interval, in words
    effective_answers: float = np.inf  # of equal influence, that a difference in retrieval comes from
    biased: bool = False  # whether noise alone moves it to one side: then it has no interval
    by_luck: Sequence[float | None] = ()  # of a biased metric, by model: its value with nothing but noise
    comparisons: int = 1  # number of differences that are judged together
    adjusted_p: float | None = None  # p after correction for them (Bonferroni), where there are several
    # The difference with the interval that holds, together with those of the others, with 95 %; its p is
    # `adjusted_p`. None for a difference that is judged alone, or not judged.
    simultaneous: Estimate | None = None
    margin: float | None = None  # the largest loss that is accepted, where `retention.margin` applies

    @property
    def whole(self) -> str:
        """The name of the metric without its part."""
        return self.metric.partition("/")[0]

    @property
    def part(self) -> str:
        """The class or language of a part; empty for a whole metric."""
        return self.metric.partition("/")[2]

    @property
    def shown(self) -> Estimate | None:
        """The difference with the interval that agrees with the verdict: simultaneous in a family."""
        return self.simultaneous or self.difference

    @property
    def at_most_lost(self) -> float | None:
        """The largest loss that the interval of `shown` leaves open; None where nothing is judged.

        The outer end of a two-sided 95 % interval, so 2.5 % of the losses are larger: the level of tests of
        non-inferiority (ICH E9, section 3.3.2).
        """
        if self.shown is None or not self.comparable or self.control_fault:
            return None
        lost = drop_at_most(self.shown, self.groups, self.higher_is_better)
        return None if np.isinf(lost) or self.shown.low == self.shown.high else lost

    @property
    def within_margin(self) -> bool | None:
        """Whether the loss is shown to be at most `margin`; None without a margin or a bound."""
        if self.margin is None or self.at_most_lost is None:
            return None
        return self.at_most_lost <= self.margin + 1e-12  # 0.50 - 0.49 is a hair more than 0.01


def compare_metric(results: Sequence[ProbeResult], name: str, resamples: int, seed: int) -> ComparisonRow:
    """The row of one metric, for one model or for two on the same items."""
    first, *others = [next(m for m in result.metrics if m.name == name) for result in results]
    assert all(list(metric.ids) == list(first.ids) for metric in others), f"{name}: models on different items"
    other = others[0].scores if others else None
    same_tower = first.one_tower and other is not None and np.array_equal(first.scores, other, equal_nan=True)
    compared = estimates.compare_paired(
        first.aggregate,
        first.scores,
        other,
        first.groups,
        resamples,
        seed,
        first.unit == "share",
        gallery_effects([first, *others]),
    )
    return ComparisonRow(
        probe=results[0].probe,
        dataset=results[0].dataset,
        metric=first.name,
        higher_is_better=first.higher_is_better,
        unit=first.unit,
        chance=first.chance,
        primary=first.name == results[0].primary,
        n=len(first.ids),
        groups=compared.groups,
        undefined=compared.undefined,
        base=compared.base,
        adapted=compared.adapted,
        difference=compared.difference,
        change=compared.change,
        ids=first.ids,
        owners=first.groups,
        base_scores=first.scores,
        adapted_scores=other,
        least_p=compared.least_p,
        comparable=first.comparable and not same_tower,
        too_few=compared.too_few,
        effective_answers=compared.effective_answers,
    )


def are_comparable(results: Sequence[ProbeResult]) -> tuple[list[str], list[str]]:
    """The metrics that every model has on the same items, in order, and the reasons why others are left out.

    Items are not removed here to make the sets equal: some aggregates depend on their number.
    """
    variants = list(dict.fromkeys(result.variant for result in results if result.metrics))
    if len(variants) > 1:
        return [], [f"not compared, since the models are measured differently: {'; '.join(variants)}"]
    names = list(dict.fromkeys(metric.name for result in results for metric in result.metrics))
    by_name = {name: [m for result in results for m in result.metrics if m.name == name] for name in names}
    missing = [name for name in names if len(by_name[name]) < len(results)]
    other_items = [
        name
        for name, metrics in by_name.items()
        if name not in missing and any(list(m.ids) != list(metrics[0].ids) for m in metrics)
    ]
    reasons = []
    if missing:
        reasons.append(f"left out, since not every model has it: {_first_names(missing)}")
    if other_items:
        reasons.append(
            f"left out, since the models are measured on different items: {_first_names(other_items)}"
        )
    return [name for name in names if name not in missing and name not in other_items], reasons


def _first_names(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"


def add_verdicts(rows: Sequence[ComparisonRow], margin: float | None = None) -> list[ComparisonRow]:
    """The rows of one model against another, with their verdicts."""
    return add_verdicts_together([rows], margin)[0]


def add_verdicts_together(
    models: Sequence[Sequence[ComparisonRow]], margin: float | None = None
) -> list[list[ComparisonRow]]:
    """The rows of each model against the same reference, with their verdicts.

    A single comparison of a whole metric is judged by its own interval and p. Comparisons made together form
    a family, and are judged by simultaneous intervals and adjusted p (see `statistics.changes`): the parts of
    a metric, since among 20 classes one would differ by chance, and several models against one, for the same
    reason. A difference that is not judged takes no part. `margin` is the loss that is accepted in a share on
    the retention set.
    """
    judged = {}
    for members in _families(models).values():
        comparisons = sum(_is_judged(models[model][place]) for model, place in members)
        for model, place in members:
            row = models[model][place]
            accepted = margin if row.dataset == RETENTION and row.unit == "share" else None
            row = replace(_among(row, comparisons), margin=accepted if _is_judged(row) else None)
            judged[model, place] = replace(row, verdict=_verdict(row))
    return [[judged[model, place] for place in range(len(rows))] for model, rows in enumerate(models)]


def _among(row: ComparisonRow, comparisons: int) -> ComparisonRow:
    """The row as one of several that are judged together."""
    if comparisons < 2 or not _is_judged(row):
        return replace(row, comparisons=max(1, comparisons))
    assert row.change is not None
    together = estimate_of(row.change, comparisons)
    return replace(row, comparisons=comparisons, adjusted_p=together.p, simultaneous=together)


def underpowered_families(models: Sequence[Sequence[ComparisonRow]], resamples: int) -> list[str]:
    """Warnings for families so large that no difference in them could be significant."""
    warnings = []
    for (probe, dataset, metric, _), members in _families(models).items():
        rows = [models[model][place] for model, place in members]
        least = [row.least_p for row in rows if row.comparable and not np.isnan(_p(row))]
        changed = any(row.difference is not None and row.difference.value for row in rows)
        if changed and len(least) > 1 and len(least) * min(least) > ALPHA:
            # Differences in k groups give no p below 2/2^k, however many resamples are drawn.
            by_groups = float(np.log2(min(least))).is_integer()
            limits = f"{rows[0].groups} groups" + ("" if by_groups else f" and {resamples} resamples")
            remedy = "" if by_groups else "raise evaluate.bootstrap_samples, or "
            warnings.append(
                f"{probe} on {dataset}: {metric}: {len(least)} differences are compared together, of which "
                f"none can be shown: {limits} give no p below {min(least):.2g}: {remedy}measure more groups"
            )
    return warnings


def _families(
    models: Sequence[Sequence[ComparisonRow]],
) -> dict[tuple[str, str, str, bool], list[tuple[int, int]]]:
    """The rows that are compared together, as places (model, row)."""
    families = defaultdict(list)
    for model, rows in enumerate(models):
        for place, row in enumerate(rows):
            families[row.probe, row.dataset, row.whole, bool(row.part)].append((model, place))
    return families


def _p(row: ComparisonRow) -> float:
    p = row.difference.p if row.difference else None
    return float("nan") if p is None else p


def _is_judged(row: ComparisonRow) -> bool:
    return row.comparable and not row.control_fault and not np.isnan(_p(row))


def _verdict(row: ComparisonRow) -> str | None:
    if row.shown is None:
        return None
    if not row.comparable or row.control_fault:
        return NO_VERDICT
    if np.isnan(row.shown.low):
        return UNKNOWN
    sign = row.shown.sign if row.higher_is_better else -row.shown.sign
    return {1: BETTER, -1: WORSE, 0: KEPT if row.within_margin else SAME}[sign]

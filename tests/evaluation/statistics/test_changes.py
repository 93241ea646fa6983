"""p, interval and verdict of a difference agree: by hand, and in random worlds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import t

from domainclip.evaluation.base import RETENTION, Metric, ProbeResult
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.changes import Change
from domainclip.evaluation.verdicts import (
    BETTER,
    KEPT,
    SAME,
    UNKNOWN,
    WORSE,
    ComparisonRow,
    add_verdicts_together,
    compare_metric,
)

NAN = float("nan")


def test_student_by_hand() -> None:
    """0.3 with the standard error 0.1 and 4 degrees of freedom: t = 3, p = 0.0399; 2.776445 · 0.1."""
    change = Change(0.3, 0.3, 0.01, 4)
    assert change.p == pytest.approx(0.03994197)
    assert change.interval() == pytest.approx((0.3 - 0.2776445, 0.3 + 0.2776445))
    assert change.adjusted_p(2) == pytest.approx(0.07988394)
    reach = t.ppf(1 - 0.0125, 4) * 0.1
    assert change.interval(2) == pytest.approx((0.3 - reach, 0.3 + reach))
    assert Change(0.3, 0.3, 4.0, 4).adjusted_p(9) == 1.0


def test_where_the_exact_test_does_not_exclude_zero_the_interval_holds_it() -> None:
    change = Change(0.3, 0.3, 0.01, 4, exact_p=0.06)
    assert change.p == 0.06
    assert change.interval() == pytest.approx((0.0, 0.3 + 0.2776445))
    assert replace(change, value=-0.3, centre=-0.3).interval() == pytest.approx((-0.3 - 0.2776445, 0.0))
    allowed = replace(change, exact_p=0.05)
    assert (allowed.p, allowed.interval()[0]) == (0.05, pytest.approx(0.3 - 0.2776445))
    wide = Change(0.3, 0.3, 0.04, 4, exact_p=0.06)
    assert wide.interval() == replace(wide, exact_p=0.0).interval()  # holds zero by itself


def test_the_interval_holds_the_value_that_the_centre_is_shrunk_from() -> None:
    assert Change(0.3, 0.2, 1e-6, 100).interval()[1] == 0.3
    assert Change(-0.3, -0.2, 1e-6, 100).interval()[0] == -0.3


def test_no_variance_and_too_few_groups() -> None:
    assert (Change(0.3, 0.3, 0.0, 4).p, Change(0.3, 0.3, 0.0, 4).interval()) == (0.0, (0.3, 0.3))
    assert (Change(0.0, 0.0, 0.0, 4).p, Change(0.0, 0.0, 0.0, 4).interval()) == (1.0, (0.0, 0.0))
    few = Change(0.3, 0.3, NAN, NAN, exact_p=0.2)
    assert np.isnan([few.p, few.adjusted_p(3), *few.interval(), *few.interval(3)]).all()


def worlds(rng: np.random.Generator) -> Iterator[tuple[str, aggregates.Aggregate, np.ndarray, np.ndarray]]:
    """Metrics of each procedure, of two models that differ by nothing, a little or much."""
    n, effect = 60, rng.choice([0.0, 0.3, 0.6, 1.0])
    labels = np.arange(n) % 3
    few = (np.arange(n) < 12).astype(float)
    shared = rng.normal(size=n)
    one, other = (shared + 0.6 * rng.normal(size=(2, n))) + [[0.0], [effect]]
    rare = (rng.random(n) < 0.9).astype(float)
    yield "right", aggregates.mean, (one > 0).astype(float), (other > 0).astype(float)
    yield "rarely_changed", aggregates.mean, rare, np.where(rng.random(n) < 0.1 * effect, 0.0, rare)
    yield "macro", partial(aggregates.macro_mean, classes=labels), (one > 0).astype(float), (other > 0) * 1.0
    yield "auroc", partial(aggregates.auroc, labels=few), one, one + effect * few + rng.normal(size=n) / 3
    yield "median", aggregates.median, np.round(np.exp(one)), np.round(np.exp(other))
    yield "frozen", aggregates.mean, one, one.copy()


def rows_of(rng: np.random.Generator, parts: int) -> list[ComparisonRow]:
    """A row for each metric, whole or as so many parts, of groups of one or three items."""
    rows = []
    size = int(rng.choice([1, 3]))
    dataset = str(rng.choice(["test", RETENTION]))
    for part in range(parts):
        for name, aggregate, base, adapted in worlds(rng):
            metrics = [
                Metric(
                    f"{name}/{part}" if parts > 1 else name,
                    [f"{i}" for i in range(60)],
                    [f"{i // size}" for i in range(60)],
                    scores,
                    aggregate,
                    unit="rank" if name == "median" else "share",
                )
                for scores in (base, adapted)
            ]
            results = [ProbeResult("made", dataset, [metric], name, 1) for metric in metrics]
            rows.append(compare_metric(results, metrics[0].name, 100, 0))
    return rows


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("models", [1, 3])
def test_verdict_p_and_interval_agree_in_every_row(parts: int, models: int) -> None:
    rng = np.random.default_rng(10 * parts + models)
    counts = dict.fromkeys((BETTER, WORSE, SAME, KEPT, UNKNOWN), 0)
    for _ in range(24 // (parts * models)):
        for table in add_verdicts_together([rows_of(rng, parts) for _ in range(models)], margin=0.1):
            for row in table:
                counts[str(row.verdict)] += 1
                _agrees(row)
    assert counts[BETTER] > 5
    assert counts[WORSE] + counts[KEPT] > 5
    assert counts[SAME] > 5


def _agrees(row: ComparisonRow) -> None:
    shown = row.shown
    assert shown is not None
    assert shown.p is not None
    if row.verdict == UNKNOWN:
        assert np.isnan([shown.low, shown.high, shown.p]).all()
        return
    judged = row.verdict in (BETTER, WORSE)
    assert judged == (shown.p <= 0.05) == (shown.low > 0 or shown.high < 0)
    assert shown.low <= shown.value <= shown.high
    better = shown.low > 0
    assert (row.verdict == BETTER) == (judged and better)
    assert shown.p == (row.difference.p if row.adjusted_p is None else row.adjusted_p)  # type: ignore[union-attr]
    if row.at_most_lost is not None:
        assert row.at_most_lost == max(0.0, -shown.low)
        assert (row.verdict == WORSE) <= (row.at_most_lost > 0)
    if row.verdict == KEPT:
        assert row.at_most_lost is not None
        assert row.at_most_lost <= 0.1
        assert (row.dataset, row.unit) == (RETENTION, "share")

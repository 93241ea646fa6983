"""How often the 95 % intervals hold the truth, and how often equal models are called different.

    make coverage            # prints four Markdown tables, of docs/guide/evaluation.md
    python -m benchmarks.coverage --trials 200 --groups 20 --tables patients
    python -m benchmarks.coverage --tables worlds families margin

1. patients: images of one patient agree by the intraclass correlation (ICC); 1 or 5 images each, or 1 to 20
   (geometric). A mean score; an accuracy of 0.8; an AUROC of 0.8; the paired difference of two accuracies.
   "by image" resamples images: the negative control.
2. worlds: differences where a bootstrap fails (benchmarks/coverage_worlds.py), before and after.
3. families: differences that are judged together: how often any is called different that is not, before (each
   by the bootstrap) and after correction, and how often all simultaneous intervals hold their truths.
4. margin: how often a model that loses exactly the margin of retention is called kept within it.

Standard error of a share of 5 % in 1000 trials: 0.7 points. Two processes, one for each core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from scipy.stats import norm

from benchmarks.coverage_worlds import FAMILIES, WORLDS, Family, Pair, World, names, rare_changes
from domainclip.evaluation.statistics import aggregates, bootstrap, estimates
from domainclip.evaluation.statistics.bootstrap import resampled
from domainclip.evaluation.statistics.changes import ALPHA
from domainclip.evaluation.statistics.drops import drop_at_most

SIZES = ("1", "5", "1-20")
METHODS = ("percentile", "BCa", "ours")
Row = tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """One draw from a world whose truth is known."""

    aggregate: aggregates.Aggregate
    models: list[np.ndarray]  # one, or two whose difference is asked for
    truth: float


def patients(rng: np.random.Generator, groups: int, sizes: str) -> np.ndarray:
    """(n,) the patient of each image."""
    each = np.minimum(rng.geometric(0.2, groups), 20) if sizes == "1-20" else np.full(groups, int(sizes))
    member: np.ndarray = np.repeat(np.arange(groups), each)
    return member


def draw(rng: np.random.Generator, figure: str, member: np.ndarray, icc: float) -> Sample:
    """Scores with this intraclass correlation on the latent scale."""

    def latent() -> np.ndarray:
        own = rng.normal(size=member.max() + 1)[member]
        scores: np.ndarray = np.sqrt(icc) * own + np.sqrt(1 - icc) * rng.normal(size=len(member))
        return scores

    if figure == "mean":
        return Sample(aggregates.mean, [latent()], 0.0)
    if figure == "accuracy":
        return Sample(aggregates.mean, [(latent() < norm.ppf(0.8)).astype(float)], 0.8)
    if figure == "difference":
        shared = latent()
        two = [((shared + 0.5 * latent()) < 0.9).astype(float) for _ in range(2)]
        return Sample(aggregates.mean, two, 0.0)
    ill = (rng.random(member.max() + 1) < 0.4)[member].astype(float)  # patients are ill, not images
    shift = np.sqrt(2) * norm.ppf(0.8)
    return Sample(partial(aggregates.auroc, labels=ill), [latent() + shift * ill], 0.8)


def intervals(
    sample: Sample, groups: list[str], resamples: int, seed: int, share: bool
) -> Iterator[tuple[float, float]]:
    """The intervals of METHODS, from the same resamples."""
    drawn = resampled(sample.aggregate, sample.models, groups, resamples, seed)
    without = bootstrap.jackknife(sample.aggregate, sample.models, groups)
    points = [aggregates.point_estimate(sample.aggregate, scores) for scores in sample.models]
    two = len(points) == 2
    point = points[-1] - (points[0] if two else 0)
    values, left_out = drawn[-1] - (drawn[0] if two else 0), without[-1] - (without[0] if two else 0)
    yield bootstrap.interval(values)
    yield bootstrap.bca(values, point, left_out) or bootstrap.interval(values)
    other = sample.models[1] if two else None
    found = estimates.compare_paired(
        sample.aggregate, sample.models[0], other, groups, resamples, seed, share
    )
    figure = found.difference or found.base
    yield figure.low, figure.high


def coverage(
    figure: str, groups: int, sizes: str, icc: float, trials: int, resamples: int, seed: int = 0
) -> dict[str, float]:
    """Share of the trials in which each interval holds the truth, of those in which there is one."""
    rng = np.random.default_rng([seed, groups, SIZES.index(sizes), int(100 * icc)])
    held = dict.fromkeys([*METHODS, "by image"], 0)
    given = dict.fromkeys(held, 0)
    share = figure != "mean"  # differences are of two accuracies
    for trial in range(trials):
        member = patients(rng, groups, sizes)
        sample = draw(rng, figure, member, icc)
        found = dict(zip(METHODS, intervals(sample, names(member), resamples, trial, share), strict=True))
        alone = [f"i{i:05d}" for i in range(len(member))]
        values = resampled(sample.aggregate, sample.models, alone, resamples, trial)
        found["by image"] = bootstrap.interval(values[-1] - (values[0] if len(values) == 2 else 0))
        for method, (low, high) in found.items():
            given[method] += not np.isnan(low)
            held[method] += low <= sample.truth <= high
    return {method: count / given[method] if given[method] else np.nan for method, count in held.items()}


def false_claims(groups: int, sizes: str, icc: float, trials: int, resamples: int) -> float:
    """Share of the trials in which two models of equal skill are called different."""
    rng = np.random.default_rng([1, groups, SIZES.index(sizes), int(100 * icc)])
    claims = 0
    for trial in range(trials):
        member = patients(rng, groups, sizes)
        sample = draw(rng, "difference", member, icc)
        found = estimates.compare_paired(
            sample.aggregate, sample.models[0], sample.models[1], names(member), resamples, trial
        ).difference
        claims += found is not None and found.sign != 0
    return claims / trials


def patients_row(figure: str, groups: int, sizes: str, icc: float, trials: int, resamples: int) -> Row:
    """A row of the first table."""
    held = coverage(figure, groups, sizes, icc, trials, resamples)
    different = figure == "difference"
    claims = share_of(false_claims(groups, sizes, icc, trials, resamples)) if different else ""
    return (figure, str(groups), sizes, f"{icc:g}", *map(share_of, held.values()), claims)


def before_and_after(world: World, trials: int, resamples: int) -> dict[str, float]:
    """Coverage and false claims of the bootstrap and of domainclip; NaN where it does not judge."""
    rng = np.random.default_rng([2, sum(world.name.encode())])
    counts = dict.fromkeys(("before", "after", "claims before", "claims after"), 0)
    judged = 0
    null = True
    for trial in range(trials):
        drawn = world.draw(rng)
        low, high = bootstrap_interval(drawn.before, resamples, trial)
        counts["before"] += low <= drawn.before.truth <= high
        counts["claims before"] += low > 0 or high < 0
        null = null and abs(drawn.before.truth) < 1e-9
        found = _change(drawn.after, resamples, trial) if drawn.after else None
        if drawn.after is None or found is None or np.isnan(found.low):
            continue
        judged += 1
        counts["after"] += found.low - 1e-12 <= drawn.after.truth <= found.high + 1e-12
        counts["claims after"] += found.sign != 0
    shares = {name: count / trials for name, count in counts.items()}
    if judged < trials:
        shares |= {"after": float("nan"), "claims after": float("nan")}
    if not null:  # a claim is true
        shares |= {"claims before": float("nan"), "claims after": float("nan")}
    return shares


def world_row(place: int, trials: int, resamples: int) -> Row:
    """A row of the second table."""
    world = WORLDS[place]
    shares = before_and_after(world, trials, resamples)
    after = "not judged" if np.isnan(shares["after"]) else share_of(shares["after"])
    claims = (share_of(shares["claims before"]), share_of(shares["claims after"]))
    return (world.name, share_of(shares["before"]), after, *claims)


def together(family: Family, trials: int, resamples: int) -> dict[str, float]:
    """Of a family: any false claim before and after correction, all intervals true, and true claims made."""
    rng = np.random.default_rng([3, sum(family.name.encode())])
    counts = dict.fromkeys(("before", "after", "all hold", "found", "found by Holm"), 0.0)
    real = 0
    for trial in range(trials):
        pairs = family.draw(rng)
        null = np.array([abs(pair.truth) < 1e-9 for pair in pairs])
        alone = [bootstrap_interval(pair, resamples, trial) for pair in pairs]
        counts["before"] += any(
            low > 0 or high < 0 for (low, high), is_null in zip(alone, null, strict=True) if is_null
        )
        changes = [_compared(pair, resamples, trial).change for pair in pairs]
        shown = [estimates.estimate_of(change, len(pairs)) for change in changes if change is not None]
        claimed = np.array([one.sign != 0 for one in shown])
        counts["after"] += bool(claimed[null].any())
        counts["all hold"] += all(
            one.low - 1e-12 <= pair.truth <= one.high + 1e-12 for one, pair in zip(shown, pairs, strict=True)
        )
        real += int((~null).sum())
        counts["found"] += int(claimed[~null].sum())
        counts["found by Holm"] += int(_by_holm([c.p for c in changes if c is not None])[~null].sum())
    found = {n: counts.pop(n) / real if real else float("nan") for n in ("found", "found by Holm")}
    return {name: count / trials for name, count in counts.items()} | found


def _by_holm(p: Sequence[float]) -> np.ndarray:
    """(m,) whether Holm's step-down procedure would call each different, for comparison."""
    order = np.argsort(p)
    passed = np.asarray(p)[order] * np.arange(len(p), 0, -1) <= ALPHA
    claimed = np.zeros(len(p), bool)
    claimed[order] = np.logical_and.accumulate(passed)
    return claimed


def family_row(place: int, trials: int, resamples: int) -> Row:
    """A row of the third table."""
    family = FAMILIES[place]
    return (family.name, *map(share_of, together(family, trials, resamples).values()))


MARGINS = [(300, 1, 0.02), (300, 1, 0.05), (150, 2, 0.05), (1000, 1, 0.01)]  # groups, images each, margin


def margin_row(place: int, trials: int, resamples: int) -> Row:
    """A row of the fourth table: a model that loses exactly the margin."""
    groups, size, margin = MARGINS[place]
    world = rare_changes(groups, 0.01, margin + 0.01, size)
    rng = np.random.default_rng([4, place])
    by_estimate = by_bound = 0
    for trial in range(trials):
        pair = world.draw(rng).before
        change = _change(pair, resamples, trial)
        by_estimate += change.value >= -margin
        by_bound += drop_at_most(change, groups) <= margin
    name = f"{groups} patients of {size}, margin {margin:g}"
    return (name, share_of(by_estimate / trials), share_of(by_bound / trials))


def bootstrap_interval(pair: Pair, resamples: int, seed: int) -> tuple[float, float]:
    """The percentile interval of the resamples alone."""
    drawn = resampled(pair.aggregate, [pair.base, pair.adapted], pair.groups, resamples, seed)
    return bootstrap.interval(drawn[1] - drawn[0])


def _compared(pair: Pair, resamples: int, seed: int) -> estimates.PairedComparison:
    return estimates.compare_paired(
        pair.aggregate, pair.base, pair.adapted, pair.groups, resamples, seed, gallery=pair.gallery
    )


def _change(pair: Pair, resamples: int, seed: int) -> estimates.Estimate:
    difference = _compared(pair, resamples, seed).difference
    assert difference is not None
    return difference


def share_of(value: float) -> str:
    return "" if value != value else f"{value:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--groups", type=int, nargs="+", default=[20, 50, 200])
    parser.add_argument("--figures", nargs="+", default=["mean", "accuracy", "AUROC", "difference"])
    parser.add_argument("--tables", nargs="+", default=["patients", "worlds", "families", "margin"])
    options = parser.parse_args()
    size = (options.trials, options.resamples)
    settings = [(*setting, *size) for setting in product(options.figures, options.groups, SIZES, (0.1, 0.5))]
    tables: dict[str, tuple[Row, Callable[..., Row], list[tuple[object, ...]]]] = {
        "patients": (
            ("metric", "patients", "images", "ICC", *METHODS, "by image", "false claims"),
            patients_row,
            settings,
        ),
        "worlds": (
            ("world", "before", "after", "claims before", "claims after"),
            world_row,
            [(i, *size) for i in range(len(WORLDS))],
        ),
        "families": (
            ("family", "claims before", "claims after", "all intervals hold", "found", "Holm would find"),
            family_row,
            [(i, *size) for i in range(len(FAMILIES))],
        ),
        "margin": (
            ("retention", "by the estimate", "by the bound"),
            margin_row,
            [(i, *size) for i in range(len(MARGINS))],
        ),
    }
    with ProcessPoolExecutor(max_workers=2) as processes:
        rows = {
            name: [processes.submit(tables[name][1], *job) for job in tables[name][2]]
            for name in options.tables
        }
        for name in options.tables:
            header = tables[name][0]
            print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
            for row in rows[name]:
                print(f"| {' | '.join(row.result())} |", flush=True)


if __name__ == "__main__":
    main()

"""How often the 95 % intervals hold the truth, and how often equal models are called different.

    make coverage            # about 15 minutes on one core, prints two Markdown tables
    python benchmarks/coverage.py --trials 200 --groups 20
    python benchmarks/coverage.py --worlds

Pictures of one patient agree by the intraclass correlation (ICC). Sizes: 1 or 5 pictures each, or 1 to 20
(geometric). Figures: mean score; accuracy of 0.8; AUROC of 0.8; paired difference of two accuracies.
"by picture" resamples pictures: the negative control. Standard error of a share of 1000: 0.7 points.

The second table has differences in worlds where a bootstrap fails: few positives, rare changes, classes of
few items, and classes that differ in size. "bootstrap" is the interval and the p of the resamples alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from scipy.stats import norm

from domainclip.evaluation.statistics import aggregates, bootstrap, estimates
from domainclip.evaluation.statistics.bootstrap import resampled

SIZES = ("1", "5", "1-20")
METHODS = ("percentile", "BCa", "ours")


@dataclass(frozen=True)
class Sample:
    """One draw from a world whose truth is known."""

    aggregate: aggregates.Aggregate
    models: list[np.ndarray]  # one, or two whose difference is asked for
    truth: float


def patients(rng: np.random.Generator, groups: int, sizes: str) -> np.ndarray:
    """(n,) the patient of each picture."""
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
    ill = (rng.random(member.max() + 1) < 0.4)[member].astype(float)  # patients are ill, not pictures
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
    held = dict.fromkeys([*METHODS, "by picture"], 0)
    given = dict.fromkeys(held, 0)
    share = figure != "mean"  # differences are of two accuracies
    for trial in range(trials):
        member = patients(rng, groups, sizes)
        sample = draw(rng, figure, member, icc)
        names = [f"p{i:04d}" for i in member]
        found = dict(zip(METHODS, intervals(sample, names, resamples, trial, share), strict=True))
        alone = [f"i{i:05d}" for i in range(len(member))]
        values = resampled(sample.aggregate, sample.models, alone, resamples, trial)
        found["by picture"] = bootstrap.interval(values[-1] - (values[0] if len(values) == 2 else 0))
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
        names = [f"p{i:04d}" for i in member]
        found = estimates.compare_paired(
            sample.aggregate, sample.models[0], sample.models[1], names, resamples, trial
        ).difference
        claims += found is not None and found.sign != 0
    return claims / trials


@dataclass(frozen=True)
class World:
    """Two models on the same items, whose true difference is known."""

    name: str
    draw: Callable[[np.random.Generator], tuple[Sample, list[str]]]


def few_positives(positives: int) -> World:
    """AUROCs of two equally good models, of a finding with so many positives of 150 patients."""

    def make(rng: np.random.Generator) -> tuple[Sample, list[str]]:
        labels = (np.arange(150) < positives).astype(float)
        signal = 1.2 * labels + rng.normal(size=150) / 2
        models = [signal + rng.normal(size=150) for _ in range(2)]
        return Sample(partial(aggregates.auroc, labels=labels), models, 0.0), _names(np.arange(150))

    return World(f"AUROC, {positives} positives of 150", make)


def rare_changes(groups: int, gained: float, lost: float, size: int = 1) -> World:
    """Two accuracies that seldom differ: the share of images gained and lost; patients of `size` images."""

    def make(rng: np.random.Generator) -> tuple[Sample, list[str]]:
        member = np.repeat(np.arange(groups), size)
        latent = np.sqrt(0.5) * rng.normal(size=groups)[member] + np.sqrt(0.5) * rng.normal(size=len(member))
        change = (latent < norm.ppf(gained)).astype(float) - (latent > norm.isf(lost))
        base = np.where(change > 0, 0.0, np.where(change < 0, 1.0, rng.random(len(member)) < 0.6))
        return Sample(aggregates.mean, [base, base + change], gained - lost), _names(member)

    return World(f"accuracy, {groups} patients of {size}, {gained:.1%} gained, {lost:.1%} lost", make)


def macro(counts: Sequence[int], gained: float, lost: float) -> World:
    """Macro accuracies over classes of these sizes."""
    classes = np.repeat(np.arange(len(counts)), counts)

    def make(rng: np.random.Generator) -> tuple[Sample, list[str]]:
        draw = rng.random(len(classes))
        change = (draw < gained).astype(float) - (draw > 1 - lost)
        base = np.where(change > 0, 0.0, np.where(change < 0, 1.0, rng.random(len(classes)) < 0.6))
        aggregate = partial(aggregates.macro_mean, classes=classes)
        return Sample(aggregate, [base, base + change], gained - lost), _names(np.arange(len(classes)))

    return World(
        f"macro accuracy, classes of {', '.join(map(str, counts))}, {gained:.0%} and {lost:.0%}", make
    )


WORLDS = [
    *(few_positives(count) for count in (1, 2, 3, 5, 10, 20)),
    rare_changes(100, 0.01, 0.01),
    rare_changes(200, 0.01, 0.01),
    rare_changes(200, 0.03, 0.01),
    rare_changes(50, 0.02, 0.02, size=5),
    rare_changes(100, 0.05, 0.05, size=5),
    macro([10] * 6, 0.02, 0.02),
    macro([10, 12, 15, 200], 0.1, 0.1),
    macro([30, 40, 60], 0.2, 0.05),
]


def hard_world(world: World, trials: int, resamples: int) -> dict[str, float]:
    """Coverage and false claims of the bootstrap alone and of domainclip; NaN where it does not judge."""
    rng = np.random.default_rng([2, sum(world.name.encode())])
    counts = dict.fromkeys(("bootstrap", "ours", "bootstrap claims", "our claims", "judged"), 0)
    for trial in range(trials):
        sample, groups = world.draw(rng)
        drawn = resampled(sample.aggregate, sample.models, groups, resamples, trial)
        values = drawn[1] - drawn[0]
        low, high = bootstrap.interval(values)
        counts["bootstrap"] += low <= sample.truth <= high
        counts["bootstrap claims"] += (low > 0 or high < 0) and bootstrap.p_value(values) <= 0.05
        found = estimates.compare_paired(
            sample.aggregate, *sample.models, groups, resamples, trial
        ).difference
        assert found is not None
        if not np.isnan(found.low):
            counts["judged"] += 1
            counts["ours"] += found.low <= sample.truth <= found.high
            counts["our claims"] += found.sign != 0
    judged = counts.pop("judged")
    shares = {name: count / trials for name, count in counts.items()}
    if judged < trials:
        shares |= {name: float("nan") for name in ("ours", "our claims")}
    if sample.truth:  # a claim is true
        shares |= {name: float("nan") for name in ("bootstrap claims", "our claims")}
    return shares


def print_worlds(trials: int, resamples: int) -> None:
    """The table of the worlds in which a bootstrap fails."""
    names = ("bootstrap", "ours", "bootstrap claims", "our claims")
    print(f"| world | {' | '.join(names)} |")
    print("|---|" + "---|" * len(names))
    for world in WORLDS:
        shares = hard_world(world, trials, resamples)
        cells = (
            "not judged" if shares[n] != shares[n] and "claims" not in n else _share(shares[n]) for n in names
        )
        print(f"| {world.name} | {' | '.join(cells)} |", flush=True)


def _share(value: float) -> str:
    return "" if value != value else f"{value:.1%}"


def _names(member: np.ndarray) -> list[str]:
    return [f"p{i:04d}" for i in member]


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--trials", type=int, default=1000)
    asked.add_argument("--resamples", type=int, default=1000)
    asked.add_argument("--groups", type=int, nargs="+", default=[20, 50, 200])
    asked.add_argument("--figures", nargs="+", default=["mean", "accuracy", "AUROC", "difference"])
    asked.add_argument("--worlds", action="store_true", help="only the second table")
    said = asked.parse_args()
    if not said.worlds:
        print_coverage(said)
        print()
    print_worlds(said.trials, said.resamples)


def print_coverage(said: argparse.Namespace) -> None:
    """The table of patients with several pictures."""
    print(f"| figure | groups | size | ICC | {' | '.join(METHODS)} | by picture | false claims |")
    print("|---|---|---|---|" + "---|" * (len(METHODS) + 2))
    for figure, groups, sizes, icc in product(said.figures, said.groups, SIZES, (0.1, 0.5)):
        held = coverage(figure, groups, sizes, icc, said.trials, said.resamples)
        claims = ""
        if figure == "difference":
            claims = f"{false_claims(groups, sizes, icc, said.trials, said.resamples):.1%}"
        shares = " | ".join(f"{share:.1%}" for share in held.values())
        print(f"| {figure} | {groups} | {sizes} | {icc} | {shares} | {claims} |", flush=True)


if __name__ == "__main__":
    main()

"""The p below which that of a difference cannot lie: of an exact test, or of the number of changed groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from domainclip.evaluation.statistics.aggregates import Aggregate, auroc, macro_auroc, mean
from domainclip.evaluation.statistics.closed_form import mcnemar
from domainclip.evaluation.statistics.sign_flips import auroc_shares, sign_flip_p

Pair = tuple[np.ndarray, np.ndarray]  # the scores of a model, and of that which it is compared with


@dataclass(frozen=True)
class ExactTest:
    """The p of the test, and the smallest p that any difference of such models could have."""

    p: float
    least: float


def exact_test(
    aggregate: Aggregate, pairs: Sequence[Pair], groups: Sequence[str], resamples: int, seed: int
) -> ExactTest:
    """The test that the metric allows, of one pair of models or of the mean over several seeds.

    Right and wrong answers of one pair to independent items: McNemar's. AUROCs: swaps of the models by group.
    Any other metric: where k groups changed, swapping the models in each of them has 2ᵏ outcomes, so no p
    lies below 2·2⁻ᵏ.
    """
    names = np.asarray(groups, dtype=str)
    least = min(1.0, 2.0 ** (1 - len(changed_groups(pairs, names))))
    if _counts_right_answers(aggregate, pairs, names):
        ((adapted, base),) = pairs
        p = mcnemar(int((adapted > base).sum()), int((adapted < base).sum()))
        return ExactTest(p, 2.0 ** (1 - len(names)))
    if isinstance(aggregate, partial) and aggregate.func in (auroc, macro_auroc):
        labels = np.asarray(aggregate.keywords["labels"], dtype=np.float64)
        shares = np.mean([auroc_shares(base, adapted, labels, groups) for adapted, base in pairs], axis=0)
        least = max(least, 1 / (1 + resamples))
        return ExactTest(max(least, sign_flip_p(shares, resamples, seed)), least)
    return ExactTest(least, least)


def changed_groups(pairs: Sequence[Pair], groups: np.ndarray) -> set[str]:
    """The groups with an item whose scores differ in any pair; a score that one model alone lacks differs."""
    changed = np.zeros(len(groups), dtype=bool)
    for adapted, base in pairs:
        alike = np.isclose(adapted, base, rtol=0, atol=1e-12, equal_nan=True)
        changed |= ~alike.reshape(len(groups), -1).all(axis=1)
    return set(groups[changed].tolist())


def _counts_right_answers(aggregate: Aggregate, pairs: Sequence[Pair], groups: np.ndarray) -> bool:
    """Whether the metric is a share of right answers of one pair to independent items."""
    single = len(pairs) == 1 and len(set(groups.tolist())) == len(groups)
    counted = all(np.isin(scores, (0.0, 1.0)).all() for pair in pairs for scores in pair)
    return bool(aggregate is mean and single and counted)

"""The headline of a classifier, and when a mean over classes is judged."""

from __future__ import annotations

from functools import partial

import numpy as np

from domainclip.evaluation.metrics import macro
from domainclip.evaluation.statistics.aggregates import macro_mean
from domainclip.evaluation.statistics.estimates import too_few_groups


def test_a_mean_over_classes_of_single_items_is_not_judged() -> None:
    """Within a class of one item there is no spread, so an interval would have almost no width."""
    truth = np.arange(12)
    assert macro.headline(truth) == "accuracy"
    assert macro.headline(np.repeat([0, 1], [10, 3])) == "macro_accuracy"
    groups = [str(i) for i in range(40)]
    few, enough = (partial(macro_mean, classes=np.arange(40) % n) for n in (5, 4))
    assert too_few_groups(few, groups) == "no class has 10 items"
    assert too_few_groups(enough, groups) == ""

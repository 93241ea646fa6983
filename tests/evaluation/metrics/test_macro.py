"""The headline of a classifier, and when a mean over classes is judged."""

from __future__ import annotations

import numpy as np

from domainclip.evaluation.metrics import macro


def test_a_mean_over_classes_of_single_items_is_not_judged() -> None:
    """Within a class of one item there is no spread, so an interval would have almost no width."""
    truth = np.arange(12)
    assert macro.headline(truth) == "accuracy"
    assert macro.headline(np.repeat([0, 1], [10, 3])) == "macro_accuracy"

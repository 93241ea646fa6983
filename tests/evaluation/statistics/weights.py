"""All bootstrap weights of a set at once, for tests on small sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domainclip.evaluation.statistics.bootstrap import weight_blocks


def bootstrap_weights(groups: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """(r, n) float32: how often each item was drawn in each resample."""
    return np.concatenate([block.astype(np.float32) for block in weight_blocks(groups, resamples, seed)])

"""The average of the weights along the training, measured and saved in the place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import floor

import torch
from torch import Tensor

from domainclip.config.training import WeightAverageConfig


class WeightAverage:
    """θ̄ ← θ̄ + s (θ − θ̄) with s = max(1 − decay, 1 / n), after the n-th averaged step.

    The plain mean of all averaged steps while 1 / n is larger, SWA [arXiv:1803.05407]; from then on the
    exponential one, in which a step counts the less the older it is. Averaging along the way back from the
    base is the second half of ZSCL [arXiv:2303.06628]. Before the first averaged step θ̄ is θ.
    """

    def __init__(self, weights: Mapping[str, Tensor], settings: WeightAverageConfig, total: int) -> None:
        """`total` steps of the run; the first `settings.start` of them are not averaged."""
        self.weights = weights
        self.decay = settings.decay
        self.begin = floor(settings.start * total)
        self.average = {name: weight.detach().clone() for name, weight in weights.items()}

    def share(self, step: int) -> float:
        """The share s of the weights after so many steps; 1: they replace the average."""
        return max(1 - self.decay, 1 / max(1, step - self.begin))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after so many steps."""
        share = self.share(step)
        for name, weight in self.weights.items():
            self.average[name].lerp_(weight, share) if share < 1 else self.average[name].copy_(weight)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the average to that of a checkpoint."""
        for name, average in self.average.items():
            average.copy_(tensors[name])

    @torch.no_grad()
    def apply(self) -> None:
        """Set the weights to their average, for good."""
        for name, weight in self.weights.items():
            weight.copy_(self.average[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the weights to their average, and back to their own values afterwards."""
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(own[name])

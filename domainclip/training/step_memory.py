"""The memory of a training step: on a GPU as measured, on a CPU from the allocations of two small steps.

A step makes the same allocations in the same order for any number of pairs, and each of them grows linearly
with that number, or not at all. Two steps give both parts of each; the peak for another number of pairs is
the largest sum of those that are alive together. So it is known which activations and gradients are alive.

Legend: n allocations and releases of a step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from domainclip.training.views import StepBatch

_MEMORY_EVENT = "[memory]"  # the name that torch's profiler gives to an allocation or a release


@dataclass(frozen=True)
class StepMemory:
    """Allocations (positive) and releases of a step in bytes, in order of time, at two numbers of pairs."""

    pairs: tuple[int, int]
    allocations: tuple[np.ndarray, np.ndarray]  # (n,) each

    def peak(self, pairs: int) -> float:
        """Return the bytes at the peak of a step that holds so many pairs at once."""
        (few, many), (small, large) = self.pairs, self.allocations
        share = (pairs - few) / max(1, many - few)
        if small.shape == large.shape:
            return float(_highest(small + share * (large - small)))
        # Another path through a layer, for another number of rows: the peaks alone are compared.
        return float(_highest(small) + share * (_highest(large) - _highest(small)))

    @property
    def each_pair(self) -> float:
        """The bytes by which the peak grows with a pair, where many are held at once."""
        many = 64 * max(self.pairs)
        return (self.peak(2 * many) - self.peak(many)) / many


def measure_two_steps(take_step: Callable[[StepBatch], object], batches: Sequence[StepBatch]) -> StepMemory:
    """Return the memory of a step from two batches of the same pairs, of different sizes.

    `take_step` leaves nothing allocated.
    """
    few, many = (replace(batch, captions=_EqualLengths(batch)) for batch in batches)
    return StepMemory(
        (len(few.keys), len(many.keys)),
        (_allocations(lambda: take_step(few)), _allocations(lambda: take_step(many))),
    )


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that a call holds at once, besides those that are allocated before it."""
    if device.type != "cuda":
        return int(_highest(_allocations(call)))
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _allocations(call: Callable[[], object]) -> np.ndarray:
    """Return (n,) the bytes of each allocation of torch on the CPU, in order; releases are negative."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise it prints when it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    results = profiler.profiler.kineto_results
    events = [event for event in results.events() if event.name() == _MEMORY_EVENT]
    events.sort(key=lambda event: event.start_ns())
    return np.array([event.nbytes() for event in events], dtype=np.int64)


def _highest(allocations: np.ndarray) -> float:
    return float(max(0, np.cumsum(allocations).max(initial=0)))


class _EqualLengths:
    """Captions that are encoded in one group, as those of few pairs and of many are then alike."""

    def __init__(self, batch: StepBatch) -> None:
        assert batch.captions is not None
        self._captions = batch.captions

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return one length for all texts."""
        return [max(self._captions.lengths(texts), default=0)] * len(texts)

    def batch(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the arguments of `encode_text`."""
        return self._captions.batch(texts)

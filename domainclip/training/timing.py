"""How long something takes on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch


def seconds_per_call(call: Callable[[], object], device: torch.device, calls: int = 5) -> float:
    """The median over some calls; the one before them warms up and is not counted."""
    seconds = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])

"""A device without enough memory for a micro-batch: a smaller one before the first step, a message later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import ceil
from typing import TypeVar

import torch

from domainclip.distributed import collectives
from domainclip.errors import ModelError

log = logging.getLogger("domainclip")
T = TypeVar("T")


def fit_micro_batch(
    compute: Callable[[int | None], T], reset: Callable[[], None], size: int | None, pairs: int
) -> tuple[T, int | None]:
    """Return `compute(size)` and the size that fitted: `size`, or half of it as often as it has to be halved.

    `size` None is all `pairs` of this process. `reset` frees what an attempt has left. Several processes
    cannot try again, since the others already wait for this one.

    Raises: ModelError when a single pair does not fit, or on one of several processes.
    """
    while True:
        try:
            return compute(size), size
        except torch.OutOfMemoryError:
            held = pairs if size is None else min(size, pairs)
            if held == 1 or collectives.process_count() > 1:
                raise does_not_fit(held) from None
        reset()
        size = ceil(held / 2)
        log.warning("train.micro_batch_size: %d pairs do not fit into memory: trying %d", held, size)


def does_not_fit(held: int) -> ModelError:
    """Return the error of a step that does not fit, with the ways out of it."""
    smaller = f"set it to {ceil(held / 2)}, or " if held > 1 else ""
    return ModelError(
        f"train.micro_batch_size: the device has too little memory for a step with {held} pairs at once: "
        f"{smaller}set train.activation_checkpointing=true, or strategy=lora or strategy=locked_image"
    )

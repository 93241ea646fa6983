"""Decoded and preprocessed images of evaluation sets in memory: models with other weights encode the same.

A validation, each α of a weight interpolation and the adapted model encode images that the base has encoded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from domainclip.distributed.collectives import local_process_count

Inputs = dict[str, dict[str, np.ndarray]]  # of one item: the input of the image tower, by preprocessing
_LIMIT = 256 * 2**20  # bytes, shared by the processes of a machine: 1,700 images of 224 pixels


@dataclass
class PreprocessedImages:
    """The inputs of image towers by item, as many as fit into `limit` bytes; the others are made again."""

    limit: int = 0
    used: int = 0  # bytes
    stored: dict[Any, tuple[Inputs | None]] = field(default_factory=dict)  # None: an unreadable item
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def for_changing_weights(cls) -> PreprocessedImages:
        """A memory for images that several models encode, one after the other."""
        return cls(_LIMIT // local_process_count())

    def get(self, key: Any, make: Callable[[], Inputs | None]) -> Inputs | None:
        """The inputs of the item with this key; where they are missing, threads call `make`."""
        if (known := self.stored.get(key)) is not None:
            return known[0]
        inputs = make()
        size = 1 + sum(array.nbytes for arrays in (inputs or {}).values() for array in arrays.values())
        with self._lock:
            if key not in self.stored and self.used + size <= self.limit:
                self.used += size
                self.stored[key] = (inputs,)
        return inputs

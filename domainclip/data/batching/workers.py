"""How many processes load the images of a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from domainclip.data.process_pool import available_cores
from domainclip.distributed import collectives

Workers = int | Literal["auto"]

PAIRS_PER_TASK = 32  # loaded by a worker at once: small, so that all workers share the first batch
TASKS_AHEAD = 2  # of each worker, loaded before they are needed
_MIN_IMAGES = 2000  # below which starting processes takes longer than what they save
_SHARED_MEMORY = Path("/dev/shm")  # through which workers pass images: in containers often 64 MB


def worker_count(setting: Workers, images: int, bytes_per_image: int) -> int:
    """The number of worker processes for this process of the run, which has so many images to load.

    `auto`: its share of the cores, and no more than the shared memory has room for; none for a few images.
    """
    if setting != "auto":
        return setting
    if images < _MIN_IMAGES:
        return 0
    cores = max(1, available_cores() // collectives.local_process_count())
    tasks_in_memory = _free_shared_memory() // (PAIRS_PER_TASK * max(1, bytes_per_image))
    return min(cores, max(1, tasks_in_memory // (2 * TASKS_AHEAD * collectives.local_process_count())))


def _free_shared_memory() -> int:
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 2**40

"""Hop 1: open a run."""

from __future__ import annotations

import time
from datetime import timedelta

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from domainclip.config import durations
from domainclip.config.training import TrainConfig
from domainclip.distributed import heartbeat
from domainclip.pipelines.run_folder import choose_run_folder
from domainclip.training.run_context import RunContext, RunOptions
from domainclip.training.setup import precision


def open_run(name: str, settings: TrainConfig, options: RunOptions) -> RunContext:
    """Connect the processes and choose the run folder, which is not made yet.

    Raises: RecipeError for a folder that holds a run already, unless it is resumed.
    """
    started = time.monotonic()
    heartbeat.set_timeout(settings.timeout)
    timeout = InitProcessGroupKwargs(timeout=timedelta(seconds=durations.seconds(settings.timeout)))
    accelerator = Accelerator(mixed_precision=precision(settings), kwargs_handlers=[timeout])
    return RunContext(choose_run_folder(name, options), accelerator, options, started)

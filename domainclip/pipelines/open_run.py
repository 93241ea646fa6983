"""Hop 1: open a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from domainclip.config import durations
from domainclip.config.recipe import Recipe
from domainclip.config.training import TrainConfig
from domainclip.distributed import collectives, heartbeat, launch, phases
from domainclip.pipelines.run_folder import locked_run_folder
from domainclip.report.redaction import public_settings
from domainclip.training.monitoring.trackers import Trackers
from domainclip.training.precision import mixed_precision
from domainclip.training.run_context import RunContext, RunOptions


@contextmanager
def open_run(recipe: Recipe, options: RunOptions) -> Iterator[RunContext]:
    """Connect the processes, and lock the run folder until the run ends; then its trackers are closed.

    Raises: RecipeError for an engine other than data-parallel processes; for a folder that another command
    uses, or that holds a run already, unless it is resumed.
    """
    started, settings = time.monotonic(), recipe.train
    heartbeat.set_timeout(settings.timeout)
    phases.set_quiet(options.quiet)
    accelerator = make_accelerator(settings)
    launch.check_engine(accelerator.distributed_type.value)
    with locked_run_folder(recipe.name, options) as folder:
        trackers = Trackers(settings, folder, recipe.name, public_settings(recipe))
        try:
            yield RunContext(folder, accelerator, options, started, trackers)
        finally:
            trackers.finish()
            _upload(options, failed=sys.exc_info()[0] is not None)


def make_accelerator(settings: TrainConfig) -> Accelerator:
    """Connect the processes, and return what wraps model and optimizer of the run.

    Raises: RecipeError for a precision that needs a GPU where there is none.
    """
    timeout = InitProcessGroupKwargs(timeout=timedelta(seconds=durations.seconds(settings.timeout)))
    # The gradients of a process lie in the buffers that are exchanged, and not beside them a second time.
    in_place = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    return Accelerator(mixed_precision=mixed_precision(settings), kwargs_handlers=[timeout, in_place])


def _upload(options: RunOptions, failed: bool) -> None:
    """Upload a run folder of an object store; of a failed run with a warning at most, as its error counts."""
    upload = options.after_save if failed else options.at_end
    if upload is not None and collectives.rank() == 0:
        upload()

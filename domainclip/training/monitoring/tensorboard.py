"""Metrics for TensorBoard, as event files in the run folder; nothing leaves the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from domainclip.config.training import TrainConfig
from domainclip.errors import library

FOLDER = "tensorboard"


def require_tensorboard(train: TrainConfig) -> None:
    """Check for TensorBoard before anything is loaded.

    Raises: RecipeError when the recipe needs it and it is not installed.
    """
    if train.log_to is not None:
        _library()


class TensorBoardWriter:
    """Writes the numbers of metrics.jsonl by step; a resumed session hides the steps that it repeats."""

    def __init__(self, run: Path, start: int) -> None:
        self._writer = _library().SummaryWriter(str(run / FOLDER), purge_step=start + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Add the numbers of a record, nested ones under their path, such as terms/contrastive."""
        for name, value in numbers(record):
            if name != "step":
                self._writer.add_scalar(name, value, global_step=record["step"])
        self._writer.flush()  # a run may be killed at any moment


def numbers(record: dict[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record and of the records in it, with their paths; texts are left out."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{path}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{path}{name}", value


def _library() -> Any:
    return library(
        "torch.utils.tensorboard",
        "train.log_to: tensorboard is not installed: pip install 'domainclip[tensorboard]', or leave "
        "log_to out; "
        "metrics.jsonl holds the same numbers",
    )

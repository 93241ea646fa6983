"""Trackers of experiments, through Accelerate: TensorBoard, Weights & Biases, MLflow and Trackio.

They receive the numbers of metrics.jsonl and the recipe without paths; never an image, a caption, an id, a
path, or the name of this machine or its user.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from domainclip.config.offline import is_offline
from domainclip.config.training import TrackerName, TrainConfig
from domainclip.distributed import collectives
from domainclip.errors import RecipeError

log = logging.getLogger("domainclip")
TENSORBOARD = "tensorboard"  # the folder of its event files, inside the run folder
_PROJECT = "domainclip"
_REMEDY = "or leave it out: metrics.jsonl holds the same numbers"
# What these libraries would send by themselves: the command, the working folder, the user and the repository.
_PRIVATE_WANDB = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "",
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
}
_PRIVATE_MLFLOW = {"mlflow.user": "", "mlflow.source.name": "domainclip", "mlflow.source.git.commit": ""}


def require_trackers(train: TrainConfig) -> None:
    """Check that the libraries of the trackers are installed; nothing is imported.

    Raises: RecipeError with the command that installs a missing one.
    """
    for name in train.trackers:
        if find_spec(name) is None:
            raise RecipeError(
                f"train.trackers: {name} is not installed: pip install 'domainclip[{name}]', {_REMEDY}"
            )


class Trackers:
    """The trackers of one run, which start with its training; only the first process has any.

    A tracker that fails later is left out with a warning: no run ends for the sake of a chart.
    """

    def __init__(self, settings: TrainConfig, folder: Path, name: str, recipe: Mapping[str, Any]) -> None:
        """`recipe` has no paths, and `name` is that of the recipe: the name of the folder may be private."""
        self.names = settings.trackers if collectives.rank() == 0 else []
        self.folder, self.name, self.recipe = folder, name, recipe
        self.active: dict[TrackerName, Any] | None = None  # before the training: None

    def begin(self, start: int) -> None:
        """Start them once; TensorBoard then hides the steps after `start`, which are done again.

        Raises: RecipeError when one of them cannot start, as without a login.
        """
        if self.active is not None:
            return
        self.active = {}
        for name in self.names:
            try:
                self.active[name] = self._started(name, start)
            except Exception as error:  # of any kind: each is a client of a server
                fault = f"cannot start ({type(error).__name__}): log in, check its server"
                raise RecipeError(f"train.trackers: {name} {fault}, {_REMEDY}") from None

    def write(self, record: Mapping[str, Any]) -> None:
        """Send the numbers of a record, nested ones under their path, such as terms/contrastive."""
        values = {name: value for name, value in numbers(record) if name != "step"}
        for name, tracker in list((self.active or {}).items()):
            try:
                tracker.log(values, step=record["step"])
                if name == "tensorboard":
                    tracker.tracker.flush()  # a run may be killed at any moment
            except Exception as error:
                assert self.active is not None
                del self.active[name]
                _warn(
                    f"{name} failed ({type(error).__name__}) and has no numbers from step {record['step']} on"
                )

    def finish(self) -> None:
        """Send what is left, and close them."""
        for name, tracker in (self.active or {}).items():
            try:
                tracker.finish()
            except Exception as error:
                _warn(f"{name} could not be closed ({type(error).__name__}) and may lack the last numbers")

    def _started(self, name: TrackerName, start: int) -> Any:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        options: dict[TrackerName, dict[str, Any]] = {
            "tensorboard": {"logging_dir": self.folder, "purge_step": start + 1},
            "wandb": {
                "name": self.name,
                "dir": str(self.folder),
                "settings": _PRIVATE_WANDB,
                **({"mode": "offline"} if is_offline() else {}),  # its service is no Python, and asks no hook
            },
            "mlflow": {"run_name": self.name, "tags": _PRIVATE_MLFLOW},
            "trackio": {"name": self.name},
        }
        project = TENSORBOARD if name == "tensorboard" else _PROJECT
        tracker = LOGGER_TYPE_TO_CLASS[name](project, **options[name])
        tracker.start()
        if name != "tensorboard":  # whose files lie beside the recipe
            tracker.store_init_configuration(dict(_flat(self.recipe)))
        return tracker


def _warn(fault: str) -> None:
    log.warning("warning: train.trackers: %s; metrics.jsonl has all of them", fault)


def numbers(record: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record and of the records in it, with their paths; texts are left out."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{path}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{path}{name}", value


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings with their keys, as typed on a command line: train.epochs."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value if isinstance(value, (bool, int, float)) else str(value)

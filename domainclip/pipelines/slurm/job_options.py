"""The option --slurm: what a job asks of its cluster."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from domainclip.config import durations
from domainclip.errors import RecipeError, did_you_mean

LOCAL = "local"
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?")  # SLURM's days-hours:minutes:seconds


@dataclass(frozen=True)
class JobOptions:
    """What a job asks of its cluster; None: the cluster's default."""

    local: bool = False  # run on this machine, without a queue
    partition: str | None = None
    nodes: int = 1
    gpus: int | None = None  # on each node
    cpus: int | None = None  # on each node
    memory: int | None = None  # GB on each node
    time: int = 3600  # seconds until the job is ended, and put back into its queue
    notice: int = 120  # seconds before that at which the run saves a checkpoint
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None

    @property
    def minutes(self) -> int:
        """Return the time limit in whole minutes, as SLURM counts it."""
        return -(-self.time // 60)


def parse_job_options(text: str) -> JobOptions:
    """Return the options of for example `partition=gpu,nodes=4,gpus=8,time=12:00:00`, or of `local`.

    Raises: RecipeError for an unknown key or a wrong value.
    """
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, separator, value = part.partition("=")
        if part == LOCAL:
            values["local"] = True
            continue
        if key not in _READ:
            raise RecipeError(f'--slurm: "{key}": {did_you_mean(key, [*_READ, LOCAL])}')
        if not separator or not value:
            raise RecipeError(f"--slurm {key}: no value: write {key}={_EXAMPLES.get(key, 'NAME')}")
        try:
            values[key] = _READ[key](value)
        except ValueError:
            raise RecipeError(f"--slurm {key}: not a valid value: write {key}={_EXAMPLES[key]}") from None
    options = JobOptions(**values)
    if options.local and options.nodes > 1:
        raise RecipeError("--slurm nodes: local is this machine alone: leave nodes out")
    if options.notice >= options.time:
        raise RecipeError(
            f"--slurm notice: {options.notice} s before a time limit of {options.time} s leaves none for the "
            "run: set a longer time, or a shorter notice"
        )
    return options


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise ValueError
    return int(text)


def _gigabytes(text: str) -> int:
    return _count(text.upper().removesuffix("B").removesuffix("G"))


def _seconds(text: str) -> int:
    """Return the seconds of `12:00:00`, `1-12:00:00`, `12h` or a number of minutes, as SLURM reads it."""
    if match := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        if match[1] is None and match[4] is None:  # minutes:seconds
            return _positive(hours * 60 + minutes)
        return _positive(days * 86400 + hours * 3600 + minutes * 60 + seconds)
    return _positive(60 * int(text) if text.isdecimal() else durations.seconds(text))


def _positive(seconds: int) -> int:
    if seconds < 1:
        raise ValueError
    return seconds


_READ: dict[str, Callable[[str], Any]] = {
    "partition": str,
    "nodes": _count,
    "gpus": _count,
    "cpus": _count,
    "memory": _gigabytes,
    "time": _seconds,
    "notice": durations.seconds,
    "account": str,
    "qos": str,
    "constraint": str,
}
_EXAMPLES = {
    "nodes": "4",
    "gpus": "8",
    "cpus": "32",
    "memory": "256G",
    "time": "12:00:00 or 12h",
    "notice": "120s",
}

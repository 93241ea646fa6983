"""The errors that are reported to the user, and their exit codes."""

from __future__ import annotations

import difflib
import importlib
import signal
from collections.abc import Iterable
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """The exit codes of every command; documented in docs/reference/exit-codes.md."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    MODEL = 4
    HUB = 5
    DIVERGED = 6
    LOST = 7
    INTERRUPTED = 130
    TERMINATED = 143


# A run saves a checkpoint and ends at these; SLURM warns of its time limit with SIGUSR1 when asked to, and a
# terminal that is closed sends SIGHUP.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


# What other programs call a key of a recipe.
_USUAL_WORDS = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "bsz": "batch_size",
    "wd": "weight_decay",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "num_workers": "workers",
    "amp": "precision",
    "fp16": "precision",
    "bf16": "precision",
    "grad_clip": "max_grad_norm",
    "clip_grad_norm": "max_grad_norm",
    "accumulation": "micro_batch_size",
    "gradient_accumulation_steps": "micro_batch_size",
    "aug": "augmentation",
    "optim": "optimizer",
    "log_to": "trackers",
    "wandb": "trackers",
    "model": "base",
    "checkpoint": "base",
    "dataset": "corpus",
    "data": "corpus",
    "loss": "objectives",
    "metrics": "probes",
    "method": "strategy",
    "training": "train",
    "evaluation": "evaluate",
}
_SHORTEST = 3  # letters of a word that is searched inside names
_MAX_WORD = 600  # characters of a word in a message: more than any path that people have


class DomainclipError(Exception):
    """An error that the user can correct: one line with the place, the fault and the remedy."""

    code = ExitCode.BUG


class RecipeError(DomainclipError):
    """A wrong recipe, option or argument."""

    code = ExitCode.USAGE


class DataError(DomainclipError):
    """A corpus that cannot be read, or must not be used for training."""

    code = ExitCode.DATA


class ModelError(DomainclipError):
    """A model, checkpoint or run folder that cannot be loaded or saved."""

    code = ExitCode.MODEL


class HubError(DomainclipError):
    """The Hub refused, or could not be reached."""

    code = ExitCode.HUB


class DivergedError(DomainclipError):
    """The loss or a gradient is not finite."""

    code = ExitCode.DIVERGED


class Interrupted(DomainclipError):
    """A signal or the time limit ended the run, after a checkpoint."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def library(name: str, message: str) -> Any:
    """Import a module that only some recipes need.

    Raises: RecipeError with `message` when it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise RecipeError(message) from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message on an unknown name: the nearest known name, or the known ones."""
    names = sorted(str(name) for name in known)
    usual = [_USUAL_WORDS[word]] if _USUAL_WORDS.get(word) in names else []
    holding = [name for name in names if len(word) >= _SHORTEST and word.casefold() in name.casefold()]
    begun = [name for name in holding if name.casefold().startswith(word.casefold())]
    holding = begun or holding
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near := [*usual, *close, *(holding if len(holding) == 1 else [])]:
        return f'did you mean "{near[0]}"?'
    if holding:
        return f"did you mean one of {', '.join(holding[:12])}?"
    if not names:
        return "there is none to choose from."
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"known: {', '.join(names[:12])}{more}."


def one_line(message: str) -> str:
    """A message as one line of printable characters, long words cut in the middle.

    A file name or a word of the command line may hold a line break, or commands for the terminal.
    """
    printable = "".join(char if char.isprintable() else _escaped(char) for char in message)
    words = printable.split(" ")
    return " ".join(w if len(w) <= _MAX_WORD else f"{w[:120]}…{w[-60:]}" for w in words)


def _escaped(char: str) -> str:
    return " " if char in "\n\t\r" else repr(char)[1:-1]


class UnreadableImage(DataError):
    """An image that cannot be decoded. `reason` never identifies a patient; `name` may."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        # Exceptions cross from worker processes by pickle, which would pass the text alone to __init__.
        return UnreadableImage, (self.name, self.reason)


def interrupted(number: int, message: str) -> Interrupted:
    """Return the error that ends the run, with the exit code for the signal of this number."""
    return Interrupted(message, ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED)

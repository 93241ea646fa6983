"""What can go wrong in words, and the exit code that says which kind it was."""

from __future__ import annotations

import difflib
import importlib
import signal
from collections.abc import Iterable
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """The exit codes of every command; documented in docs/exit-codes.md."""

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


class DomainclipError(Exception):
    """A fault a person can mend: one line that names the place and the way out."""

    code = ExitCode.BUG


class RecipeError(DomainclipError):
    """A wrong recipe, option or argument."""

    code = ExitCode.USAGE


class DataError(DomainclipError):
    """A corpus that cannot be read or must not be trained on."""

    code = ExitCode.DATA


class ModelError(DomainclipError):
    """A base, checkpoint or run folder that cannot be loaded or saved."""

    code = ExitCode.MODEL


class HubError(DomainclipError):
    """The Hub refused, or could not be reached."""

    code = ExitCode.HUB


class DivergedError(DomainclipError):
    """The loss is no longer a finite number."""

    code = ExitCode.DIVERGED


class Interrupted(DomainclipError):
    """A signal asked the run to stop; the checkpoint is written."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def library(name: str, lacking: str) -> Any:
    """A module that only some recipes need.

    Raises: RecipeError, saying `lacking`, when it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise RecipeError(lacking) from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A closing sentence for an unknown name: the nearest known one, or all of them when few."""
    names = sorted(str(name) for name in known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    if not names:
        return "there is none to choose from."
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"known: {', '.join(names[:12])}{more}."


class UnreadableImage(DataError):
    """A picture that cannot be decoded. `reason` says nothing of a patient; `name` may."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        # Exceptions cross from worker processes by pickle, which would call us with the text alone.
        return UnreadableImage, (self.name, self.reason)


def interrupted(asked: int, message: str) -> Interrupted:
    """The error that ends the run, with the exit code of what asked for it."""
    return Interrupted(message, ExitCode.INTERRUPTED if asked == signal.SIGINT else ExitCode.TERMINATED)

"""Runs of an ablation in the process of the test."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any

import pytest

from domainclip.config import loading
from domainclip.errors import DomainclipError
from domainclip.pipelines import finetune
from domainclip.pipelines.ablation import runs
from domainclip.pipelines.ablation.plan import Run
from domainclip.pipelines.ablation.runs import Ended
from domainclip.training.run_context import RunOptions


def runs_in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs without a process each, which saves the seconds in which it would load its libraries; their names."""
    taken: list[str] = []

    def finish(self: Any, one: Run, processes: int | None, quiet: bool) -> Ended:
        command = runs._command(one, processes, quiet)
        taken.append(one.folder.name + (" resumed" if "--resume" in command else ""))
        own = loading.load_recipe(command[command.index("--recipe") + 1])
        try:
            finetune.finetune(own, RunOptions(folder=one.folder, resume="--resume" in command, quiet=True))
        except DomainclipError as error:
            return Ended(one, str(error), int(error.code))
        return Ended(one)

    monkeypatch.setattr(runs._Children, "finish", finish)
    monkeypatch.setattr(runs, "ThreadPoolExecutor", _Inline)  # signals are the main thread's
    return taken


class _Inline(nullcontext[Any]):
    """Does what is submitted, at once and here."""

    def __init__(self, jobs: int) -> None:
        assert jobs == 1
        super().__init__(self)

    def submit(self, fn: Any, /, *arguments: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(fn(*arguments))
        return future

"""The runs of an ablation, each a process of its own.

A process gives back all memory, of the GPU too, has its own precision and seed, and may take several
processes itself; what kills it, a full memory as well, ends one variant and not the table. What they share
lies on disk already, found by content: prepared pictures, features of locked towers, the base's embeddings.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from domainclip.errors import STOP_SIGNALS, DomainclipError, ExitCode, Interrupted, RecipeError
from domainclip.pipelines.ablation.plan import Run
from domainclip.report import model_card
from domainclip.training.checkpointing import resume as checkpointing_resume

_ERROR = "domainclip: "  # what the one line of a fault begins with
_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)  # passed on to the runs
_STOPPED = (int(ExitCode.INTERRUPTED), int(ExitCode.TERMINATED))


@dataclass(frozen=True)
class Ended:
    """How one run ended."""

    run: Run
    error: str = ""  # its one line; empty when it is complete
    code: int = 0


def is_complete(run: Run) -> bool:
    """Whether the run is there, whole, and of this very recipe.

    Raises: RecipeError when the folder holds a run of another recipe.
    """
    if not (run.folder / "recipe.yaml").is_file():
        return False
    there = model_card.run_recipe(run.folder)
    changed = checkpointing_resume.changed_keys(there.identity(), run.recipe.identity())
    if changed:
        raise RecipeError(
            f"{run.folder}: holds a run of another recipe ({'; '.join(changed[:3])}): name another "
            "--run-dir, or remove that folder"
        )
    # The card is written last. Another way to choose α, or other figures, end the same training again.
    same = there.model_dump(exclude={"roots"}) == run.recipe.model_dump(exclude={"roots"})
    return same and all((run.folder / name).exists() for name in ("model", "results.json", "README.md"))


def run_all(
    runs: Sequence[Run], *, jobs: int, processes: int | None, quiet: bool, say: Callable[[str], None]
) -> list[Ended]:
    """Runs what is not complete, at most `jobs` at once; how each ended, in the order of the plan.

    Raises: RecipeError for a folder of another run; Interrupted when a signal stopped it: the same command
    goes on from there.
    """
    complete = {run.folder: is_complete(run) for run in runs}
    found = {run.folder: Ended(run) for run in runs if complete[run.folder]}
    if found:
        say(f"{len(found)} of {len(runs)} runs are complete already")
    children = _Children()
    with children, ThreadPoolExecutor(jobs) as pool:
        waiting = [run for run in runs if not complete[run.folder]]
        futures = [pool.submit(children.finish, run, processes, quiet) for run in waiting]
        for future in as_completed(futures):
            ended = future.result()
            if ended is None:  # it was never started, for the command was stopped
                continue
            found[ended.run.folder] = ended
            say(f"{ended.run.folder.name}: {ended.error or 'done'}")
            if ended.code in _STOPPED:  # by a signal of its own, or by its train.time_limit
                children.stop(signal.SIGTERM)
    if children.stopped:
        code = ExitCode.INTERRUPTED if children.stopped == signal.SIGINT else ExitCode.TERMINATED
        done = sum(not one.error for one in found.values())
        raise Interrupted(f"stopped with {done} of {len(runs)} runs complete; the same command goes on", code)
    return [found[run.folder] for run in runs]


@dataclass
class _Children:
    """The runs at work; a signal to this process is passed on to all of them."""

    stopped: int = 0
    _alive: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)  # a handler may come while it is held

    def __enter__(self) -> _Children:
        heeded = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]  # as under nohup
        self._before = {number: signal.signal(number, self._pass_on) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        # A run saves at SIGTERM; a terminal that is closed it does not hear, being in a session of its own.
        self.stop(signal.SIGTERM if number == signal.SIGHUP else number)

    def stop(self, number: int) -> None:
        """Asks every run to save and end; no other is started."""
        with self._lock:
            self.stopped = self.stopped or number
            for child in self._alive:
                child.send_signal(number)

    def finish(self, run: Run, processes: int | None, quiet: bool) -> Ended | None:
        """Runs one to its end; None when everything was stopped before it began."""
        command = _command(run, processes, quiet)
        with self._lock:  # a signal finds the child among the living, or none is started
            if self.stopped:
                return None
            # In a session of its own: Ctrl-C at the terminal would reach it twice, and kill it.
            child = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._alive.add(child)
        with child:
            last = _read(child, quiet)
        with self._lock:
            self._alive.discard(child)
        code = child.returncode
        return Ended(run, "" if code == 0 else _one_line(last, code), code)


def _command(run: Run, processes: int | None, quiet: bool) -> list[str]:
    """`domainclip finetune` of this run; the recipe with every default written out lies beside the runs."""
    resume = (run.folder / "recipe.yaml").is_file()
    file = run.folder.parent / "recipes" / f"{run.recipe.name}.yaml"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(run.recipe.resolved(), encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{file}: cannot be written: {error.strerror}: name another --run-dir") from None
    several = [] if processes is None else ["--processes", str(processes)]
    options = [*(["--resume"] if resume else []), *(["--quiet"] if quiet else []), *several]
    start = [sys.executable, "-m", "domainclip", "finetune"]
    return [*start, "--recipe", str(file), "--run-dir", str(run.folder), *options]


def _read(child: subprocess.Popen[str], quiet: bool) -> str:
    """Passes on what the run says, and gives its last error line."""
    last = ""
    assert child.stderr is not None
    for line in child.stderr:
        last = line if line.startswith(_ERROR) else last
        if not quiet:
            sys.stderr.write(line)
    return last.removeprefix(_ERROR).strip()


def _one_line(said: str, code: int) -> str:
    """Why a run failed."""
    return said or f"ended without a word ({f'signal {-code}' if code < 0 else f'exit code {code}'})"


def refuse_nothing(ended: Sequence[Ended]) -> None:
    """Raises: DomainclipError with the first fault when no run at all is complete."""
    if all(one.error for one in ended):
        first = ended[0]
        fault = DomainclipError(
            f"none of {len(ended)} runs is complete; {first.run.folder.name}: {first.error}"
        )
        fault.code = code_of(first)
        raise fault


def code_of(failed: Ended) -> ExitCode:
    """The exit code of a failed run; one that a signal ended is a bug of somebody's."""
    return ExitCode(failed.code) if failed.code in set(ExitCode) else ExitCode.BUG


def folder_of(runs: Sequence[Run]) -> Path:
    """The folder that the runs lie in."""
    return runs[0].folder.parent

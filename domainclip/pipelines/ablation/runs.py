"""The runs of an ablation, each a process of its own.

A process releases all memory, that of the GPU too, has its own precision and seed, and may start several
processes itself; a fault that kills it, such as too little memory, ends one variant and not the table. Runs
share the caches on disk: decoded images, features of frozen towers, embeddings of the base.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from types import FrameType

from domainclip.errors import STOP_SIGNALS, DomainclipError, ExitCode, Interrupted, RecipeError
from domainclip.pipelines.ablation.plan import Run
from domainclip.report import model_card
from domainclip.training.checkpointing import resume as checkpointing_resume

_ERROR = "domainclip: "  # the line of an error begins with it
_STOPPED = (int(ExitCode.INTERRUPTED), int(ExitCode.TERMINATED))


@dataclass(frozen=True)
class Ended:
    """The end of one run."""

    run: Run
    error: str = ""  # its line; empty for a complete run
    code: int = 0


def is_complete(run: Run) -> bool:
    """Whether the folder holds the complete run of this very recipe.

    Raises: RecipeError when the folder holds a run of another recipe.
    """
    if not (run.folder / "recipe.yaml").is_file():
        return False
    recipe = model_card.run_recipe(run.folder)
    changed = checkpointing_resume.changed_keys(recipe.identity(), run.recipe.identity())
    if changed:
        raise RecipeError(
            f"{run.folder}: holds a run of another recipe ({'; '.join(changed[:3])}): name another "
            "--run-dir, or remove that folder"
        )
    # The card is written last. Another way to select α, or other probes, end the same training again.
    files = ("model", "results.json", "README.md")
    return recipe == run.recipe and all((run.folder / name).exists() for name in files)


def run_all(
    runs: Sequence[Run], *, jobs: int, processes: int | None, quiet: bool, say: Callable[[str], None]
) -> list[Ended]:
    """Run what is not complete, at most `jobs` at once; the end of each run, in the order of the plan.

    Raises: RecipeError for a folder of another run; Interrupted after a signal.
    """
    complete = {run.folder: is_complete(run) for run in runs}
    ends = {run.folder: Ended(run) for run in runs if complete[run.folder]}
    if ends:
        say(f"{len(ends)} of {len(runs)} runs are complete already")
    children = _Children()
    with children, ThreadPoolExecutor(jobs) as pool:
        waiting = [run for run in runs if not complete[run.folder]]
        futures = [pool.submit(children.finish, run, processes, quiet) for run in waiting]
        for future in as_completed(futures):
            ended = future.result()
            if ended is None:  # never started, since the command was stopped
                continue
            ends[ended.run.folder] = ended
            say(f"{ended.run.folder.name}: {ended.error or 'done'}")
            if ended.code in _STOPPED:  # by a signal to that run, or by its train.time_limit
                children.stop(signal.SIGTERM)
    if children.stopped:
        code = ExitCode.INTERRUPTED if children.stopped == signal.SIGINT else ExitCode.TERMINATED
        done = sum(not ended.error for ended in ends.values())
        raise Interrupted(
            f"stopped with {done} of {len(runs)} runs complete; the same command continues them", code
        )
    return [ends[run.folder] for run in runs]


@dataclass
class _Children:
    """The running processes; a signal to this process is passed on to all of them."""

    stopped: int = 0
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)  # a handler may come while it is held

    def __enter__(self) -> _Children:
        handled = [
            number
            for number in STOP_SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN  # as under nohup
        ]
        self._before = {number: signal.signal(number, self._pass_on) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        # A run saves at SIGTERM; in its own session it gets no signal when the terminal is closed.
        self.stop(signal.SIGTERM if number == signal.SIGHUP else number)

    def stop(self, number: int) -> None:
        """Signal every run to save and end; no other is started."""
        with self._lock:
            self.stopped = self.stopped or number
            for child in self._running:
                child.send_signal(number)

    def finish(self, run: Run, processes: int | None, quiet: bool) -> Ended | None:
        """Run one to its end; None when the command was stopped before it began."""
        command = _command(run, processes, quiet)
        with self._lock:  # a signal reaches the child, or it is never started
            if self.stopped:
                return None
            # In its own session: Ctrl-C at the terminal would reach it twice, and kill it.
            child = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._running.add(child)
        with child:
            error = _last_error(child, quiet)
        with self._lock:
            self._running.discard(child)
        code = child.returncode
        return Ended(run, "" if code == 0 else _error_line(error, code), code)


def _command(run: Run, processes: int | None, quiet: bool) -> list[str]:
    """`domainclip finetune` for this run; its recipe, with every default, is written beside the runs."""
    resume = (run.folder / "recipe.yaml").is_file()
    file = run.folder.parent / "recipes" / f"{run.recipe.name}.yaml"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(run.recipe.resolved(), encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{file}: cannot be written: {error.strerror}: name another --run-dir") from None
    process_options = [] if processes is None else ["--processes", str(processes)]
    options = [*(["--resume"] if resume else []), *(["--quiet"] if quiet else []), *process_options]
    start = [sys.executable, "-m", "domainclip", "finetune"]
    return [*start, "--recipe", str(file), "--run-dir", str(run.folder), *options]


def _last_error(child: subprocess.Popen[str], quiet: bool) -> str:
    """Print the lines of a run, unless `quiet`; its last error line."""
    last = ""
    assert child.stderr is not None
    for line in child.stderr:
        last = line if line.startswith(_ERROR) else last
        if not quiet:
            sys.stderr.write(line)
    return last.removeprefix(_ERROR).strip()


def _error_line(error: str, code: int) -> str:
    """Why a run failed."""
    return error or f"ended without a word ({f'signal {-code}' if code < 0 else f'exit code {code}'})"


def check_any_complete(ended: Sequence[Ended]) -> None:
    """Raises: DomainclipError with the first error when no run at all is complete."""
    if all(end.error for end in ended):
        first = ended[0]
        fault = DomainclipError(
            f"none of {len(ended)} runs is complete; {first.run.folder.name}: {first.error}"
        )
        fault.code = exit_code(first)
        raise fault


def exit_code(failed: Ended) -> ExitCode:
    """The exit code of a failed run; that of a bug, where a signal ended it."""
    return ExitCode(failed.code) if failed.code in set(ExitCode) else ExitCode.BUG

"""What a submitted job does on each of its machines: start the run, or resume it, and stop it in time.

submitit pickles the job when it is submitted, and again before it is put back into the queue.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainclip.errors import RecipeError

NAME = "domainclip"  # of every job: a queue is read by all users of a cluster
_PR_SET_PDEATHSIG = 1  # prctl(2)
_FIRST_PORT, _PORTS = 20_000, 20_000
_WAIT = 0.2  # seconds between two checks of the run
_IDLE_SESSIONS = 3  # in a row that saved no checkpoint, after which a job is not put back


@dataclass
class RunJob:
    """A run of `domainclip finetune` that is resumed whenever its job starts again."""

    recipe: Path
    folder: Path  # the run folder
    place: Path  # the working folder
    processes: int  # on each machine
    visible_gpus: str | None = None  # CUDA_VISIBLE_DEVICES to restore
    newest: str = ""  # checkpoint of the session before
    idle: int = 0  # sessions since then that saved none
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "process": None}

    def __call__(self) -> int:
        """Run to the end; its exit code.

        Raises: RecipeError for a run that ended with an error, on the first machine.
        """
        import submitit

        machine = submitit.JobEnvironment()
        environment = dict(os.environ)
        if self.visible_gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.visible_gpus
        self.process = subprocess.Popen(
            self.command(machine.job_id, machine.hostnames, machine.node),
            cwd=self.place,
            env=environment,
            preexec_fn=_prepare_child,  # this process has no threads of its own
        )
        # Short waits: the signal of the time limit is handled in between.
        while (code := self.process.poll()) is None:
            time.sleep(_WAIT)
        if code and machine.node == 0:  # the other machines lose their run with the first one's
            raise RecipeError(f"{self.folder}: the run ended with exit code {code}: see the lines above")
        return code

    def command(self, job: str, hosts: list[str], node: int) -> list[str]:
        """Return the command on one machine; `hosts` are the names of all, `node` is the number of this."""
        words = [sys.executable, "-m", "domainclip", "finetune", "--run-dir", str(self.folder)]
        begun = (self.folder / "recipe.yaml").is_file()
        words += ["--resume"] if begun else ["--recipe", str(self.recipe)]
        words += ["--processes", str(self.processes)]
        if len(hosts) > 1:
            # Equal on all machines, and most likely free.
            port = _FIRST_PORT + int("".join(filter(str.isdigit, job)) or 0) % _PORTS
            words += ["--nodes", str(len(hosts)), "--node-rank", str(node), "--master", f"{hosts[0]}:{port}"]
        return words

    def checkpoint(self) -> Any:
        """Let the run save a checkpoint and end; what submitit puts into the queue again.

        submitit calls it on the first machine some time before the limit; all processes agree to stop.

        Raises: RecipeError when the time limit is too short for the run to advance.
        """
        import submitit

        if self.process is not None:
            self.process.send_signal(signal.SIGUSR1)
            # `poll`, which this call may interrupt, holds a lock that `wait` needs.
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        self._count_idle()
        return submitit.helpers.DelayedSubmission(self)

    def _count_idle(self) -> None:
        newest = max((path.name for path in self.folder.glob("checkpoints/step-*")), default="")
        self.newest, self.idle = newest, self.idle + 1 if newest == self.newest else 0
        if self.idle == _IDLE_SESSIONS:
            raise RecipeError(
                f"--slurm time: {self.folder}: {self.idle} sessions in a row saved no checkpoint: set a "
                "longer time, and submit the run again"
            )


def _prepare_child() -> None:
    """Tie the run to the job. SLURM sends its signal to every process; only the job's one counts."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

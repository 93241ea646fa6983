"""A command on two processes that a user starts with Accelerate's own launcher."""

from __future__ import annotations

import os
import subprocess
import sys

_ON_CPU = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
_LAUNCH = ["accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
_LAUNCH += ["--multi_gpu"]  # with --cpu it starts one process, whatever the number says
_LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def by_accelerate(*arguments: str) -> str:
    """What `domainclip ARGUMENTS` says; it ends well."""
    command = [sys.executable, "-m", *_LAUNCH, "-m", "domainclip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | _ON_CPU)
    assert done.returncode == 0, done.stderr
    return done.stdout

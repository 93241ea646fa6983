"""The options of `finetune` that name where a run is trained: machines, a cluster, a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunDir = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Run folder, or its address in a store; default: runs/NAME-N."),
]
AccelerateConfig = Annotated[
    Path | None, typer.Option(help="A file of `accelerate config`, for several machines.")
]
NodeCount = Annotated[
    int | None,
    typer.Option(min=1, help="Number of machines; type the command on each, with --processes of each."),
]
NodeRank = Annotated[
    int | None, typer.Option(min=0, help="The number of this machine, from 0; with --nodes.")
]
Master = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="The machine of --node-rank 0, and a free port there."),
]
Slurm = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="Submit the run as a SLURM job that resumes itself after its time limit; keys: partition, "
        "nodes, gpus, cpus, memory, time, account, qos, constraint, notice; `local`: run it here.",
    ),
]

"""The model of many devices against 1, 2 and 4 real processes on this machine.

    python benchmarks/scale.py [--batch 64] [--rounds 7]

A CLIP of 4 layers of width 256 with random weights, pictures of 96 points, each process on one thread, gloo
between them. One process is profiled and the traffic of two is timed; from that the steps of 1, 2 and 4
processes are predicted, and then measured. Where there are more processes than cores, they share them.

The parts of a step show where an error comes from: gradients (towers, loss and communication)
and the optimizer. The last column is the processor time of the first process, which other programs on the
machine change less than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

sys.path.insert(0, str(Path(__file__).parent.parent))

WORLDS = (1, 2, 4)
WARM = 2


def _setup(folder: str, batch: int) -> tuple[Any, Any]:
    """Towers that learn whole, and what brings n pairs of them."""
    from types import SimpleNamespace

    from benchmarks import bases
    from domainclip.components import WeightedObjectives
    from domainclip.config.training import TrainConfig
    from domainclip.data.batching.matches import MatchKeys
    from domainclip.objectives.base import Sizes
    from domainclip.objectives.contrastive import Contrastive
    from domainclip.strategies.full import Full
    from domainclip.training.views import StepBatch

    loaded = bases.make_base("small", Path(folder, f"base{os.getpid()}"))
    factors = Full().learning_rates(loaded)
    loaded.train()
    edge = loaded.image_size[0]

    def bring(pairs: int) -> StepBatch:
        draw = torch.Generator().manual_seed(pairs)
        pixels = torch.randint(0, 256, (pairs, edge, edge, 3), dtype=torch.uint8, generator=draw)
        texts = [f"a picture of number {i} with some more words" for i in range(pairs)]
        keys = MatchKeys.of_groups(torch.arange(pairs))
        return StepBatch({"pixels": pixels}, None, texts, None, keys, None)

    setup = SimpleNamespace(
        model=loaded, factors=factors,
        objectives=WeightedObjectives({"contrastive": (1.0, Contrastive())}),
        settings=TrainConfig(),
        sizes=Sizes(loaded.width),
    )  # fmt: skip
    return setup, bring


def _worker(rank: int, world: int, folder: str, batch: int, rounds: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1",
        MASTER_PORT=Path(folder, f"port{world}").read_text(), ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    from accelerate import Accelerator

    from domainclip.pipelines.plan import cluster
    from domainclip.training import optimizer as training_optimizer
    from domainclip.training import step

    setup, bring = _setup(folder, batch)
    accelerator = Accelerator(cpu=True)
    told: dict[str, Any] = {}
    if world == 1:
        told["profile"] = vars(cluster.measure(setup, accelerator, bring))
    else:
        told["network"] = _traffic()
    optimizer = training_optimizer.make_optimizer(setup.model, setup.factors, setup.settings, rate=0.0)
    model = accelerator.prepare(setup.model)
    mine, taken = bring(batch // world), list[tuple[float, float, float]]()
    for number in range(rounds + WARM):
        if world > 1:
            dist.barrier()
        began, processor = time.perf_counter(), time.process_time()
        step.compute_gradients(model, setup.model, mine, setup.objectives, None, number, accelerator)
        with_gradients = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ended = time.perf_counter()
        taken.append((with_gradients - began, ended - with_gradients, time.process_time() - processor))
    parts = ("gradients", "optimizer", "processor")
    told |= {part: median(row[at] for row in taken[WARM:]) for at, part in enumerate(parts)}
    told["seconds"] = median(row[0] + row[1] for row in taken[WARM:])
    if rank == 0:
        Path(folder, f"told{world}.json").write_text(json.dumps(told))
    accelerator.end_training()


def _traffic() -> dict[str, float]:
    """Bytes a second and seconds a message, from small and large sums around the ring."""
    w = dist.get_world_size()

    def seconds(numbers: int) -> float:
        rows, taken = torch.zeros(numbers), []
        for _ in range(7):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(rows)
            taken.append(time.perf_counter() - began)
        return median(taken)

    small, large = seconds(1), seconds(4_000_000)
    return {
        "latency": small / (2 * (w - 1)),
        "bandwidth": 2 * (w - 1) / w * 16e6 / max(1e-9, large - small),
    }


def main() -> None:
    """Profiles, predicts, measures, and prints the table."""
    from domainclip.pipelines.plan.cluster import Network, Profile, estimate

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rounds", type=int, default=7)
    asked = options.parse_args()
    told = {}
    with tempfile.TemporaryDirectory() as folder:
        for world in WORLDS:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                Path(folder, f"port{world}").write_text(str(free.getsockname()[1]))
            processes.spawn(_worker, (world, folder, asked.batch, asked.rounds), nprocs=world)
            told[world] = json.loads(Path(folder, f"told{world}.json").read_text())
    profile, network = Profile(**told[1]["profile"]), Network(**told[2]["network"])
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; traffic of two processes: {network.bandwidth / 1e9:.2f} GB/s, "
          f"{network.latency * 1e6:.0f} µs; batch {asked.batch}\n")  # fmt: skip
    print(
        "| processes | a step, predicted | measured | error | of one process, predicted | measured "
        "| gradients, predicted | measured | optimizer, predicted | measured | processor time |"
    )
    print("|--:" * 11 + "|")
    whole: tuple[float, float] | None = None
    for world in WORLDS:
        crowded = max(1.0, world / cores)
        found = estimate(profile, network, devices=world, batch=asked.batch, crowded=crowded)
        real, update = told[world], crowded * profile.update
        whole = whole or (found.seconds, real["seconds"])
        print(
            f"| {world} | {found.seconds:.3f} s | {real['seconds']:.3f} s "
            f"| {found.seconds / real['seconds'] - 1:+.0%} "
            f"| {found.seconds / whole[0]:.2f} | {real['seconds'] / whole[1]:.2f} "
            f"| {found.seconds - update:.3f} s | {real['gradients']:.3f} s "
            f"| {update:.3f} s | {real['optimizer']:.3f} s | {real['processor']:.3f} s |"
        )


if __name__ == "__main__":
    main()

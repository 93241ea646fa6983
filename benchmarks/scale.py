"""The model of many devices against 1, 2 and 4 real processes on this machine.

    python benchmarks/scale.py [--batch 64] [--rounds 7]

A CLIP of 4 layers of width 256 with random weights, images of 96 × 96 pixels, each process on one thread,
gloo between them. One process is profiled with passes of the whole batch and of a quarter of it, and the
traffic of two processes is timed; from that the steps of 1, 2 and 4 processes are predicted, and then
measured. Where there are more processes than cores, they share them.

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
WARM_UP = 2
COLUMNS = (
    "processes",
    *("a step, predicted", "measured", "error"),
    *("of one process, predicted", "measured"),
    *("gradients, predicted", "measured"),
    *("optimizer, predicted", "measured"),
    "processor time",
)


def _setup(folder: str) -> tuple[Any, Any]:
    """Towers that learn whole, and a function that makes a batch of n pairs."""
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

    def make_batch(pairs: int) -> StepBatch:
        draw = torch.Generator().manual_seed(pairs)
        pixels = torch.randint(0, 256, (pairs, edge, edge, 3), dtype=torch.uint8, generator=draw)
        texts = [f"an image of number {i} with some more words" for i in range(pairs)]
        keys = MatchKeys.of_groups(torch.arange(pairs))
        return StepBatch({"pixels": pixels}, None, texts, None, keys, None)

    setup = SimpleNamespace(
        model=loaded, factors=factors,
        objectives=WeightedObjectives({"contrastive": (1.0, Contrastive())}),
        settings=TrainConfig(),
        sizes=Sizes(loaded.width),
    )  # fmt: skip
    return setup, make_batch


def _worker(rank: int, world: int, folder: str, batch: int, rounds: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1",
        MASTER_PORT=Path(folder, f"port{world}").read_text(), ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    from accelerate import Accelerator

    from domainclip.pipelines.plan import cluster

    setup, make_batch = _setup(folder)
    accelerator = Accelerator(cpu=True)
    results: dict[str, Any] = {}
    if world == 1:
        results["profile"] = vars(cluster.measure(setup, accelerator, make_batch, held=batch))
    else:
        results["network"] = _traffic()
    results |= _time_steps(setup, accelerator, make_batch(batch // world), rounds)
    if rank == 0:
        Path(folder, f"results{world}.json").write_text(json.dumps(results))
    accelerator.end_training()


def _time_steps(setup: Any, accelerator: Any, batch: Any, rounds: int) -> dict[str, float]:
    """Median seconds of a step and of its parts."""
    from domainclip.training import optimizer as training_optimizer
    from domainclip.training import step

    optimizer = training_optimizer.make_optimizer(setup.model, setup.factors, setup.settings, rate=0.0)
    model = accelerator.prepare(setup.model)
    timings: list[tuple[float, float, float]] = []
    for number in range(rounds + WARM_UP):
        if dist.is_initialized():
            dist.barrier()
        start, processor = time.perf_counter(), time.process_time()
        step.compute_gradients(model, setup.model, batch, setup.objectives, None, number, accelerator)
        with_gradients = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end = time.perf_counter()
        timings.append((with_gradients - start, end - with_gradients, time.process_time() - processor))
    parts = ("gradients", "optimizer", "processor")
    results = {part: median(row[at] for row in timings[WARM_UP:]) for at, part in enumerate(parts)}
    return results | {"seconds": median(row[0] + row[1] for row in timings[WARM_UP:])}


def _traffic() -> dict[str, float]:
    """Bytes a second and seconds a message, from small and large sums around the ring."""
    w = dist.get_world_size()

    def seconds(numbers: int) -> float:
        rows, timings = torch.zeros(numbers), []
        for _ in range(7):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(rows)
            timings.append(time.perf_counter() - start)
        return median(timings)

    small, large = seconds(1), seconds(4_000_000)
    return {
        "latency": small / (2 * (w - 1)),
        "bandwidth": 2 * (w - 1) / w * 16e6 / max(1e-9, large - small),
    }


def _run_all(batch: int, rounds: int) -> dict[int, dict[str, Any]]:
    """The results of each number of processes."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for world in WORLDS:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                Path(folder, f"port{world}").write_text(str(free.getsockname()[1]))
            processes.spawn(_worker, (world, folder, batch, rounds), nprocs=world)
            results[world] = json.loads(Path(folder, f"results{world}.json").read_text())
    return results


def main() -> None:
    """Profiles, predicts, measures, and prints the table."""
    from domainclip.pipelines.plan.cluster import Network, Profile, estimate

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    results = _run_all(options.batch, options.rounds)
    profile, network = Profile(**results[1]["profile"]), Network(**results[2]["network"])
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; traffic of two processes: {network.bandwidth / 1e9:.2f} GB/s, "
          f"{network.latency * 1e6:.0f} µs; batch {options.batch}\n")  # fmt: skip
    print(f"| {' | '.join(COLUMNS)} |")
    print("|--:" * len(COLUMNS) + "|")
    of_one: tuple[float, float] | None = None
    for world, measured in results.items():
        crowded = max(1.0, world / cores)
        predicted = estimate(profile, network, devices=world, batch=options.batch, crowded=crowded)
        seconds, update = predicted.seconds, crowded * profile.update
        of_one = of_one or (seconds, measured["seconds"])
        print(
            f"| {world} | {seconds:.3f} s | {measured['seconds']:.3f} s "
            f"| {seconds / measured['seconds'] - 1:+.0%} "
            f"| {seconds / of_one[0]:.2f} | {measured['seconds'] / of_one[1]:.2f} "
            f"| {seconds - update:.3f} s | {measured['gradients']:.3f} s "
            f"| {update:.3f} s | {measured['optimizer']:.3f} s | {measured['processor']:.3f} s |"
        )


if __name__ == "__main__":
    main()

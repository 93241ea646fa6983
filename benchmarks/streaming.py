"""A stream through real processes: every pair once, also when it is stopped and resumed, in flat memory.

    python benchmarks/streaming.py                # 10,000 and 100,000 pairs through two processes
    python benchmarks/streaming.py --pairs 2000

The pairs are made on the fly, in tar shards of uneven sizes. After a stop in mid-epoch, each process is
started anew.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import resource
import socket
import sys
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BATCH = 80


def make_shards(folder: Path, pairs: int) -> None:
    """`pairs` tiny pictures with captions, in shards between a tenth and twice the usual size."""
    draw, left, shard, number = np.random.default_rng(0), pairs, 0, 0
    while left:
        size = min(left, int(draw.integers(100, 2000)))
        with tarfile.open(folder / f"train-{shard:04d}.tar", "w") as archive:
            for _ in range(size):
                stream = io.BytesIO()
                Image.new("RGB", (8, 8), tuple(number.to_bytes(3, "big"))).save(stream, "PNG")
                for suffix, data in (("png", stream.getvalue()), ("txt", f"picture {number}".encode())):
                    member = tarfile.TarInfo(f"{number:07d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
                number += 1
        left, shard = left - size, shard + 1


def preprocess(image: Image.Image) -> dict[str, np.ndarray]:
    """The pixels as they are."""
    return {"pixels": np.asarray(image)}


def read(rank: int, world: int, port: int, folder: str, start: int, total: int, out: str) -> None:
    """One process: reads its share of some steps, and notes what it saw and how much memory that took."""
    import torch
    import torch.distributed as dist

    from domainclip.data.batching.loader import batches
    from domainclip.data.batching.pairs import Pairs
    from domainclip.data.batching.streamed_pairs import StreamedPairs
    from domainclip.data.cards import Card
    from domainclip.data.corpus import load_corpus

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    card = {"name": "stream", "reader": "webdataset", "options": {"streaming": True, "held_out": 1}}
    corpus = load_corpus(Card.model_validate({**card, "privacy": {"identifiers": "none"}}), folder)
    assert corpus.stream is not None
    make: Any = partial(Pairs, preprocess=preprocess)
    pairs = StreamedPairs(corpus.stream, make, corpus.splits["train"], 0)
    seen = np.empty((total - start, BATCH // world), np.int64)
    for step, batch in enumerate(batches(pairs, start, total, BATCH, workers=0)):
        assert batch.image is not None
        red, green, blue = batch.image["pixels"][:, 0, 0].numpy().astype(np.int64).T
        numbers = [int(id.rpartition("/")[2]) for id in batch.ids]
        # The picture, the caption and the id are of one pair.
        assert (red * 65536 + green * 256 + blue).tolist() == numbers
        assert batch.texts == [f"picture {number}" for number in numbers]
        seen[step] = numbers
    dist.barrier()
    dist.destroy_process_group()
    np.save(f"{out}-{rank}.npy", seen)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB; Linux counts in kiB
    Path(f"{out}-{rank}.json").write_text(json.dumps(peak))


def through(processes: int, folder: Path, start: int, total: int, out: Path) -> tuple[np.ndarray, float]:
    """What all processes saw (steps, batch), and the largest peak of their memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    given = (processes, port, str(folder), start, total, str(out))
    running = [context.Process(target=read, args=(rank, *given)) for rank in range(processes)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    if any(one.exitcode for one in running):
        sys.exit("a process failed")
    shares = [np.load(f"{out}-{rank}.npy") for rank in range(processes)]
    peaks = [json.loads(Path(f"{out}-{rank}.json").read_text()) for rank in range(processes)]
    return np.concatenate(shares, axis=1), max(peaks)


def measure(pairs: int, processes: int, quick: bool) -> float:
    """Streams an epoch, stopped in its midst; the peak memory."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["DOMAINCLIP_CACHE"] = f"{place}/cache"
        folder = Path(place) / "shards"
        folder.mkdir()
        make_shards(folder, pairs)
        steps, began = pairs // BATCH, time.perf_counter()
        stop = steps * 2 // 5 + 1
        first, peak_before = through(processes, folder, 0, stop, Path(place) / "first")
        second, peak_after = through(processes, folder, stop, steps, Path(place) / "second")
        took = time.perf_counter() - began
        seen = np.concatenate([first, second]).ravel()
        once = len(seen) == pairs and (np.sort(seen) == np.arange(pairs)).all()
        # Without a stop, the order is the same.
        whole = None if quick else through(processes, folder, 0, steps, Path(place) / "whole")[0]
        same = whole is None or (whole == np.concatenate([first, second])).all()
    peak = max(peak_before, peak_after)
    print(
        f"{pairs:>7,} pairs, {processes} processes, stopped at step {stop} of {steps}: every id once: "
        f"{'yes' if once else 'NO'}; the order of a run without a stop: "
        f"{'not looked at' if quick else 'yes' if same else 'NO'}; peak memory {peak:.0f} MiB a "
        f"process; {pairs / took:.0f} pairs/s, start-up included",
        flush=True,
    )
    if not (once and same):
        sys.exit(1)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=int, nargs="*", default=[10_000, 100_000], help=f"multiples of {BATCH}"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="no run without a stop to compare with")
    chosen = parser.parse_args()
    peaks = [measure(pairs // BATCH * BATCH, chosen.processes, chosen.quick) for pairs in chosen.pairs]
    if len(peaks) > 1:
        print(f"peak memory of the last to the first: {peaks[-1] / peaks[0]:.2f} x")


if __name__ == "__main__":
    main()

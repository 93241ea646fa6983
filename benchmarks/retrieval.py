"""Time and memory of exact retrieval ranks, ties included, for galleries of growing size.

    python benchmarks/retrieval.py --sizes 5000 20000        # 100000 takes about 25 times the last

Queries meet the gallery in tiles; the whole matrix of cosines never stands. Time grows with the square of the
size, memory beside the embeddings does not grow.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
from scipy.sparse import identity

from domainclip.evaluation.metrics.ranking import rank_answers


def measured(size: int, width: int) -> tuple[float, float]:
    """Seconds, and MiB at the peak beside the embeddings themselves."""
    rng = np.random.default_rng(0)
    images, texts = (rng.normal(size=(size, width)).astype(np.float32) for _ in range(2))
    tracemalloc.start()
    began = time.perf_counter()
    rank_answers(images, texts, [identity(size, dtype=bool, format="csr")])
    seconds = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, (peak - 2 * 8 * size * width) / 2**20  # in double precision while they are compared


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--sizes", type=int, nargs="+", default=[2000, 10_000])
    arguments.add_argument("--width", type=int, default=512)
    said = arguments.parse_args()
    print("| queries × gallery | seconds | MiB beside the embeddings | the whole matrix |\n|---|---|---|---|")
    for size in said.sizes:
        seconds, memory = measured(size, said.width)
        print(
            f"| {size} × {size} | {seconds:.1f} | {memory:.0f} | {size**2 * 8 / 2**20:.0f} MiB |", flush=True
        )


if __name__ == "__main__":
    main()

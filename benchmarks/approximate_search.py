"""Recall and time of approximate search against the exact one, on made vectors with and without clusters.

    python -m benchmarks.approximate_search --sizes 100000 1000000

Recall@10 is the share of the ten exact matches that the graph finds; their cosines are exact.
Uniform vectors on a sphere of that width are the hardest case: all are almost equally far away.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from domainclip.inference.vector_graph import VectorGraph

QUERIES, TOP = 200, 10


def vectors(size: int, width: int, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """(size, width) of unit length, around as many centres."""
    rows = rng.normal(size=(size, width)).astype(np.float32)
    if clusters:
        centres = rng.normal(size=(clusters, width)).astype(np.float32)
        rows = 0.7 * rows + centres[rng.integers(clusters, size=size)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def measured(size: int, width: int, clusters: int) -> str:
    """One line of the table."""
    rng = np.random.default_rng(0)
    rows = vectors(size + QUERIES, width, clusters, rng)
    rows, queries = rows[:size], rows[size:]
    names = [str(i) for i in range(size)]
    with tempfile.TemporaryDirectory() as folder:
        graph = VectorGraph(Path(folder) / "made.index", width)
        began = time.perf_counter()
        graph.update(names, lambda wanted: {name: rows[int(name)] for name in wanted})
        building = time.perf_counter() - began
        megabytes = graph.file.stat().st_size / 2**20
    hits, approximate, exact = 0, 0.0, 0.0
    for query in queries:
        began = time.perf_counter()
        proposed = graph.propose(query, TOP)
        approximate += time.perf_counter() - began
        began = time.perf_counter()
        cosines = rows @ query
        first = np.argpartition(-cosines, TOP)[:TOP]
        exact += time.perf_counter() - began
        hits += sum(names[i] in proposed for i in first)
    kind = f"{clusters} clusters" if clusters else "uniform"
    return (
        f"| {size} × {width}, {kind} | {hits / (TOP * QUERIES):.3f} | {1000 * approximate / QUERIES:.1f} | "
        f"{1000 * exact / QUERIES:.1f} | {building:.0f} | {megabytes:.0f} |"
    )


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000])
    options.add_argument("--width", type=int, default=512)
    options.add_argument("--clusters", type=int, nargs="+", default=[0, 1000])
    arguments = options.parse_args()
    print("| vectors | recall@10 | ms a query | ms exact, in memory | s to build | MiB on disk |")
    print("|---|---|---|---|---|---|")
    for size in arguments.sizes:
        for clusters in arguments.clusters:
            print(measured(size, arguments.width, clusters), flush=True)


if __name__ == "__main__":
    main()

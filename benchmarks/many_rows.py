"""Curation of many items against the exact one, on embeddings of 512 numbers. See README.md.

    python benchmarks/many_rows.py [--rows 5000 20000 40000]

Prints the near copies that `deduplicate` finds, the distance of a third of the rows from all (`subset`),
and processor time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

sys.path.insert(0, str(Path(__file__).parent.parent))

from domainclip.data.curation import subset
from domainclip.data.images import similar_rows


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 20_000, 40_000])
    sizes: list[int] = parser.parse_args().rows
    print("| rows | copies, exact | in clusters | exact | in clusters | subset, blocks | greedy | distance |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for n in sizes:
        draw = np.random.default_rng(0)
        image, text = (_embeddings(n, draw) for _ in range(2))
        exact, exact_time = _timed(lambda rows=image: list(similar_rows.exact_pairs(rows, 0.95)))
        close, close_time = _timed(lambda rows=image: similar_rows.clustered_pairs(rows, 0.95).tolist())
        blocks, block_time = _timed(lambda x=image, y=text: subset.block_herding(x, y, len(x) // 3))
        greedy, greedy_time = None, 0.0
        if n <= subset.EXACT_ROWS:
            greedy, greedy_time = _timed(lambda x=image, y=text: subset.kernel_herding(x, y, len(x) // 3))
        chance = draw.permutation(n)[: n // 3].tolist()
        spread = ", ".join(
            f"{name} {_distance(image, text, rows):.4f}"
            for name, rows in (("blocks", blocks), ("greedy", greedy), ("chance", chance))
            if rows is not None
        )
        greedy_cell = f"{greedy_time:.1f} s" if greedy else ""
        print(
            f"| {n:,} | {_removed(n, exact):,} | {_removed(n, close):,} | {exact_time:.1f} s "
            f"| {close_time:.1f} s | {block_time:.1f} s | {greedy_cell} | {spread} |",
            flush=True,
        )


def _embeddings(n: int, draw: Any) -> Any:
    """(n, 512) float32 of unit length, of 200 topics; a tenth are near copies (cosine 0.95 and more)."""

    def unit(rows: Any) -> Any:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    topics, copies = unit(draw.normal(size=(200, 512))), n // 10
    rows = unit(topics[draw.integers(200, size=n)] + draw.normal(size=(n, 512)) * 0.7 / np.sqrt(512))
    moved = unit(draw.normal(size=(copies, 512))) * draw.uniform(0, 0.32, size=(copies, 1))
    rows[n - copies :] = unit(rows[draw.integers(n // 2, size=copies)] + moved)
    return rows


def _distance(image: Any, text: Any, rows: list[int]) -> float:
    """Of the mean outer product of some rows from that of all."""
    return float(np.linalg.norm(image[rows].T @ text[rows] / len(rows) - image.T @ text / len(image)))


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    return call(), time.process_time() - began


def _removed(n: int, pairs: list[Any]) -> int:
    """The rows that are left out when the rows of each pair become one."""
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n, n))
    return n - int(connected_components(graph, directed=False)[0])


if __name__ == "__main__":
    main()

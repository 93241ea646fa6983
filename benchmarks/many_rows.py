"""Curation of many items against the exact one, on embeddings and on image hashes. See README.md.

    python benchmarks/many_rows.py [--rows 5000 20000 40000] [--hashes 10000 100000]

Prints the near copies that `deduplicate` finds, the distance of a third of the rows from all (`subset`),
and processor time; then the planted pairs of hashes that are found, by the number of bits that differ.
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
from domainclip.data.images import hash_neighbours, perceptual_hashes, similar_rows

EXACT_HASHES = 20_000  # up to which the exact search is timed as well


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 20_000, 40_000])
    parser.add_argument("--hashes", type=int, nargs="*", default=[10_000, 100_000])
    options = parser.parse_args()
    _compare_curation(options.rows)
    _compare_hashes(options.hashes)


def _compare_curation(sizes: list[int]) -> None:
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


def _compare_hashes(sizes: list[int]) -> None:
    bits = (8, 12, 16, 20, 24)
    print(
        "\n| image hashes | " + " | ".join(f"of pairs {d} bits apart" for d in bits) + " | sorted | exact |"
    )
    print("|--:" * (len(bits) + 3) + "|")
    for n in sizes:
        hashes, planted = _hashes(n, bits)
        near, near_time = _timed(lambda rows=hashes: hash_neighbours.near_hashes(rows, max(bits), 16))
        found = set(map(tuple, near.tolist()))
        shares = " | ".join(f"{len(found & planted[d]) / len(planted[d]):.1%}" for d in bits)
        exact_cell = ""
        if n <= EXACT_HASHES:
            exact_cell = f"{_timed(lambda rows=hashes: perceptual_hashes.find_candidates(rows))[1]:.1f} s"
        print(f"| {n:,} | {shares} | {near_time:.1f} s | {exact_cell} |", flush=True)


def _hashes(n: int, bits: tuple[int, ...]) -> tuple[Any, dict[int, set[tuple[int, ...]]]]:
    """(n, 8, 2) random hashes, the last tenth near copies of earlier ones; and these pairs by distance."""
    draw = np.random.default_rng(0)
    hashes = draw.integers(0, 2**64, (n, 8, 2), dtype=np.uint64)
    copies = n // 10 // len(bits)
    planted: dict[int, set[tuple[int, ...]]] = {}
    for number, distance in enumerate(bits):
        second = np.arange(n - (number + 1) * copies, n - number * copies)
        first, orientation = draw.choice(n // 2, copies, replace=False), draw.integers(8, size=copies)
        flips = np.argsort(draw.random((copies, 128)), axis=1)[:, :distance]
        changed = hashes[first, 0]
        for bit in flips.T:
            changed[np.arange(copies), bit // 64] ^= np.uint64(1) << (bit % 64).astype(np.uint64)
        hashes[second, orientation] = changed
        rows = zip(first.tolist(), second.tolist(), orientation.tolist(), strict=True)
        planted[distance] = set(rows)
    return hashes, planted


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

"""Curation of many items against the exact one, on embeddings and on image hashes. See README.md.

    python benchmarks/many_rows.py [--rows 5000 20000 40000] [--hashes 10000 100000]
    python benchmarks/many_rows.py --rows 50000 200000 --hashes

Prints the near copies that `deduplicate` finds, the distance of a third of the rows from all (`subset`),
and processor time, with that of a million rows by the measured growth; then the planted pairs of hashes that
are found, by the number of bits that differ. Above 40,000 rows the exact search is left out, and the copies
that are found are compared with those that were planted. 200,000 rows take about 3 GB.
"""

from __future__ import annotations

import argparse
import math
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

EXACT_ROWS = 40_000  # up to which all pairs of rows are compared as well
EXACT_HASHES = 20_000  # up to which the exact search is timed as well
TARGET_SECONDS = 15 * 60  # of a million rows on two cores; met with one, it is met with two
_CHUNK = 16_384  # rows that are drawn at once


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 20_000, 40_000])
    parser.add_argument("--hashes", type=int, nargs="*", default=[10_000, 100_000])
    options = parser.parse_args()
    _compare_curation(options.rows)
    if options.hashes:
        _compare_hashes(options.hashes)


def _compare_curation(sizes: list[int]) -> None:
    print("| rows | copies, exact | in clusters | exact | in clusters | subset, blocks | greedy | distance |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    clustered, in_blocks = {}, {}
    for n in sizes:
        draw = np.random.default_rng(0)
        image, text = (_embeddings(n, draw) for _ in range(2))
        exact, exact_time = None, 0.0
        if n <= EXACT_ROWS:
            exact, exact_time = _timed(lambda rows=image: list(similar_rows.exact_pairs(rows, 0.95)))
        close, clustered[n] = _timed(lambda rows=image: similar_rows.clustered_pairs(rows, 0.95).tolist())
        blocks, in_blocks[n] = _timed(lambda x=image, y=text: subset.block_herding(x, y, len(x) // 3))
        greedy, greedy_time = None, 0.0
        if n <= subset.EXACT_ROWS:
            greedy, greedy_time = _timed(lambda x=image, y=text: subset.kernel_herding(x, y, len(x) // 3))
        chance = draw.permutation(n)[: n // 3].tolist()
        spread = ", ".join(
            f"{name} {_distance(image, text, rows):.4f}"
            for name, rows in (("blocks", blocks), ("greedy", greedy), ("chance", chance))
            if rows is not None
        )
        copies = f"{n // 10:,} planted" if exact is None else f"{_removed(n, exact):,}"
        print(
            f"| {n:,} | {copies} | {_removed(n, close):,} | {_seconds(exact, exact_time)} "
            f"| {clustered[n]:.1f} s | {in_blocks[n]:.1f} s | {_seconds(greedy, greedy_time)} | {spread} |",
            flush=True,
        )
    _extrapolate({"copies in clusters": clustered, "subset in blocks": in_blocks})


def _seconds(result: Any, seconds: float) -> str:
    return "" if result is None else f"{seconds:.1f} s"


def _extrapolate(times: dict[str, dict[int, float]]) -> None:
    """Prints the processor time of a million rows, by the growth between the two largest sizes."""
    total = 0.0
    for name, by_size in times.items():
        if len(by_size) < 2:
            return
        (n, first), (m, second) = sorted(by_size.items())[-2:]
        power = math.log(second / first) / math.log(m / n)
        million = second * (1_000_000 / m) ** power
        total += million
        print(f"{name}: grows with n^{power:.2f}; a million would take {million:.0f} s")
    verdict = "met" if total <= TARGET_SECONDS else "missed"
    print(f"a million: {total:.0f} s of one core; the target of {TARGET_SECONDS} s is {verdict}")


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
    topic = draw.integers(200, size=n)
    rows = np.empty((n, 512), np.float32)
    for start in range(0, n, _CHUNK):
        of_chunk = topics[topic[start : start + _CHUNK]]
        noise = draw.normal(size=of_chunk.shape) * 0.7 / np.sqrt(512)
        rows[start : start + _CHUNK] = unit(of_chunk + noise)
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

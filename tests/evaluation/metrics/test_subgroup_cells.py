from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.metrics.subgroup_cells import suppressed_cells


def test_suppressed_cells_have_enough_groups_together() -> None:
    counts: dict[tuple[str, ...], int] = {("a",): 1, ("b",): 2, ("c",): 11, ("d",): 12, ("e",): 30}
    assert suppressed_cells(counts, 10) == {("a",), ("b",), ("c",)}
    assert suppressed_cells({("a",): 5, ("b",): 6, ("c",): 30}, 10) == {("a",), ("b",)}
    assert suppressed_cells({("a",): 15, ("b",): 16}, 10) == set()


@pytest.mark.parametrize("seed", range(20))
def test_every_line_of_a_table_suppresses_none_or_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table: dict[tuple[str, ...], int] = {
        (f"r{i}", f"c{j}"): int(rng.integers(1, 60)) for i in range(4) for j in range(5) if rng.random() < 0.9
    }
    dark = suppressed_cells(table, 10)
    assert {key for key, count in table.items() if count < 10} <= dark
    for position in range(2):
        for value in {key[position] for key in table}:
            line = [key for key in table if key[position] == value]
            gone = [key for key in line if key in dark]
            if gone and len(gone) < len(line):
                assert len(gone) >= 2
                assert sum(table[key] for key in gone) >= 10

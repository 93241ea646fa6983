"""The figures of held-out sources: a cell for each source and variant, their mean, and the stored table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """The macro AUROC of a variant, on one held-out source or as the mean over several."""

    base: float
    adapted: float
    difference: float
    low: float
    high: float
    p: float

    def cell(self) -> str:
        """`0.610 (+0.050; -0.010 to +0.110; p 0.09)`."""
        p = "p < 0.001" if self.p < 0.001 else f"p {self.p:.3f}"
        return f"**{self.adapted:.3f}** ({self.difference:+.3f}; {self.low:+.3f} to {self.high:+.3f}; {p})"


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean over sources, which share no patient: its variance is that of a mean of independent values.

    Each source counts alike; the standard error of one is its interval's half by 1.96.
    """
    means = [sum(values) / len(rows) for values in zip(*map(values_of, rows), strict=True)]
    error = sqrt(sum(((row.high - row.low) / 2 / 1.96) ** 2 for row in rows)) / len(rows)
    base, adapted, difference = means[:3]
    p = normal_p(difference, error)
    return Row(base, adapted, difference, difference - 1.96 * error, difference + 1.96 * error, p)


def normal_p(difference: float, error: float) -> float:
    return erfc(abs(difference) / error / sqrt(2)) if error else float(difference == 0)


@dataclass(frozen=True)
class Cell:
    """A variant on one held-out source."""

    seeds: tuple[int, ...]
    row: Row
    general: float | None  # change of the accuracy on general photos


Figures = dict[tuple[int, str], Cell]  # by the place of the source and the variant
_COLUMNS = ("source", "variant", "seeds", "base", "adapted", "difference", "low", "high", "p", "general")


def updated(earlier: Figures, here: Figures) -> Figures:
    """The earlier cells, each replaced by one with as many seeds or more."""
    new = {
        k: cell for k, cell in here.items() if k not in earlier or len(cell.seeds) >= len(earlier[k].seeds)
    }
    return earlier | new


def read_figures(file: Path) -> Figures:
    """The cells of the table; none without it."""
    cells: Figures = {}
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as lines:
            for line in csv.DictReader(lines):
                row = Row(*(float(line[name]) for name in _COLUMNS[3:9]))
                seeds = tuple(map(int, line["seeds"].split()))
                general = float(line["general"]) if line["general"] else None
                cells[int(line["source"]), line["variant"]] = Cell(seeds, row, general)
    return cells


def write_figures(file: Path, figures: Figures) -> None:
    """The table of all cells, in their order."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for (place, variant), cell in figures.items():
            row = cell.row
            values = [f"{value:.6g}" for value in (*values_of(row), row.p)]
            general = "" if cell.general is None else f"{cell.general:.6g}"
            writer.writerow([place, variant, " ".join(map(str, cell.seeds)), *values, general])


def values_of(row: Row) -> tuple[float, ...]:
    return row.base, row.adapted, row.difference, row.low, row.high

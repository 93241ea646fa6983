"""Two models compared by item: which answers changed, which became right and which became wrong.

Legend: n items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from domainclip.inference.explorer.answers import Answers
from domainclip.inference.explorer.view import Order, Outcome

NAMES: Mapping[Outcome, str] = {
    "changed": "Answer changed",
    "newly_right": "Newly right",
    "newly_wrong": "Newly wrong",
    "both_right": "Both right",
    "both_wrong": "Both wrong",
    "unknown": "Truth not known",
}


@dataclass(frozen=True)
class Compared:
    """The answers of two models for the same n items."""

    first: Answers
    second: Answers

    @cached_property
    def members(self) -> Mapping[Outcome, np.ndarray]:
        """(n,) bool for each outcome; the last five exclude each other."""
        known = self.first.known & self.second.known
        before, after = self.first.right, self.second.right
        return {
            "changed": self.first.keys != self.second.keys,
            "newly_right": known & ~before & after,
            "newly_wrong": known & before & ~after,
            "both_right": known & before & after,
            "both_wrong": known & ~before & ~after,
            "unknown": ~known,
        }

    @cached_property
    def outcomes(self) -> np.ndarray:
        """(n,) the outcome of each item, other than that its answer changed."""
        exclusive = {name: rows for name, rows in self.members.items() if name != "changed"}
        return np.select(list(exclusive.values()), list(exclusive), default="")

    def outcome(self, row: int) -> Outcome:
        """The outcome of one item, other than that its answer changed."""
        return str(self.outcomes[row])  # type: ignore[return-value]

    def counts(self, among: np.ndarray) -> dict[Outcome, int]:
        """The number of items with each outcome, among some rows."""
        return {name: int(rows[among].sum()) for name, rows in self.members.items()}

    def shares(self, among: np.ndarray) -> tuple[int, float, float]:
        """The number of items whose truth is known, and the share of right answers of each model."""
        rows = among[(self.first.known & self.second.known)[among]]
        if not len(rows):
            return 0, float("nan"), float("nan")
        return len(rows), float(self.first.hits[rows].mean()), float(self.second.hits[rows].mean())

    def order(self, rows: np.ndarray, by: Order) -> np.ndarray:
        """The rows by id, or those whose right answer gained or lost most ranks first; unknown ones last.

        Findings have no rank: those that became right, or wrong, come first.
        """
        if by == "id":
            return rows
        ranked = not np.isnan(self.first.ranks).all()
        change = self.second.ranks - self.first.ranks if ranked else self.first.hits - self.second.hits
        sign = 1.0 if by == "gain" else -1.0
        values = np.where(np.isnan(change), np.inf, sign * change)[rows]
        ordered: np.ndarray = rows[np.argsort(values, kind="stable")]
        return ordered

"""Where right answers stand among all answers, ties being broken by lot, in bounded memory.

Legend: q queries, m answers, d width. Queries and answers meet in tiles; the whole matrix never stands, so
100 000 by 100 000 needs as little memory as 1000 by 1000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import digamma, gammaln

BLOCK, TILE = 512, 4096  # queries and answers of one tile
_MEAN, _MOST = 50, 500  # right answers a query beyond which the mean precision costs too much
_SORTED = 8  # right answers a query beyond which sorting a tile costs less than comparing it for each
_FEW = 16  # first ranks for which ties are worked out factor by factor, exactly


@dataclass(frozen=True)
class Standing:
    """Where the best right answer of each of q queries stands: all that ranks with ties need."""

    above: np.ndarray  # (q,) answers that score higher, all of them wrong
    tied: np.ndarray  # (q,) answers that score the same, itself included
    right: np.ndarray  # (q,) right ones among the tied
    answers: np.ndarray  # (q,) right answers in the whole gallery
    size: int  # of the gallery
    precision: np.ndarray | None = None  # (q,) expected average precision, where it was worked out

    def hit(self, k: int) -> np.ndarray:
        """(q,) chances that a right answer is among the first k, ties being in random order.

        One less the chance that the places left for the tied all go to wrong ones, which is
        C(tied - right, places) / C(tied, places).
        """
        places = np.clip(k - self.above, 0, self.tied)
        wrong = self.tied - self.right
        if k > _FEW:
            gone = gammaln(wrong + 1) - gammaln(np.maximum(wrong - places, 0) + 1)
            missed = np.exp(gone - gammaln(self.tied + 1) + gammaln(self.tied - places + 1))
            found: np.ndarray = np.where(places > wrong, 1.0, np.where(places == 0, 0.0, 1 - missed))
            return found
        missed = np.ones(len(self.above))
        for i in range(k):
            factor = np.maximum(wrong - i, 0) / np.maximum(self.tied - i, 1)
            missed = np.where(i < places, missed * factor, missed)
        chances: np.ndarray = 1 - missed
        return chances

    def rank(self) -> np.ndarray:
        """(q,) expected rank of the first right answer, from 1."""
        ranks: np.ndarray = self.above + (self.tied + 1) / (self.right + 1)
        return ranks

    def blind(self) -> Standing:
        """The same queries for a model that knows nothing: the whole gallery is one tie."""
        none, everything = np.zeros_like(self.above), np.full_like(self.tied, self.size)
        precision = None
        if self.precision is not None:
            precision = precision_terms(none, everything, none, self.answers) / self.answers
        return Standing(none, everything, self.answers, self.answers, self.size, precision)

    def pick(self, queries: np.ndarray) -> Standing:
        """Some of the queries, or some of them several times."""
        above, tied, right, answers = (
            column[queries] for column in (self.above, self.tied, self.right, self.answers)
        )
        precision = None if self.precision is None else self.precision[queries]
        return Standing(above, tied, right, answers, self.size, precision)


def precision_terms(
    above: np.ndarray, tied: np.ndarray, earlier: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """What a tie adds to the expected sum of precisions at right answers [doi:10.1007/978-3-540-78646-7_38].

    `above` answers come before the tie, `earlier` of them right; `right` of the `tied` are right. At place i
    of the tie, a right answer (chance r/n) has on average t + 1 + (i-1)(r-1)/(n-1) right ones up to itself,
    among s + i; the sums over i are harmonic numbers.
    """
    s, n, t, r = (np.asarray(value, dtype=np.float64) for value in (above, tied, earlier, right))
    harmonic = np.where(n == 1, 1 / (s + 1), digamma(s + n + 1) - digamma(s + 1))
    others = (r - 1) / np.maximum(n - 1, 1) * (n - (s + 1) * harmonic)
    terms: np.ndarray = r / n * ((t + 1) * harmonic + others)
    return terms


def search(queries: np.ndarray, answers: np.ndarray, truths: Sequence[csr_matrix]) -> list[Standing]:
    """How the answers of each truth (q, m) stand; every query has a right answer in each of them.

    Unit embeddings (q, d) and (m, d); several truths share the comparisons.
    """
    queries, answers = queries.astype(np.float64), answers.astype(np.float64)
    found: list[list[np.ndarray]] = [[] for _ in truths]
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, min(start + BLOCK, len(queries)))
        sought = [_right_cosines(queries[rows], answers, truth[rows]) for truth in truths]
        counts = [np.zeros((2, *one.shape)) for one in sought]
        for left in range(0, len(answers), TILE):
            cosines = np.round(queries[rows] @ answers[left : left + TILE].T, 6)
            for one, count, truth in zip(sought, counts, truths, strict=True):
                _count(cosines, one, count, all_ranks(truth))
        for parts, one, count, truth in zip(found, sought, counts, truths, strict=True):
            parts.append(_standing(one, count[0], count[1], all_ranks(truth)))
    return [_joined(parts, truth, len(answers)) for parts, truth in zip(found, truths, strict=True)]


def all_ranks(truth: csr_matrix) -> bool:
    """Whether every right answer is ranked, as the mean precision needs, or only the best."""
    each = np.diff(truth.indptr)
    return bool(each.mean() <= _MEAN and each.max() <= _MOST)


def _right_cosines(queries: np.ndarray, answers: np.ndarray, truth: csr_matrix) -> np.ndarray:
    """(q, most right answers a query) cosines, best first, NaN where a query has fewer.

    Rounded, for single-precision towers do not mean more than six digits: what is closer is a tie.
    """
    each = np.diff(truth.indptr)
    rows = np.repeat(np.arange(len(queries)), each)
    padded = np.full((len(queries), int(each.max())), -np.inf)
    place = np.arange(len(rows)) - np.repeat(truth.indptr[:-1], each)
    for start in range(0, len(rows), BLOCK * 16):
        part = slice(start, start + BLOCK * 16)
        pairs = np.einsum("ij,ij->i", queries[rows[part]], answers[truth.indices[part]])
        padded[rows[part], place[part]] = np.round(pairs, 6)
    padded = -np.sort(-padded, axis=1)
    padded[np.isinf(padded)] = np.nan
    return padded


def _count(cosines: np.ndarray, sought: np.ndarray, count: np.ndarray, every: bool) -> None:
    """Adds, for each right answer, how many of these answers score higher, and how many the same."""
    if every and sought.shape[1] > _SORTED:
        return _count_sorted(cosines, sought, count)
    for j in range(sought.shape[1] if every else 1):
        asking = np.flatnonzero(~np.isnan(sought[:, j]))
        among = cosines if len(asking) == len(cosines) else cosines[asking]
        limit = sought[asking, j, None]
        count[0, asking, j] += (among > limit).sum(axis=1)
        count[1, asking, j] += (among == limit).sum(axis=1)


def _count_sorted(cosines: np.ndarray, sought: np.ndarray, count: np.ndarray) -> None:
    """The same by sorting each row once, where there are too many right answers to compare with each."""
    rows, places = np.nonzero(~np.isnan(sought))
    # Rows are moved apart, so that one search serves all of them; of six digits that leaves enough.
    span = 1 + 2 * max(float(np.abs(cosines).max()), float(np.nanmax(np.abs(sought))))
    apart = span * np.arange(len(cosines))
    limits = sought[rows, places] + apart[rows]
    row = np.sort(cosines + apart[:, None], axis=1).ravel()
    upto = np.searchsorted(row, limits, side="right")
    count[0, rows, places] += (rows + 1) * cosines.shape[1] - upto
    count[1, rows, places] += upto - np.searchsorted(row, limits, side="left")


def _standing(sought: np.ndarray, above: np.ndarray, tied: np.ndarray, every: bool) -> np.ndarray:
    """(4, q): above, tied and right of the best, and the expected sum of precisions."""
    best = (sought == sought[:, :1]).sum(axis=1)
    sums = np.full(len(sought), np.nan)
    if every:
        sums = np.zeros(len(sought))
        for j in range(sought.shape[1]):
            asking = np.flatnonzero(~np.isnan(sought[:, j]))
            own = sought[asking]
            same = (own == own[:, j : j + 1]).sum(axis=1)
            earlier = (own > own[:, j : j + 1]).sum(axis=1)
            # Each of the r right answers in a tie is visited, so each brings an r-th of what the tie adds.
            sums[asking] += precision_terms(above[asking, j], tied[asking, j], earlier, same) / same
    return np.stack([above[:, 0], np.maximum(tied[:, 0], best), best, sums])


def _joined(parts: list[np.ndarray], truth: csr_matrix, size: int) -> Standing:
    above, tied, right, sums = np.concatenate(parts, axis=1)
    answers = np.diff(truth.indptr).astype(np.float64)
    precision = None if np.isnan(sums).any() else sums / answers
    return Standing(above, tied, right, answers, size, precision)

"""Ranks of the relevant answers among all answers, with ties in random order, in bounded memory.

Legend: q queries, m answers, d width. Cosines are computed in tiles, never as a whole matrix, so 100 000 by
100 000 needs as little memory as 1000 by 1000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import digamma, gammaln

BLOCK, TILE = 512, 4096  # queries and answers of one tile
NDCG_AT = 10  # the first answers that nDCG counts
_DISCOUNTS = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, NDCG_AT + 2)))])  # of the first 0 to 10
# Relevant answers per query, mean and maximum, beyond which ranking each of them costs too much.
_MAX_MEAN_RELEVANT, _MAX_RELEVANT = 50, 500
_MAX_COMPARED = 8  # relevant answers per query beyond which sorting a tile costs less than comparing
_MAX_COUNTS = 2_000_000  # counts by query, part and relevant answer at a time
_MAX_EXACT = 16  # ranks up to which the hit probability of ties is an exact product


@dataclass(frozen=True)
class FullScores:
    """Scores of each of q queries that need the rank of every relevant answer, with ties in random order.

    All three are expected values over the orders of the ties. R-precision: the share of relevant answers
    among the first R, where R answers are relevant. nDCG: the sum of 1/log2(1 + rank) over the relevant
    answers among the first ten, divided by that of the best order [doi:10.1145/582415.582418].
    """

    average_precision: np.ndarray
    r_precision: np.ndarray
    ndcg: np.ndarray

    def take(self, queries: np.ndarray) -> FullScores:
        """The scores of these queries; a query may occur several times."""
        return FullScores(
            self.average_precision[..., queries], self.r_precision[..., queries], self.ndcg[..., queries]
        )


@dataclass(frozen=True)
class Ranks:
    """The rank of the best relevant answer of each of q queries, with its ties.

    `without`: the same without the answers of each of p parts; its counts and scores are (p, q).
    """

    above: np.ndarray  # (q,) answers with a higher score, none of them relevant
    tied: np.ndarray  # (q,) answers with an equal score, itself included
    relevant_tied: np.ndarray  # (q,) relevant ones among the tied
    relevant: np.ndarray  # (q,) relevant answers in the whole gallery
    size: int  # of the gallery
    full: FullScores | None = None  # None where not every relevant answer is ranked
    without: Ranks | None = None

    def hits_at(self, k: int) -> np.ndarray:
        """(q,) probability that a relevant answer is among the first k, with ties in random order.

        1 minus the probability that the slots left for the tied all go to irrelevant ones, which is
        C(tied - relevant_tied, slots) / C(tied, slots).
        """
        slots = np.clip(k - self.above, 0, self.tied)
        irrelevant = self.tied - self.relevant_tied
        if k > _MAX_EXACT:
            log_ratio = gammaln(irrelevant + 1) - gammaln(np.maximum(irrelevant - slots, 0) + 1)
            miss_chance = np.exp(log_ratio - gammaln(self.tied + 1) + gammaln(self.tied - slots + 1))
            hit_chance: np.ndarray = np.where(
                slots > irrelevant, 1.0, np.where(slots == 0, 0.0, 1 - miss_chance)
            )
            return hit_chance
        miss_chance = np.ones(self.above.shape)
        for i in range(k):
            factor = np.maximum(irrelevant - i, 0) / np.maximum(self.tied - i, 1)
            miss_chance = np.where(i < slots, miss_chance * factor, miss_chance)
        chances: np.ndarray = 1 - miss_chance
        return chances

    def expected_rank(self) -> np.ndarray:
        """(q,) expected rank of the first relevant answer, from 1."""
        ranks: np.ndarray = self.above + (self.tied + 1) / (self.relevant_tied + 1)
        return ranks

    def take(self, queries: np.ndarray) -> Ranks:
        """The ranks of these queries; a query may occur several times."""
        above, tied, relevant_tied, relevant = (
            column[..., queries] for column in (self.above, self.tied, self.relevant_tied, self.relevant)
        )
        full = None if self.full is None else self.full.take(queries)
        without = None if self.without is None else self.without.take(queries)
        return Ranks(above, tied, relevant_tied, relevant, self.size, full, without)


def precision_terms(
    above: np.ndarray, tied: np.ndarray, earlier: np.ndarray, relevant_tied: np.ndarray
) -> np.ndarray:
    """The term of a tie in the expected sum of precisions at hits [doi:10.1007/978-3-540-78646-7_38].

    `above` answers precede the tie, `earlier` of them relevant; of the `tied`, `relevant_tied` are relevant.
    At position i of the tie, a relevant answer (probability r/n) has on average t + 1 + (i-1)(r-1)/(n-1)
    relevant ones up to itself, among s + i; the sums over i are harmonic numbers.
    """
    s, n, t, r = (np.asarray(value, dtype=np.float64) for value in (above, tied, earlier, relevant_tied))
    harmonic = np.where(n == 1, 1 / (s + 1), digamma(s + n + 1) - digamma(s + 1))
    others = (r - 1) / np.maximum(n - 1, 1) * (n - (s + 1) * harmonic)
    terms: np.ndarray = r / n * ((t + 1) * harmonic + others)
    return terms


def rank_answers(
    queries: np.ndarray, answers: np.ndarray, truths: Sequence[csr_matrix], parts: np.ndarray | None = None
) -> list[Ranks]:
    """The ranks under each truth (q, m), a matrix of the relevant answers of each query, at least one.

    Unit embeddings (q, d) and (m, d); several truths share the comparisons. `parts` (m,) are numbers from 0:
    with them, the ranks under the first truth are also given without the answers of each part. Those of a
    query without its own part, which has relevant answers, have no meaning.
    """
    queries, answers = queries.astype(np.float64), answers.astype(np.float64)
    blocks: list[list[np.ndarray]] = [[] for _ in truths]
    divided = [parts, *[None] * (len(truths) - 1)]
    step = _queries_at_once(truths[0], parts)
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        relevant_cosines = [_relevant_cosines(queries[rows], answers, truth[rows]) for truth in truths]
        counts = [
            np.zeros((2, 1 if of is None else int(of.max()) + 1, *cosines.shape))
            for cosines, of in zip(relevant_cosines, divided, strict=True)
        ]
        for left in range(0, len(answers), TILE):
            cosines = np.round(queries[rows] @ answers[left : left + TILE].T, 6)
            for targets, count, truth, of in zip(relevant_cosines, counts, truths, divided, strict=True):
                here = None if of is None else of[left : left + TILE]
                _add_counts(cosines, targets, count, ranks_every_answer(truth), here)
        for block, targets, count, truth, of in zip(
            blocks, relevant_cosines, counts, truths, divided, strict=True
        ):
            whole = count.sum(axis=1, keepdims=True)
            counted = whole if of is None else np.concatenate([whole, whole - count], axis=1)
            block.append(_block_ranks(targets, counted[0], counted[1], ranks_every_answer(truth)))
    return [_concatenate(block, truth, len(answers)) for block, truth in zip(blocks, truths, strict=True)]


def _queries_at_once(truth: csr_matrix, parts: np.ndarray | None) -> int:
    """Fewer than `BLOCK` where the counts by part and relevant answer would take much memory."""
    if parts is None:
        return BLOCK
    relevant = int(np.diff(truth.indptr).max()) if ranks_every_answer(truth) else 1
    return max(1, min(BLOCK, _MAX_COUNTS // (relevant * (int(parts.max()) + 2))))


def commonest_first(truth: csr_matrix, queries: np.ndarray | None = None) -> Ranks:
    """The ranks under a truth (q, m) of a model without knowledge: always the commonest answer first.

    An answer is as common as it is relevant, over all queries, each of which occurs `queries` (q,) times, by
    default once. Equally common answers are a tie; where all are, this is a random order.
    """
    weights = np.ones(truth.shape[0]) if queries is None else queries
    frequency = np.asarray(truth.T @ weights, dtype=np.float64).ravel()
    ascending, size, every = np.sort(frequency), len(frequency), ranks_every_answer(truth)
    blocks = []
    for start in range(0, truth.shape[0], BLOCK):
        rows = truth[start : start + BLOCK]
        targets = _best_first(rows, frequency[rows.indices])
        upto = np.searchsorted(ascending, targets, side="right")
        tied = upto - np.searchsorted(ascending, targets, side="left")
        above, tied = (size - upto).astype(float)[None], tied.astype(float)[None]
        blocks.append(_block_ranks(targets, above, tied, every))
    return _concatenate(blocks, truth, size)


def ranks_every_answer(truth: csr_matrix) -> bool:
    """Whether every relevant answer is ranked, as `FullScores` need, or only the best."""
    per_query = np.diff(truth.indptr)
    return bool(per_query.mean() <= _MAX_MEAN_RELEVANT and per_query.max() <= _MAX_RELEVANT)


def _relevant_cosines(queries: np.ndarray, answers: np.ndarray, truth: csr_matrix) -> np.ndarray:
    """(q, maximum of relevant answers per query) cosines, best first, NaN where a query has fewer.

    Rounded to six decimals, the accuracy of single-precision embeddings: closer cosines are ties.
    """
    rows = np.repeat(np.arange(len(queries)), np.diff(truth.indptr))
    values = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK * 16):
        part = slice(start, start + BLOCK * 16)
        pairs = np.einsum("ij,ij->i", queries[rows[part]], answers[truth.indices[part]])
        values[part] = np.round(pairs, 6)
    return _best_first(truth, values)


def _best_first(truth: csr_matrix, values: np.ndarray) -> np.ndarray:
    """The values of the entries of a truth (q, m), best first in each row; NaN where a row has fewer."""
    per_query = np.diff(truth.indptr)
    padded = np.full((len(per_query), int(per_query.max())), -np.inf)
    rows = np.repeat(np.arange(len(per_query)), per_query)
    padded[rows, np.arange(len(rows)) - np.repeat(truth.indptr[:-1], per_query)] = values
    padded = -np.sort(-padded, axis=1)
    padded[np.isinf(padded)] = np.nan
    return padded


def _add_counts(
    cosines: np.ndarray,
    relevant_cosines: np.ndarray,
    count: np.ndarray,
    every: bool,
    parts: np.ndarray | None = None,
) -> None:
    """Adds, for each relevant answer, the number of these answers with a higher and with an equal score.

    To counts (2, p, q, r), by part of the answers; without `parts` all are one.
    """
    part = np.zeros(cosines.shape[1], dtype=int) if parts is None else parts
    if every and relevant_cosines.shape[1] > _MAX_COMPARED:
        for number in np.unique(part):
            _add_counts_sorted(cosines[:, part == number], relevant_cosines, count[:, number])
        return
    of_part = (part[:, None] == np.arange(count.shape[1])).astype(np.float32)  # sums stay exact below 2²⁴
    for j in range(relevant_cosines.shape[1] if every else 1):
        with_jth = np.flatnonzero(~np.isnan(relevant_cosines[:, j]))
        candidates = cosines if len(with_jth) == len(cosines) else cosines[with_jth]
        limit = relevant_cosines[with_jth, j, None]
        for side, counted in enumerate((candidates > limit, candidates == limit)):
            if parts is None:
                count[side, 0, with_jth, j] += counted.sum(axis=1)
            else:
                count[side, :, with_jth, j] += counted.astype(np.float32) @ of_part


def _add_counts_sorted(cosines: np.ndarray, relevant_cosines: np.ndarray, count: np.ndarray) -> None:
    """The same by sorting each row once, for too many relevant answers to compare with each."""
    rows, columns = np.nonzero(~np.isnan(relevant_cosines))
    # Rows are offset to disjoint ranges, so that one search serves all; six decimals stay exact.
    span = 1 + 2 * max(float(np.abs(cosines).max()), float(np.nanmax(np.abs(relevant_cosines))))
    offsets = span * np.arange(len(cosines))
    limits = relevant_cosines[rows, columns] + offsets[rows]
    scores = np.sort(cosines + offsets[:, None], axis=1).ravel()
    upto = np.searchsorted(scores, limits, side="right")
    count[0, rows, columns] += (rows + 1) * cosines.shape[1] - upto
    count[1, rows, columns] += upto - np.searchsorted(scores, limits, side="left")


def _block_ranks(
    relevant_cosines: np.ndarray, above: np.ndarray, tied: np.ndarray, every: bool
) -> np.ndarray:
    """(6, 1 + p, q): above, tied and relevant_tied of the best, and the expected sums of `_full_sums`.

    The counts (1 + p, q, r) are those of the whole gallery, and then without each part, if there are any.
    """
    best = np.broadcast_to((relevant_cosines == relevant_cosines[:, :1]).sum(axis=1), above.shape[:2])
    sums = np.full((3, *above.shape[:2]), np.nan)
    if every:
        sums = _full_sums(relevant_cosines, above, tied)
    return np.stack([above[..., 0], np.maximum(tied[..., 0], best), best, *sums])


def _full_sums(relevant_cosines: np.ndarray, above: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """(3, 1 + p, q): expected sums of precisions, of relevant of the first R answers, of discounted gains."""
    sums, relevant = np.zeros((3, *above.shape[:2])), (~np.isnan(relevant_cosines)).sum(axis=1)
    for j in range(relevant_cosines.shape[1]):
        with_jth = np.flatnonzero(~np.isnan(relevant_cosines[:, j]))
        row_cosines, start = relevant_cosines[with_jth], above[:, with_jth, j]
        equal = (row_cosines == row_cosines[:, j : j + 1]).sum(axis=1)
        earlier = (row_cosines > row_cosines[:, j : j + 1]).sum(axis=1)
        size = np.maximum(tied[:, with_jth, j], equal)
        # The loop visits each of the r relevant answers in a tie, so each adds an r-th of its term.
        sums[0][:, with_jth] += precision_terms(start, size, earlier, equal) / equal
        sums[1][:, with_jth] += np.clip(relevant[with_jth] - start, 0, size) / size
        first, last = (np.minimum(rank, NDCG_AT).astype(int) for rank in (start, start + size))
        sums[2][:, with_jth] += (_DISCOUNTS[last] - _DISCOUNTS[first]) / size
    return sums


def _concatenate(parts: list[np.ndarray], truth: csr_matrix, size: int) -> Ranks:
    counts = np.concatenate(parts, axis=2)
    per_query = np.diff(truth.indptr)
    relevant, best_gain = per_query.astype(np.float64), _DISCOUNTS[np.minimum(per_query, NDCG_AT)]

    def ranks(counted: np.ndarray) -> Ranks:
        above, tied, relevant_tied, *sums = counted
        full = None
        if not np.isnan(sums).any():
            full = FullScores(sums[0] / relevant, sums[1] / relevant, sums[2] / best_gain)
        return Ranks(above, tied, relevant_tied, relevant, size, full)

    whole = ranks(counts[:, 0])
    return whole if counts.shape[1] == 1 else replace(whole, without=ranks(counts[:, 1:]))

from __future__ import annotations

import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, ndcg_score
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_r_precision,
    retrieval_recall,
)

from domainclip.evaluation.metrics import ranking
from domainclip.evaluation.metrics.ranking import FullScores, Ranks


def full(ranks: Ranks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert ranks.full is not None
    return ranks.full.average_precision, ranks.full.r_precision, ranks.full.ndcg


@pytest.mark.parametrize(("above", "tied"), list(product(range(4), range(1, 5))))
def test_ties_are_the_mean_over_all_their_orders(above: int, tied: int) -> None:
    """Fault 39. The mean over every order of the tied answers."""
    for right in range(1, tied + 1):
        one_right = np.array([right])
        ranks = Ranks(np.array([above]), np.array([tied]), one_right, one_right, size=12)
        firsts = [order.index(True) for order in permutations([True] * right + [False] * (tied - right))]
        assert ranks.expected_rank() == pytest.approx(np.mean([above + first + 1 for first in firsts]))
        for k in range(1, 9):
            assert ranks.hits_at(k) == pytest.approx(np.mean([above + first < k for first in firsts]))


def expected_precision(tied: int, right: int, above: int, earlier: int) -> float:
    """The mean over all orders of a tie of the sum of precisions at its relevant answers."""
    sums = []
    for order in set(permutations([True] * right + [False] * (tied - right))):
        hits, total = earlier, 0.0
        for place, good in enumerate(order):
            if good:
                hits += 1
                total += hits / (above + place + 1)
        sums.append(total)
    return float(np.mean(sums))


@pytest.mark.parametrize(("tied", "above"), list(product(range(1, 6), (0, 1, 4))))
def test_precision_of_ties_is_the_mean_over_all_their_orders(tied: int, above: int) -> None:
    for right, earlier in product(range(1, tied + 1), range(min(above, 2) + 1)):
        counts = [np.array([value]) for value in (above, tied, earlier, right)]
        terms = ranking.precision_terms(*counts)
        assert terms == pytest.approx(expected_precision(tied, right, above, earlier))


@pytest.mark.parametrize("k", [17, 20, 30])
def test_hits_at_large_k_equal_the_product_of_factors(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(k)
    tied = rng.integers(1, 25, 200)
    right = np.minimum(tied, rng.integers(1, 6, 200))
    ranks = Ranks(rng.integers(0, 35, 200), tied, right, right, 60)
    quick = ranks.hits_at(k)
    monkeypatch.setattr(ranking, "_MAX_EXACT", 100)
    assert quick == pytest.approx(ranks.hits_at(k), abs=1e-9)


def test_reference_values_of_torchmetrics() -> None:
    """p = [.9, .8, .7, .1], t = [1, 0, 1, 1]: hit@2 is 1, mAP 0.805556."""
    cosines = np.array([[0.9, 0.8, 0.7, 0.1]])
    (found,) = ranking.rank_answers(np.eye(1), cosines.T, [csr_matrix([[True, False, True, True]])])
    assert full(found)[0] == pytest.approx([0.805556], abs=5e-7)
    assert found.hits_at(2).tolist() == [1.0]
    (flat,) = ranking.rank_answers(np.eye(1), np.zeros((10, 1)), [csr_matrix(np.eye(10, dtype=bool)[:1])])
    assert flat.hits_at(1) == pytest.approx([0.1])  # a collapsed model, where sorting gives 0.1 or 1.0


@pytest.mark.parametrize("seed", range(8))
def test_mean_precision_equals_scikit_learn_and_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, answers = rng.normal(size=(9, 4)), rng.normal(size=(31, 4))
    truth = rng.random((9, 31)) < 0.15
    truth[np.arange(9), rng.integers(0, 31, 9)] = True
    (found,) = ranking.rank_answers(queries, answers, [csr_matrix(truth)])
    cosines = np.round(queries @ answers.T, 6)
    expected = [average_precision_score(row, scores) for row, scores in zip(truth, cosines, strict=True)]
    assert full(found)[0] == pytest.approx(expected)
    # torchmetrics ignores scores below 0, so it gets ranks.
    theirs = [
        float(retrieval_average_precision(torch.tensor(rankdata(scores)), torch.tensor(row)))
        for row, scores in zip(truth, cosines, strict=True)
    ]
    assert full(found)[0] == pytest.approx(theirs, abs=1e-5)


def queries_with_truth(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines (9, 31), their truth, and the cosines as ranks: torchmetrics ignores scores below 0."""
    rng = np.random.default_rng(seed)
    cosines = np.round(rng.uniform(-1, 1, (9, 31)), 1 if ties else 6)
    truth = rng.random((9, 31)) < 0.15
    truth[np.arange(9), rng.integers(0, 31, 9)] = True
    return cosines, truth, rankdata(cosines, axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_without_ties_every_figure_equals_torchmetrics_and_scikit_learn(seed: int) -> None:
    """R@k is their hit rate; their recall is the share of all relevant answers, which is another figure."""
    cosines, truth, scores = queries_with_truth(seed, ties=False)
    (found,) = ranking.rank_answers(np.eye(9), cosines.T, [csr_matrix(truth)])
    precision, r_precision, ndcg = full(found)
    pairs = [(torch.tensor(row), torch.tensor(right)) for row, right in zip(scores, truth, strict=True)]
    for k in (1, 5, 10):
        assert found.hits_at(k).tolist() == [float(retrieval_hit_rate(*pair, top_k=k)) for pair in pairs]
    several = int(np.argmax(truth.sum(axis=1)))
    assert float(retrieval_recall(*pairs[several], top_k=1)) < 1 <= truth[several].sum() / 2
    assert r_precision == pytest.approx([float(retrieval_r_precision(*pair)) for pair in pairs])
    theirs = [float(retrieval_normalized_dcg(*pair, top_k=10)) for pair in pairs]
    assert ndcg == pytest.approx(theirs, abs=1e-6)
    assert ndcg.mean() == pytest.approx(ndcg_score(truth, scores, k=10))
    # Theirs is the mean over relevant answers of the same precisions.
    assert precision.mean() == pytest.approx(label_ranking_average_precision_score(truth, scores))


@pytest.mark.parametrize("seed", range(4))
def test_ties_of_ndcg_are_those_of_scikit_learn(seed: int) -> None:
    """Both average over the orders of a tie, also of one across the tenth place."""
    cosines, truth, _ = queries_with_truth(seed, ties=True)
    (found,) = ranking.rank_answers(np.eye(9), cosines.T, [csr_matrix(truth)])
    assert found.tied.max() > 1
    expected = [ndcg_score(truth[[i]], cosines[[i]] + 1, k=10) for i in range(9)]
    assert full(found)[2] == pytest.approx(expected)


@pytest.mark.parametrize(("above", "tied"), list(product(range(3), range(1, 5))))
def test_ties_of_r_precision_are_the_mean_over_all_their_orders(above: int, tied: int) -> None:
    """torchmetrics takes the order in which equal scores were given. One relevant answer precedes the tie."""
    for right in range(1, tied + 1):
        first = [True, *[False] * above]
        tie = [True] * right + [False] * (tied - right)
        cosines = np.array([[*np.linspace(0.9, 0.5, above + 1), *[0.1] * tied, -0.5]])
        truth = csr_matrix(np.array([[*first, *tie, False]]))
        (found,) = ranking.rank_answers(np.eye(1), cosines.T, [truth])
        size = 1 + right
        orders = [np.mean([*first, *order, False][:size]) for order in permutations(tie)]
        assert full(found)[1] == pytest.approx([np.mean(orders)])


@pytest.mark.parametrize(("block", "tile"), [(1, 1), (3, 5), (64, 7), (512, 4096)])
def test_tiles_of_any_size_give_the_same_digits(
    block: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    # Few distinct vectors, so many ties, and queries with one to seven relevant answers.
    queries, answers = (
        rng.normal(size=(6, 3))[rng.integers(0, 6, 40)],
        rng.normal(size=(9, 3))[rng.integers(0, 9, 67)],
    )
    truth = rng.random((40, 67)) < rng.random((40, 1)) * 0.1
    truth[np.arange(40), rng.integers(0, 67, 40)] = True
    other = np.roll(truth, 1, axis=0)
    plain = ranking.rank_answers(queries, answers, [csr_matrix(truth), csr_matrix(other)])
    monkeypatch.setattr(ranking, "BLOCK", block)
    monkeypatch.setattr(ranking, "TILE", tile)
    tiled = ranking.rank_answers(queries, answers, [csr_matrix(truth), csr_matrix(other)])
    for one, two in zip(plain, tiled, strict=True):
        for name in ("above", "tied", "relevant_tied", "relevant"):
            assert (getattr(one, name) == getattr(two, name)).all(), name
        assert all((a == b).all() for a, b in zip(full(one), full(two), strict=True))


def test_memory_does_not_grow_with_the_gallery() -> None:
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(20_000, 8)).astype(np.float32)
    truth = csr_matrix((np.ones(600, dtype=bool), (np.arange(600), np.arange(600))), shape=(600, 20_000))
    tracemalloc.start()
    ranking.rank_answers(texts[:600], texts, [truth])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600 * 20_000 * 8  # less than the whole matrix


def test_sorting_gives_the_same_ranks_as_comparing_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, answers = rng.normal(size=(2, 700, 3)) / 3
    queries, answers = queries[:90], np.round(answers, 1)  # with ties
    truth = rng.random((90, 700)) < np.linspace(0.002, 0.06, 90)[:, None]
    truth[:, 0] = True
    monkeypatch.setattr(ranking, "BLOCK", 40)
    monkeypatch.setattr(ranking, "TILE", 300)
    sorted_once = []
    count = ranking._add_counts_sorted
    monkeypatch.setattr(ranking, "_add_counts_sorted", lambda *args: sorted_once.append(1) or count(*args))
    (found,) = ranking.rank_answers(queries, answers, [csr_matrix(truth)])
    assert len(sorted_once) == 9  # three blocks by three tiles
    monkeypatch.setattr(ranking, "_MAX_COMPARED", 1000)
    (expected,) = ranking.rank_answers(queries, answers, [csr_matrix(truth)])
    assert len(sorted_once) == 9
    for name in ("above", "tied", "relevant_tied"):
        assert (getattr(found, name) == getattr(expected, name)).all()
    assert all((a == b).all() for a, b in zip(full(found), full(expected), strict=True))
    assert found.tied.max() > 1


@pytest.mark.parametrize("block", [1, 512])
def test_the_commonest_answer_first(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relevant: 0, 0, 1, and 1 with 2. So 0 and 1 are a tie before 2, and 3, which is never relevant."""
    monkeypatch.setattr(ranking, "BLOCK", block)
    truth = csr_matrix(np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]], dtype=bool))
    found = ranking.commonest_first(truth)
    assert found.expected_rank().tolist() == [1.5, 1.5, 1.5, 1.5]
    assert found.hits_at(1).tolist() == [0.5] * 4
    # One of two tied answers: (1 + 1/2)/2 in the mean; the second relevant answer is at rank 3.
    assert full(found)[0] == pytest.approx([0.75, 0.75, 0.75, (0.75 + 2 / 3) / 2])
    assert (found.relevant.tolist(), found.size) == ([1, 1, 1, 2], 4)
    # With the third query four times, 1 precedes 0.
    weighted = ranking.commonest_first(truth, np.array([1.0, 1, 4, 1]))
    assert (weighted.above.tolist(), weighted.tied.tolist()) == ([1, 1, 0, 0], [1, 1, 1, 1])
    assert full(weighted)[0] == pytest.approx([1 / 2, 1 / 2, 1, (1 + 2 / 3) / 2])


def test_equally_common_answers_are_one_tie() -> None:
    """Five queries with an answer each: a random order, with the mean of 1, 1/2 … 1/5 as precision."""
    found = ranking.commonest_first(csr_matrix(np.eye(5, dtype=bool)))
    assert found.expected_rank().tolist() == [3.0] * 5
    assert found.hits_at(2) == pytest.approx([2 / 5] * 5)
    assert full(found)[0] == pytest.approx([np.mean([1 / i for i in range(1, 6)])] * 5)


def test_taken_queries_may_repeat() -> None:
    columns = [np.array([0.0, 3.0]), np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([4.0, 5.0])]
    scores = FullScores(np.array([0.5, 0.25]), np.array([0.1, 0.2]), np.array([0.3, 0.4]))
    taken = Ranks(*columns, 9, scores).take(np.array([1, 0, 1]))
    assert [taken.above.tolist(), taken.tied.tolist()] == [[3, 0, 3], [2, 1, 2]]
    assert [taken.relevant_tied.tolist(), taken.relevant.tolist()] == [[2, 1, 2], [5, 4, 5]]
    assert taken.size == 9
    assert [values.tolist() for values in full(taken)] == [
        [0.25, 0.5, 0.25],
        [0.2, 0.1, 0.2],
        [0.4, 0.3, 0.4],
    ]
    assert Ranks(*columns, 9).take(np.array([0])).full is None


@pytest.mark.parametrize(
    ("relevant", "measured"),
    [([50], True), ([51], False), ([500] + [1] * 10, True), ([501] + [1] * 10, False)],
)
def test_the_average_precision_is_left_out_where_it_costs_too_much(
    relevant: list[int], measured: bool
) -> None:
    """More than 50 relevant answers a query in the mean, or 500 for one: only the best is ranked."""
    answers = np.linspace(1, -1, 510)[:, None]  # cosines in descending order, all different
    rows = np.repeat(np.arange(len(relevant)), relevant)
    columns = np.concatenate([np.arange(2, 2 + count) for count in relevant])
    truth = csr_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(relevant), 510))
    assert ranking.ranks_every_answer(truth) is measured
    (found,) = ranking.rank_answers(np.ones((len(relevant), 1)), answers, [truth])
    assert (found.full is not None) is measured
    assert found.above.tolist() == [2.0] * len(relevant)  # two answers precede the best relevant one
    assert found.tied.tolist() == found.relevant_tied.tolist() == [1.0] * len(relevant)
    assert found.relevant.tolist() == relevant
    assert found.size == 510


def test_equal_relevant_answers_are_one_tie() -> None:
    """Cosines .9 .5 .5 .5 .1, relevant the second, third and last: rank and precision by hand."""
    cosines, truth = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), csr_matrix([[False, True, True, False, True]])
    (found,) = ranking.rank_answers(np.eye(1), cosines[:, None], [truth])
    counts = (found.above.tolist(), found.tied.tolist(), found.relevant_tied.tolist())
    assert counts == ([1.0], [3.0], [2.0])
    assert found.expected_rank().tolist() == [1 + 4 / 3]
    # The tie in its three orders (RRI, RIR, IRR): 1/2 + 2/3, 1/2 + 2/4, 1/3 + 2/4; then 3 of 5.
    mean_of_orders = (1 / 2 + 2 / 3 + 1 / 2 + 2 / 4 + 1 / 3 + 2 / 4) / 3
    assert full(found)[0] == pytest.approx([(mean_of_orders + 3 / 5) / 3])


def test_cosines_within_six_decimals_are_ties() -> None:
    answers = np.array([[0.5000004], [0.5], [0.500002]])
    (found,) = ranking.rank_answers(np.eye(1), answers, [csr_matrix([[False, True, False]])])
    assert (found.above.tolist(), found.tied.tolist()) == ([1.0], [2.0])


@pytest.mark.parametrize("compared", [0, 1000])
def test_rows_at_the_ends_of_the_range_do_not_touch(compared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines of 1 and -1 in adjacent rows, in tiles whose range is smaller than that of the relevant answers."""
    monkeypatch.setattr(ranking, "TILE", 2)
    monkeypatch.setattr(ranking, "_MAX_COMPARED", compared)
    queries, answers = np.array([[1.0], [-1.0], [1.0]]), np.array([[1.0], [-1.0], [0.1], [-0.1]])
    truth = csr_matrix([[True, False, False, True], [True, False, False, True], [False, True, True, False]])
    (found,) = ranking.rank_answers(queries, answers, [truth])
    assert (found.above.tolist(), found.tied.tolist()) == ([0.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    # Relevant at ranks 1 and 3, 2 and 4, 2 and 4.
    assert full(found)[0] == pytest.approx([(1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2, (1 / 2 + 2 / 4) / 2])


def test_many_relevant_answers_of_one_query_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "BLOCK", 1)
    answers = np.linspace(1, -1, 60)[:, None]
    truth = csr_matrix(np.arange(60)[None] >= 20)  # ranks 21 to 60
    (found,) = ranking.rank_answers(np.ones((1, 1)), answers, [truth])
    assert (found.above.tolist(), found.relevant.tolist()) == ([20.0], [40.0])
    assert full(found)[0] == pytest.approx([np.mean([i / (20 + i) for i in range(1, 41)])])


@pytest.mark.parametrize(("decimals", "most"), [(6, 1), (1, 3), (1, 12)])
def test_ranks_without_a_part_are_those_of_the_smaller_gallery(decimals: int, most: int) -> None:
    """Each part removed in turn, with ties and several relevant answers; 12 take the sorted path."""
    rng = np.random.default_rng(most)
    part_of_query = rng.integers(4, size=20)
    parts = np.repeat(part_of_query, 3)
    truth = np.zeros((20, 60), dtype=bool)
    for query, part in enumerate(part_of_query):
        truth[query, rng.permutation(np.flatnonzero(parts == part))[: 1 + rng.integers(most)]] = True
    queries, answers = (rng.normal(size=(n, 3)).round(decimals) for n in (20, 60))
    (whole,) = ranking.rank_answers(queries, answers, [csr_matrix(truth)], parts)
    (plain,) = ranking.rank_answers(queries, answers, [csr_matrix(truth)])
    for score in (Ranks.expected_rank, lambda ranks: ranks.hits_at(5), lambda ranks: np.stack(full(ranks))):
        assert score(whole) == pytest.approx(score(plain))
        assert whole.without is not None
        without = score(whole.without)
        for part in range(4):
            rows, left = np.flatnonzero(part_of_query != part), parts != part
            (fewer,) = ranking.rank_answers(queries[rows], answers[left], [csr_matrix(truth[rows][:, left])])
            assert without[..., part, rows] == pytest.approx(score(fewer))

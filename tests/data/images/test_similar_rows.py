"""Pairs of similar embeddings: few that connect all, and among many rows those of one cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from domainclip.data.curation.deduplicate import _first_of_set
from domainclip.data.images import similar_rows
from domainclip.data.images.similar_rows import clustered_pairs, exact_pairs, pairs_that_connect


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _with_copies(n: int, copies: int, width: int = 32) -> np.ndarray:
    """(n, width): rows of 20 topics, of which the last are near copies (cosine 0.97 and more) of others."""
    draw = np.random.default_rng(0)
    rows = _unit(
        draw.normal(size=(20, width))[draw.integers(20, size=n)] + 0.7 * draw.normal(size=(n, width))
    )
    sources = rows[draw.permutation(n - copies)[:copies]]
    rows[n - copies :] = _unit(sources + 0.22 * _unit(draw.normal(size=(copies, width))))
    return rows


@pytest.mark.parametrize("least", [0.9, 0.99, 0.999])
def test_rows_of_several_blocks_are_joined_as_by_all_pairs(least: float) -> None:
    rows = _unit(np.random.default_rng(0).normal(size=(1500, 4)))
    every = np.argwhere(np.triu(rows @ rows.T, 1) >= least).tolist()
    assert _first_of_set(1500, exact_pairs(rows, least)) == _first_of_set(1500, every)
    assert len(every) > 10  # so that the control says something


def test_rows_that_are_all_alike_do_not_list_every_pair() -> None:
    """1,500 images that are all alike are a million pairs; with 100,000 X-rays no memory would hold them."""
    rows = np.full((1500, 4), 0.5, np.float32)
    result = list(exact_pairs(rows, 0.95))
    assert set(_first_of_set(1500, result)) == {0}
    assert len(result) < 2 * 1500


def test_clusters_find_the_copies_and_invent_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar_rows, "_CLUSTER_ROWS", 64)
    rows = _with_copies(1200, 150)
    alike = rows @ rows.T >= 0.95
    found = clustered_pairs(rows, 0.95)
    assert all(alike[first, second] for first, second in found.tolist())
    assert all(first < second for first, second in found.tolist())
    removed = sum(first != row for row, first in enumerate(_first_of_set(1200, map(tuple, found.tolist()))))
    exact = sum(first != row for row, first in enumerate(_first_of_set(1200, exact_pairs(rows, 0.95))))
    assert exact >= 150
    assert removed >= 0.98 * exact
    # Control: a row in one cluster alone misses more, so that the clusters do divide the copies.
    monkeypatch.setattr(similar_rows, "_NEAREST", 1)
    assert len(clustered_pairs(rows, 0.95)) <= len(found)


def test_a_cluster_that_stays_large_is_compared_with_some_of_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(similar_rows, "_CLUSTER_ROWS", 200)
    monkeypatch.setattr(similar_rows, "_MAX_CLUSTER_ROWS", 250)
    monkeypatch.setattr(similar_rows, "_LEADERS", 20)
    draw = np.random.default_rng(1)
    rows = _unit(np.ones((900, 16)) + 0.05 * draw.normal(size=(900, 16)))
    found = clustered_pairs(rows, 0.95)
    assert set(_first_of_set(900, map(tuple, found.tolist()))) == {0}
    assert len(found) < 900 * 60  # not all of 400,000


def test_unreadable_images_are_in_no_pair_and_many_rows_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path))
    monkeypatch.setattr(similar_rows, "EXACT_ROWS", 100)
    monkeypatch.setattr(similar_rows, "_CLUSTER_ROWS", 32)
    rows = _with_copies(200, 40)
    rows[7] = np.nan
    pairs = pairs_that_connect(rows, 0.95)
    assert 7 not in pairs
    monkeypatch.setattr(similar_rows, "clustered_pairs", None)  # a second call would fail
    assert pairs_that_connect(rows, 0.95).tolist() == pairs.tolist()

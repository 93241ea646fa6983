"""Batches of one stratum: each item once an epoch, from any step, whatever the sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from domainclip import registry
from domainclip.config import loading
from domainclip.data.batching.loader import batches
from domainclip.data.batching.order import batch_positions
from domainclip.data.curation.cluster_batches import ClusterBatches
from domainclip.errors import RecipeError
from domainclip.pipelines import inputs, training_setup
from domainclip.pipelines.finetune import finetune
from domainclip.training.run_context import RunOptions
from tests.data.curation.curation_inputs import TableEncoder, items


def _blobs(n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    which = np.arange(n) % 3
    return np.eye(3)[which] * 5 + draw.normal(scale=0.1, size=(n, 3)), which


@pytest.mark.parametrize("by", ["image", "text", "both"])
def test_clusters_are_found(by: str) -> None:
    rows, which = _blobs()
    same = np.ones((90, 3))
    encoder = TableEncoder(
        rows if by != "text" else same, {str(i): (rows if by != "image" else same)[i] for i in range(90)}
    )
    curation = ClusterBatches(clusters=3, by=by)  # type: ignore[arg-type]
    before = items([[str(i)] for i in range(90)])
    result = curation.strata(before, encoder)
    assert adjusted_rand_score(which, result) == 1.0
    assert curation(before, encoder) is before
    assert np.array_equal(result, curation.strata(before, encoder))


def test_more_clusters_than_items_is_one_each() -> None:
    encoder = TableEncoder(np.eye(3), {str(i): np.eye(3)[i] for i in range(3)})
    assert len(set(ClusterBatches(clusters=10).strata(items([["0"], ["1"], ["2"]]), encoder))) == 3


@pytest.mark.parametrize(("n", "batch"), [(90, 10), (97, 10), (7, 5), (5, 5), (23, 22)])
def test_every_item_once_an_epoch(n: int, batch: int) -> None:
    strata = np.arange(n) % 3
    seen = [p for step in range(4 * n) for p in batch_positions(step, batch, n, 3, strata)]
    for epoch in range(4):
        own = [index for e, index in seen if e == epoch]
        assert sorted(own) == list(range(n))
    assert [e for e, _ in seen] == sorted(e for e, _ in seen)


def test_most_batches_are_of_one_stratum() -> None:
    n, batch, strata = 97 * 3, 16, np.repeat([0, 1, 2], 97)
    steps = [batch_positions(step, batch, n, 0, strata) for step in range(60)]

    def pure(of: np.ndarray) -> float:
        shares = [max(Counter(of[i] for _, i in rows).values()) / batch for rows in steps]
        return float(np.mean([share == 1.0 for share in shares]))

    # 291 pairs are 18 batches an epoch: at most the two where strata meet and the one that straddles are mixed.
    assert pure(strata) >= 0.8
    assert pure(np.random.default_rng(0).permutation(strata)) < 0.1  # control: other strata are not
    plain = [batch_positions(step, batch, n, 0) for step in range(60)]
    assert np.mean([len({strata[i] for _, i in rows}) == 1 for rows in plain]) < 0.1
    # Strata follow each other in no order: a run of one stratum is no longer than chance makes it.
    kinds = [strata[rows[0][1]] for rows in steps]
    assert len(set(kinds[:6])) > 1


def test_epochs_and_seeds_differ() -> None:
    strata = np.repeat([0, 1], 20)
    orders = {
        tuple(i for step in range(10) for _, i in batch_positions(step + 10 * e, 4, 40, seed, strata))
        for e in (0, 1)
        for seed in (0, 1)
    }
    assert len(orders) == 4


def test_a_run_shows_batches_of_one_stratum(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    changes = ["curation={cluster_batches: {clusters: 4}}", "train.batch_size=4"]
    read = loading.load_recipe(str(recipe_file), changes)
    ready = inputs.load_inputs(read, "train")
    strata = ready.train_items.strata
    assert strata is not None
    setup = training_setup.make_setup(ready)
    rows = batches(setup.pairs, 3, 6, 4, workers=0)
    assert [next(rows).index.tolist() for _ in range(3)] == [
        [i for _, i in batch_positions(step, 4, 40, 0, strata)] for step in (3, 4, 5)
    ]
    assert finetune(read, RunOptions(folder=tmp_path / "run", quiet=True)) is not None


def test_two_that_order_are_refused(recipe_file: Path) -> None:
    changes = [
        "curation={cluster_batches: {}, 'domainclip.data.curation.cluster_batches:ClusterBatches': {}}"
    ]
    with pytest.raises(RecipeError) as caught:
        inputs.load_inputs(loading.load_recipe(str(recipe_file), changes), "train")
    assert str(caught.value) == (
        "curation: cluster_batches and domainclip.data.curation.cluster_batches:ClusterBatches both define "
        "the batch order: use one"
    )


def test_options_are_checked() -> None:
    with pytest.raises(RecipeError) as caught:
        registry.build("curation", "cluster_batches", {"clusters": 1}, "curation.cluster_batches")
    assert str(caught.value) == (
        "curation.cluster_batches.clusters: input should be greater than or equal to 2, got 1"
    )

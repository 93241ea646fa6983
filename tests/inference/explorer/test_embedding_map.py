"""The map is scikit-learn's PCA up to turning and mirroring, and maps of equal items lie on each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from domainclip.errors import RecipeError
from domainclip.inference.explorer import embedding_map
from domainclip.inference.explorer.embedding_map import embedding_maps

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(60, 8)) * np.linspace(3, 0.2, 8)


def test_distances_are_those_of_pca() -> None:
    (made,) = embedding_maps([VECTORS.astype(np.float32)])
    reference = PCA(n_components=2).fit(VECTORS)
    ratio = pdist(made.points) / pdist(reference.transform(VECTORS))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    assert made.variance == pytest.approx(reference.explained_variance_ratio_.sum(), abs=1e-6)
    assert made.points.min() == pytest.approx(0, abs=1e-9)
    assert made.points.max() == pytest.approx(1, abs=1e-9)


def test_a_turned_and_mirrored_space_has_the_same_map() -> None:
    turned = VECTORS @ np.linalg.qr(RNG.normal(size=(8, 8)))[0]
    turned[:, 0] *= -1
    first, second = embedding_maps([VECTORS, turned])
    np.testing.assert_allclose(first.points, second.points, atol=1e-6)
    other = embedding_maps([VECTORS, RNG.permutation(VECTORS)])[1]
    assert np.abs(first.points - other.points).max() > 0.2, "the control: other items, another map"


@pytest.mark.parametrize("vectors", [np.ones((5, 4)), np.ones((1, 4)), np.zeros((2, 4))])
def test_items_without_a_difference_lie_in_the_middle(vectors: np.ndarray) -> None:
    (made,) = embedding_maps([vectors])
    np.testing.assert_array_equal(made.points, np.full((len(vectors), 2), 0.5))


def test_umap_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_map, "find_spec", lambda name: None)
    embedding_map.check_method("pca")
    with pytest.raises(RecipeError, match=r'--map umap: needs umap-learn: pip install "domainclip\[umap\]"'):
        embedding_map.check_method("umap")


def test_umap_where_it_is_installed() -> None:
    pytest.importorskip("umap")
    two = np.concatenate([VECTORS, VECTORS + 100])
    (made,) = embedding_maps([two], "umap")
    near = pdist(made.points[:60]).mean()
    assert near < np.abs(made.points[:60].mean(0) - made.points[60:].mean(0)).max()

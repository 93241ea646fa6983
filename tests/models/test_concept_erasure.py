"""Erasure of a concept: maps worked by hand, no linear classifier afterwards, and the map inside the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from domainclip.errors import ModelError
from domainclip.models.concept_erasure import erasure, image_projection, map_image_embeddings
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.saving import save_model
from domainclip.strategies.lora import Lora
from tests.support.tiny_models import noise, stack, tiny_siglip

NO_STRATA = np.zeros(8, np.int64)


def _by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Two values with means (± 1/2, 0); covariance of all rows [[2, 1], [1, 1]]."""
    root = np.linalg.cholesky(np.array([[1.75, 1.0], [1.0, 1.0]]))
    around = np.sqrt(2) * np.concatenate([root.T, -root.T])
    return np.concatenate([around + np.array([0.5, 0]), around - np.array([0.5, 0])]), np.repeat([0, 1], 4)


def test_the_map_by_hand() -> None:
    """δ = (1, 0), Σ⁻¹ = [[1, -1], [-1, 2]]: P = I - δ δᵀ Σ⁻¹ / (δᵀ Σ⁻¹ δ) = I - [[1, -1], [0, 0]]."""
    rows, concept = _by_hand()
    assert np.cov(rows.T, bias=True) == pytest.approx(np.array([[2.0, 1.0], [1.0, 1.0]]))
    matrix, directions = erasure(rows, concept, NO_STRATA, shrinkage=0)
    assert matrix == pytest.approx(np.array([[0.0, 1.0], [0.0, 1.0]]), abs=1e-8)
    assert directions == 1
    matrix, _ = erasure(rows, concept, NO_STRATA, shrinkage=1)  # orthogonal to δ
    assert matrix == pytest.approx(np.diag([0.0, 1.0]), abs=1e-8)
    same, none = erasure(rows, NO_STRATA, NO_STRATA, shrinkage=0.1)
    assert none == 0  # a single value
    assert same == pytest.approx(np.eye(2))


def _tangled(n: int = 900) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a direction of the label and one of three sources; 80 % of a label come from one source."""
    draw = np.random.default_rng(0)
    label = np.arange(n) % 2
    source = np.where(draw.random(n) < 0.8, label, 2)
    axes = np.linalg.qr(draw.normal(size=(12, 12)))[0]
    return draw.normal(size=(n, 12)) + 3 * axes[source] + 3 * label[:, None] * axes[5], source, label


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_no_linear_classifier_finds_the_source_and_the_label_stays(shrinkage: float) -> None:
    rows, source, label = _tangled()

    def found(values: np.ndarray, embeddings: np.ndarray) -> float:
        """Accuracy among items of equal labels, above that of the commonest value."""
        gains = []
        for number in (0, 1):
            part = label == number
            fitted = LogisticRegression(C=1e6, max_iter=500).fit(embeddings[part], values[part])
            commonest = np.bincount(values[part]).max() / part.sum()
            gains.append(fitted.score(embeddings[part], values[part]) - commonest)
        return max(gains)

    matrix, directions = erasure(rows, source, label, shrinkage)
    assert directions == 2
    assert found(source, rows) > 0.1  # control
    assert found(source, rows @ matrix.T) < 0.005

    def label_accuracy(embeddings: np.ndarray) -> float:
        return float(LogisticRegression(max_iter=500).fit(embeddings, label).score(embeddings, label))

    assert label_accuracy(rows @ matrix.T) > 0.9
    # Control: without strata, what the source tells of the label goes too.
    whole, _ = erasure(rows, source, np.zeros(len(rows), np.int64), shrinkage)
    assert label_accuracy(rows @ whole.T) < label_accuracy(rows @ matrix.T) - 0.02


@pytest.mark.parametrize("adapter", [False, True])
def test_the_saved_weights_have_the_map(clip: DualEncoder, tmp_path: Path, adapter: bool) -> None:
    if adapter:
        torch.manual_seed(0)
        Lora(rank=2).learning_rates(clip)
        for name, weight in clip.weights().items():
            if ".lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    images = stack(clip.image_preprocessor(noise(20, 20, seed=i)) for i in range(3))
    draw = np.random.default_rng(0)
    matrix = np.eye(clip.width) - 0.1 * draw.normal(size=(clip.width, clip.width))
    with torch.no_grad():
        raw = clip._image_features(clip_inputs(images)).pooler_output
        expected = torch.nn.functional.normalize(raw @ torch.from_numpy(matrix).float().T, dim=-1)
        text = clip.encode_text(clip.text_tokenizer(["a square"]))
        unchanged = clip.encode_image(clip_inputs(images))
        map_image_embeddings(clip, matrix)
        save_model(clip, tmp_path / "model")
        again = load_model(tmp_path / "model")
        for model in (clip, again):
            assert torch.allclose(model.encode_image(clip_inputs(images)), expected, atol=1e-5)
            assert torch.allclose(model.encode_text(model.text_tokenizer(["a square"])), text, atol=1e-6)
    assert not torch.allclose(unchanged, expected, atol=1e-3)  # control


def clip_inputs(images: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A copy, since encoding may take entries out."""
    return dict(images)


def test_a_tower_without_a_linear_end_is_refused(tmp_path: Path) -> None:
    model = load_model(tiny_siglip(tmp_path / "siglip"))
    assert image_projection(model) is None
    with pytest.raises(ModelError) as caught:
        map_image_embeddings(model, np.eye(model.width))
    assert str(caught.value) == ("source_removal: family siglip has no linear layer behind its image tower")

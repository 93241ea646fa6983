"""Interpolation by hand, and the rule that picks α."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from domainclip.models import dual_encoder, loading
from domainclip.strategies.lora import Lora
from domainclip.training.weight_interpolation import AlphaScore, choose_alpha, set_alpha


def test_weights_in_between() -> None:
    weights = {"text/a": torch.zeros(2), "text/q.lora_A.x": torch.zeros(1), "text/q.lora_B.x": torch.zeros(1)}
    start = {
        "text/a": torch.tensor([0.0, 2.0]),
        "text/q.lora_A.x": torch.tensor([5.0]),
        "text/q.lora_B.x": torch.zeros(1),
    }
    end = {
        "text/a": torch.tensor([4.0, 4.0]),
        "text/q.lora_A.x": torch.tensor([6.0]),
        "text/q.lora_B.x": torch.tensor([8.0]),
    }
    set_alpha(weights, start, end, 0.25)
    assert weights["text/a"].tolist() == [1.0, 2.5]
    # The product B·A at a quarter: A as trained, B scaled.
    assert (weights["text/q.lora_A.x"] * weights["text/q.lora_B.x"]).item() == 0.25 * 6 * 8
    set_alpha(weights, start, end, 1.0)
    assert all(torch.equal(weights[name], end[name]) for name in weights)


def _merged(model: dual_encoder.DualEncoder) -> dict[str, torch.Tensor]:
    """The matrices that the layers with an adapter stand for."""
    return {
        name: (layer.get_delta_weight("default") + layer.base_layer.weight)
        if not layer.lora_magnitude_vector
        else _dora(layer)
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A")
    }


def _dora(layer: torch.nn.Module) -> torch.Tensor:
    whole = layer.base_layer.weight + layer.get_delta_weight("default")
    return layer.lora_magnitude_vector["default"].weight[:, None] * whole / whole.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("alpha", [0.25, 0.7, 1.0])
def test_an_adapter_in_between_is_the_matrix_in_between(base: Path, dora: bool, alpha: float) -> None:
    model = loading.load_model(base)
    factors = Lora(rank=3, dora=dora, rslora=True).learning_rates(model)
    weights = {name: weight for name, weight in model.weights().items() if factors[name] > 0}
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    before = _merged(model)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
    end = {name: weight.detach().clone() for name, weight in weights.items()}
    after = _merged(model)
    set_alpha(weights, start, end, 0.0, model)
    assert all(torch.equal(weight, start[name]) for name, weight in weights.items())
    for tried in (0.5, alpha):  # one after the other, as in a sweep
        set_alpha(weights, start, end, tried, model)
    found = _merged(model)
    for name, matrix in found.items():
        expected = torch.lerp(before[name], after[name], alpha)
        assert torch.allclose(matrix, expected, atol=2e-6), name
    assert any(not torch.allclose(before[name], found[name], atol=1e-2) for name in found)
    # Negative control: scaling B alone is not the way to go for DoRA.
    for name, weight in weights.items():
        with torch.no_grad():
            weight.copy_(end[name] if ".lora_A." in name else torch.lerp(start[name], end[name], alpha))
    naive = _merged(model)
    apart = max((naive[name] - found[name]).abs().max().item() for name in found)
    assert (apart > 1e-3) == (dora and alpha < 1)


def test_the_smallest_within_one_standard_error_wins() -> None:
    scores = {1.0: 0.59, 0.5: 0.58, 0.25: 0.50, 0.75: 0.60, 0.0: 0.99}  # the base is no candidate

    def tried(error: float) -> list[AlphaScore]:
        return [AlphaScore(alpha, score, error) for alpha, score in scores.items()]

    assert choose_alpha(tried(0.03)) == 0.5
    assert choose_alpha(tried(0.001)) == 0.75
    assert choose_alpha(tried(1.0)) == 0.25
    assert choose_alpha(tried(float("nan"))) == 0.75


def test_a_floor_takes_the_best_that_keeps_what_the_base_knows() -> None:
    general = {0.0: 0.50, 0.25: 0.51, 0.5: 0.49, 0.75: 0.45, 1.0: 0.30}
    scores = {0.0: 0.20, 0.25: 0.30, 0.5: 0.40, 0.75: 0.50, 1.0: 0.60}
    tried = [AlphaScore(alpha, scores[alpha], 0.5, general[alpha]) for alpha in scores]
    assert choose_alpha(tried, 0.0) == 0.25
    assert choose_alpha(tried, 0.01) == 0.5  # exactly at the floor is above it
    assert choose_alpha(tried, 0.05) == 0.75
    assert choose_alpha(tried, 0.9) == 1.0
    # Where every step costs more than the floor, or gains nothing, the base stays.
    assert choose_alpha([tried[0], AlphaScore(1.0, 0.9, 0.1, 0.49)], 0.001) == 0.0
    assert choose_alpha([tried[0], AlphaScore(1.0, 0.2, 0.1, 0.5)], 0.1) == 0.0

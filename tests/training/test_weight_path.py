"""The path of the weights between base and adapted model, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from domainclip.models import dual_encoder, loading
from domainclip.strategies.base import Strategy
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from domainclip.training.weight_path import Alphas, WeightPath


def _trained(base: Path, strategy: Strategy) -> tuple[dual_encoder.DualEncoder, dict[str, torch.Tensor]]:
    """A model whose learning weights have moved at random, and those weights before."""
    model = loading.load_model(base)
    factors = strategy.learning_rates(model)
    weights = {name: weight for name, weight in model.weights().items() if factors[name] > 0}
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
    return model, start


def test_weights_in_between(base: Path) -> None:
    model, start = _trained(base, Full())
    path = WeightPath.between(start, model)
    end = {name: weight.clone() for name, weight in path.weights.items()}
    for alpha in (0.75, 0.25):  # one after the other, as in a sweep
        path.set_alpha(alpha)
        for name, weight in path.weights.items():
            assert torch.allclose(weight, (1 - alpha) * start[name] + alpha * end[name], atol=1e-6), name
    path.set_alpha(0.0)
    assert all(torch.equal(path.weights[name], start[name]) for name in start)
    path.set_alpha(1.0)
    assert all(torch.equal(path.weights[name], end[name]) for name in start)


def test_by_layer_the_first_layer_moves_least_and_the_last_one_wholly(base: Path) -> None:
    """[arXiv:2410.17146] with two layers: α + (1 − α) 0 = α in the first, α + (1 − α) 1 = 1 in the second."""
    model, start = _trained(base, Full())
    path = WeightPath.between(start, model, by_layer=True)
    end = {name: weight.clone() for name, weight in path.weights.items()}
    path.set_alpha(0.25)
    shares = set()
    for name, weight in path.weights.items():
        share = 1.0 if ".layers.1." in name else 0.25
        shares.add((name.split("/")[0], share))
        assert torch.allclose(weight, torch.lerp(start[name], end[name], share), atol=1e-6), name
    assert shares >= {("image", 0.25), ("image", 1.0), ("text", 0.25), ("text", 1.0), ("scale", 0.25)}
    path.set_alpha(0.0)  # the base, though the last layer has the share 1 at every other α
    assert all(torch.equal(path.weights[name], start[name]) for name in start)
    path.set_alpha(1.0)
    assert all(torch.equal(path.weights[name], end[name]) for name in start)


def test_each_tower_moves_by_its_own_alpha(base: Path) -> None:
    model, start = _trained(base, Full())
    path = WeightPath.between(start, model)
    end = {name: weight.clone() for name, weight in path.weights.items()}
    for alphas in (Alphas(0.25, 0.75), Alphas(0.0, 1.0), Alphas(1.0, 0.0)):
        path.set_alphas(alphas)
        for name, weight in path.weights.items():
            share = (
                alphas.image if name.startswith("image/") else alphas.text
            )  # the scale goes with the texts
            assert torch.allclose(weight, torch.lerp(start[name], end[name], share), atol=1e-6), name
    assert {name.split("/")[0] for name in path.weights} == {"image", "text", "scale"}


def test_each_tower_of_an_adapter_moves_by_its_own_alpha(base: Path) -> None:
    model, start = _trained(base, Lora(rank=3, dora=True))
    path = WeightPath.between(start, model)
    after = _merged(model)
    path.set_alpha(0.0)
    before = _merged(model)
    path.set_alphas(Alphas(0.0, 0.5))
    for name, matrix in _merged(model).items():
        share = 0.0 if "vision" in name else 0.5
        assert torch.allclose(matrix, torch.lerp(before[name], after[name], share), atol=2e-6), name


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


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("alpha", [0.25, 0.7, 1.0])
def test_an_adapter_in_between_is_the_matrix_in_between(
    base: Path, dora: bool, alpha: float, by_layer: bool
) -> None:
    model, start = _trained(base, Lora(rank=3, dora=dora, rslora=True))
    path = WeightPath.between(start, model, by_layer)
    after = _merged(model)
    path.set_alpha(0.0)
    assert all(torch.equal(weight, start[name]) for name, weight in path.weights.items())
    before = _merged(model)
    for tried in (0.5, alpha):  # one after the other, as in a sweep
        path.set_alpha(tried)
    found = _merged(model)
    for name, matrix in found.items():
        share = 1.0 if by_layer and ".layers.1." in name else alpha
        assert torch.allclose(matrix, torch.lerp(before[name], after[name], share), atol=2e-6), name
    assert any(not torch.allclose(before[name], found[name], atol=1e-2) for name in found)
    # Negative control: scaling B alone is not the way to go for DoRA.
    for name, weight in path.weights.items():
        share = 1.0 if by_layer and ".layers.1." in name else alpha
        with torch.no_grad():
            end = path.end[name]
            weight.copy_(end if ".lora_A." in name else torch.lerp(start[name], end, share))
    naive = _merged(model)
    apart = max((naive[name] - found[name]).abs().max().item() for name in found)
    assert (apart > 1e-3) == (dora and alpha < 1)

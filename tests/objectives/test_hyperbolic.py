"""Hyperbolic: distances and cones by hand, the Lorentz model beside them, and a model that ranks by its distance."""

from __future__ import annotations

from dataclasses import replace
from math import acos, acosh, asin, cosh, exp, log, pi, sinh, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.errors import ModelError
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.hub.allowlist import _model_files
from domainclip.models import hyperbolic_space, loading, saving
from domainclip.models.hyperbolic_space import HyperbolicSpace
from domainclip.models.plain_weights import make_plain
from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.hyperbolic import Hyperbolic
from domainclip.report import usage
from tests.objectives.filled_views import check_gradients, filled_for
from tests.support.tiny_models import tiny_clip

EYE = torch.eye(2, dtype=torch.float64)


def _own(objective: Hyperbolic, width: int = 2) -> dict[str, Tensor]:
    return {name: w.double() for name, w in objective.initial_weights(Sizes(width), 0).items()}


def test_a_value_worked_by_hand() -> None:
    """Texts across from their images at the radius 1: A = cosh² 1, and equal points behind the other pair."""
    objective = Hyperbolic(entailment=0.5)
    views = Views(EYE, EYE.flip(0), torch.tensor(2.0), own_weights=_own(objective))
    far, near = acosh(cosh(1) ** 2), acosh(1 + 1e-6)
    contrast = log(1 + exp(2 * (far - near)))
    a = cosh(1) ** 2
    angle = acos((cosh(1) - a * cosh(1)) / (sinh(1) * sqrt(a * a - 1)))
    expected = contrast + 0.5 * (angle - asin(0.2 / sinh(1)))
    assert objective(views).item() == pytest.approx(expected, abs=1e-9)
    right = replace(views, text=EYE)
    assert objective(right).item() < objective(views).item() - 1  # the control: texts at their images
    flat = Hyperbolic(entailment=0, curvature=4.0, radius=0.5)  # √c ρ = 1 as above, and half the distances
    views = replace(views, own_weights=_own(flat))
    assert flat(views).item() == pytest.approx(log(1 + exp(far - near)), abs=1e-7)


def test_a_text_entails_what_lies_behind_it() -> None:
    cosine, apex, radius = (torch.tensor([x], dtype=torch.float64) for x in (1.0, 0.5, 1.5))
    assert hyperbolic_space.outside_cone(cosine, apex, radius, 0.1).item() == 0
    # Towards the origin the angle is π; the square root of its small distance from it is what is left.
    back = hyperbolic_space.outside_cone(cosine, radius, apex, 0.1).item()
    assert back == pytest.approx(pi - asin(0.2 / sinh(1.5)), abs=2e-3)
    near_origin = hyperbolic_space.outside_cone(0 * cosine, 0.1 * apex, radius, 0.1).item()
    assert near_origin < hyperbolic_space.outside_cone(0 * cosine, apex, radius, 0.1).item()


def test_parity_with_points_of_the_lorentz_model() -> None:
    """The same distance from points in d + 1 dimensions, by the product of the model."""
    draw = torch.Generator().manual_seed(0)
    one, other = (F.normalize(torch.randn(5, 3, generator=draw, dtype=torch.float64), dim=-1) for _ in "ab")
    own = {
        "directions": torch.randn(2, 3, generator=draw).double() / 3,
        "offsets": torch.tensor([-0.5, -0.2]),
    }
    own["curvature"] = torch.tensor(log(0.5), dtype=torch.float64)
    r, s = (hyperbolic_space.radii(own, at, rows, 2.0) for at, rows in ((0, one), (1, other)))
    x, y = (radius[:, None].sinh() * rows / sqrt(0.5) for radius, rows in ((r, one), (s, other)))
    x_time, y_time = (torch.sqrt(2 + rows.square().sum(dim=1)) for rows in (x, y))
    product = x @ y.T - x_time[:, None] * y_time
    expected = torch.acosh(-0.5 * product) / sqrt(0.5)
    found = hyperbolic_space.distances(one @ other.T, r[:, None], s, own)
    assert torch.allclose(found, expected, atol=1e-10)
    space = HyperbolicSpace(own, 2.0)
    embedded = space.embed(one, "image") @ space.embed(other, "text").T
    assert torch.allclose(embedded, 0.5 * product / cosh(4), atol=1e-12)
    assert torch.allclose(space.embed(one, "image").norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert torch.equal((-expected).argsort(dim=1), embedded.argsort(dim=1))
    assert not torch.equal((one @ other.T).argsort(dim=1), embedded.argsort(dim=1))  # the radii count


def test_gradients_are_those_of_finite_differences() -> None:
    check_gradients(Hyperbolic(), filled_for(Hyperbolic(), b=5, d=3))


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    views = filled_for(Hyperbolic())
    whole = Hyperbolic()(views)
    monkeypatch.setattr("domainclip.objectives.losses.blockwise.MAX_LOGITS", 100)
    parts = Hyperbolic()(views)
    assert parts.item() == pytest.approx(whole.item(), abs=1e-12)
    for one, other in zip(
        *(torch.autograd.grad(x, [views.image, views.text]) for x in (whole, parts)), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-12)


def test_the_model_is_measured_by_its_distance_and_saved_with_it(tmp_path: Path) -> None:
    model = loading.load_model(tiny_clip(tmp_path / "base"))
    own = Hyperbolic().initial_weights(Sizes(model.width), 0)
    own["directions"] = torch.randn(2, model.width, generator=torch.Generator().manual_seed(0))
    texts = ["a red circle", "two dots", "a star"]
    plain = CachedEncoder(model)
    before = plain.texts(texts)
    Hyperbolic().add_to_model(model, own, {})
    assert model.space is not None
    encoder = CachedEncoder(model)
    assert encoder.text_key != plain.text_key
    assert (encoder.has_raw_texts, encoder.has_patches, encoder.width) == (False, False, model.width + 3)
    embedded = encoder.texts(texts)
    assert np.allclose(embedded, model.space.embed(torch.from_numpy(before), "text").numpy(), atol=1e-6)
    assert np.allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    saving.save_model(model, tmp_path / "saved")
    again = loading.load_model(tmp_path / "saved")
    assert np.allclose(CachedEncoder(again).texts(texts), embedded, atol=1e-7)
    with pytest.raises(ModelError, match=r"it: objectives\.hyperbolic has given it a distance of its own"):
        make_plain(again, "it")
    assert "hyperbolic.safetensors" in [file.name for file, _ in _model_files(tmp_path / "saved")]
    code = usage.blocks(usage.ModelUse.of(tmp_path / "saved", "clip"), None, None)
    assert (code.needs, code.pipeline, code.sentences) == ("domainclip", "", "")

"""Several models as one: cosines are the weighted ones, saving and loading keep every bit, caches tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.shares_choice import ReweightedEncoder
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.ensemble import join_members
from domainclip.models.families.clip_ensemble import ClipEnsemble
from domainclip.models.saving import save_model
from tests.support import tiny_models
from tests.support.tiny_models import noise, stack

TEXTS = ["a red circle", "a dog on the left", ""]


def _joined(members: list[DualEncoder]) -> ClipEnsemble:
    base = members[0]
    tokenizer, processor = base.text_tokenizer.hf_tokenizer, base.hf_image_processor
    return ClipEnsemble(join_members(members), tokenizer, processor, base.base, None)


class _Stored(Encoder):
    """Returns the same rows for whatever it is given."""

    scale, bias = 1.0, None

    def __init__(self, images: np.ndarray, texts: np.ndarray) -> None:
        self._images, self._texts = images, texts

    def images(self, items: Dataset) -> np.ndarray:
        return self._images

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._texts


_NOTHING = Dataset.from_dict({})


def _rows(model: DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        pixels = stack(model.image_preprocessor(noise(40, 36, seed=i)) for i in range(4))
        return model.encode_image(pixels), model.encode_text(model.text_tokenizer(TEXTS))


def _scale_and_bias(model: DualEncoder) -> tuple[float, float]:
    return float(model.scale.detach()), 0.0 if model.bias is None else float(model.bias.detach())


@pytest.fixture(params=["clip", "siglip"])
def members(request: pytest.FixtureRequest, tmp_path: Path) -> list[DualEncoder]:
    make = tiny_models.tiny_clip if request.param == "clip" else tiny_models.tiny_siglip
    models = [loading.load_model(make(tmp_path / f"{seed}", seed=seed)) for seed in range(3)]
    with torch.no_grad():
        for number, model in enumerate(models):  # each of its own temperature
            model.hf_base.logit_scale.fill_(2.0 + number)
    return models


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.5, 0.25, 0.25), (0.0, 1.0, 0.0)])
def test_logits_are_the_weighted_ones(members: list[DualEncoder], shares: tuple[float, ...]) -> None:
    """By the definition: Σ_k u_k (s_k cos_k + b_k), in fp64 from the members' own embeddings."""
    ensemble = _joined(members)
    ensemble.hf_base.set_shares(shares)
    images, texts = _rows(ensemble)
    assert images.shape == (4, sum(member.width for member in members))
    assert torch.allclose(images.norm(dim=-1), torch.ones(4), atol=1e-6)
    expected = torch.zeros(4, len(TEXTS), dtype=torch.float64)
    for share, member in zip(shares, members, strict=True):
        of_images, of_texts = _rows(member)
        scale, bias = _scale_and_bias(member)
        expected += share * (scale * of_images.double() @ of_texts.double().T + bias)
    scale, bias = _scale_and_bias(ensemble)
    logits = scale * images.double() @ texts.double().T + bias
    assert torch.allclose(logits, expected, atol=2e-5)


def test_a_saved_ensemble_is_loaded_bit_equal(members: list[DualEncoder], tmp_path: Path) -> None:
    ensemble = _joined(members)
    ensemble.hf_base.set_shares((0.5, 0.25, 0.25))
    save_model(ensemble, tmp_path / "saved")
    loaded = loading.load_model(tmp_path / "saved")
    assert type(loaded) is ClipEnsemble
    assert loaded.family == "clip_ensemble"
    assert loaded.objective == members[0].objective
    assert loaded.fingerprint("all") == ensemble.fingerprint("all")
    for before, after in zip(_rows(ensemble), _rows(loaded), strict=True):
        assert torch.equal(before, after)
    assert torch.equal(loaded.scale, ensemble.scale)
    assert not any(loaded.has_token_embeddings(side) for side in ("image", "text"))


def test_caches_tell_members_and_shares_apart(members: list[DualEncoder]) -> None:
    """Negative control: the same members and shares have the same keys."""
    keys = []
    for chosen, shares in (
        (members, (0.5, 0.25, 0.25)),
        (members, (0.25, 0.5, 0.25)),
        (members[::-1], (0.5, 0.25, 0.25)),
    ):
        ensemble = _joined(chosen)
        ensemble.hf_base.set_shares(shares)
        keys.append((ensemble.fingerprint("image"), ensemble.fingerprint("text")))
    assert len({image for image, _ in keys}) == len({text for _, text in keys}) == 3
    again = _joined(members)
    again.hf_base.set_shares((0.5, 0.25, 0.25))
    assert (again.fingerprint("image"), again.fingerprint("text")) == keys[0]


def test_reweighted_rows_are_those_of_an_ensemble_with_these_shares(members: list[DualEncoder]) -> None:
    """The fast path of the choice against encoding again; a share of 0 leaves zeros."""
    ensemble = _joined(members)
    start, rows = ensemble.hf_base.roots_of((1 / 3, 1 / 3, 1 / 3)), _rows(ensemble)
    for shares in ((0.5, 0.25, 0.25), (0.0, 0.75, 0.25)):
        factors = np.repeat(ensemble.hf_base.roots_of(shares) / start, ensemble.hf_base.config.widths)
        encoder = ReweightedEncoder(_Stored(*(row.numpy() for row in rows)), factors)
        ensemble.hf_base.set_shares(shares)
        images, texts = (row.numpy() for row in _rows(ensemble))
        assert encoder.images(_NOTHING) == pytest.approx(images, abs=1e-6)
        assert encoder.texts([]) == pytest.approx(texts, abs=1e-6)


def test_the_roots_by_hand(members: list[DualEncoder]) -> None:
    """Scales e², e³, e⁴ and shares ½, ½, 0: weights 1 / (1 + e) and e / (1 + e)."""
    ensemble = _joined(members)
    first = 1 / (1 + np.e)
    assert ensemble.hf_base.roots_of((0.5, 0.5, 0.0)) ** 2 == pytest.approx([first, 1 - first, 0.0])

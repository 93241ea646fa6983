"""Caption diversity: mixtures by hand, contrastive at the start, and captions of one image that may differ."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log, sqrt

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.caption_diversity import CaptionDiversity
from domainclip.objectives.contrastive import Contrastive
from tests.objectives.filled_views import check_gradients, filled_for


def test_at_the_start_it_is_contrastive() -> None:
    views = filled_for(CaptionDiversity())
    own = {name: w.double() for name, w in CaptionDiversity().initial_weights(Sizes(6), 0).items()}
    assert CaptionDiversity()(replace(views, own_weights=own)).item() == pytest.approx(
        Contrastive()(views).item()
    )


def test_a_value_worked_by_hand() -> None:
    """One mixture of the only patch: z ∝ x + m, whatever the text."""
    eye = torch.eye(2, dtype=torch.float64)
    own = {"queries": eye[:1], "key_map": eye, "value_map": eye}
    views = Views(eye, eye, torch.tensor(3.0), image_tokens=eye.flip(0)[:, None], own_weights=own)
    objective = CaptionDiversity(count=1)
    assert objective(views).item() == pytest.approx(log(2), abs=1e-12)  # x + m is the same for both images
    # Without B the cosines are the identity; with m = x too, since z is scaled to unit length.
    same = replace(views, image_tokens=eye[:, None])
    assert objective(same).item() == pytest.approx(log(1 + exp(-3)), abs=1e-12)


def test_the_text_weights_the_mixtures() -> None:
    """One image of two patches, and a text like each: z_1 turns to the first patch, z_2 to the second."""
    eye = torch.eye(3, dtype=torch.float64)
    own = {"queries": 50 * eye[:2], "key_map": eye, "value_map": eye}
    image = F.normalize(eye[2] + 0.0 * eye[0], dim=-1)[None].repeat(2, 1)
    views = Views(image, eye[:2], torch.tensor(1.0), image_tokens=eye[:2].repeat(2, 1, 1), own_weights=own)
    sharp = CaptionDiversity(count=2, sharpness=100)
    # z_ij ∝ x + y_j for every image: each text finds 1/√2 in both, and nothing tells the images apart.
    assert sharp(views).item() == pytest.approx(log(2), abs=1e-6)
    one = replace(views, image_tokens=torch.stack([eye[:1].repeat(2, 1), eye[1:2].repeat(2, 1)]))
    assert sharp(one).item() == pytest.approx(
        log(1 + exp(-1 / sqrt(2))), abs=1e-6
    )  # a patch of its text alone


def test_gradients_are_those_of_finite_differences() -> None:
    objective = CaptionDiversity(count=2)
    check_gradients(objective, filled_for(objective, b=3, d=2))

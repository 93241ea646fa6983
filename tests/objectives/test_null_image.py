"""The null image: both terms by hand; texts of the column, and none where there are none."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch

from domainclip.objectives.base import Views
from domainclip.objectives.null_image import NullImage
from tests.objectives.filled_views import check_gradients, filled_for
from tests.support.matches import grouped
from tests.support.text_objectives import shown


def _views(exists: bool = True) -> Views:
    eye = torch.eye(3, dtype=torch.float64)
    texts = eye[2].expand(2, 1, 3)
    mask = torch.tensor([[True], [exists]])
    scale = torch.tensor(2.0, dtype=torch.float64)
    return Views(
        eye[:2], eye[:2], scale, extra_text=texts, extra_text_mask=mask, own_weights={"null": 5 * eye[2]}
    )


def test_a_value_worked_by_hand() -> None:
    # Each text is on its own image or on u, and at a right angle to the two other candidates.
    each = log(1 + 2 * exp(-2))
    objective = NullImage(column="other")
    assert objective(_views()).item() == pytest.approx(2 * each, abs=1e-12)
    assert objective(_views(exists=False)).item() == pytest.approx(1.5 * each, abs=1e-12)


def test_u_is_a_candidate_of_captions_and_a_right_image_is_not() -> None:
    objective = NullImage(column="other")
    alone = replace(_views(), matches=grouped([1, 1]))
    expected = log(1 + exp(-2)) + log(1 + 2 * exp(-2))
    assert objective(alone).item() == pytest.approx(expected, abs=1e-12)


def test_gradients_in_double_precision() -> None:
    objective = NullImage(column="other")
    check_gradients(objective, filled_for(objective, b=5, d=4))


def test_texts_are_those_of_the_column() -> None:
    pair = shown("a red square", other=["bought in 1950", "A red  square"])
    assert NullImage(column="other", per_pair=4).extra_texts(pair) == ["bought in 1950"]
    assert NullImage(column="missing").extra_texts(pair) == []

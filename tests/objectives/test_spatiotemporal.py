"""Spatiotemporal pairs: NT-Xent with another image of the group, which the data bring."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from domainclip.data.batching.extras import ExtraSpec
from domainclip.data.batching.pairs import Pairs
from domainclip.objectives.base import Views
from domainclip.objectives.spatiotemporal import Spatiotemporal
from tests.objectives.filled_views import check_gradients, filled_for
from tests.support.matches import grouped


def test_a_value_worked_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    views = Views(eye, eye, torch.tensor(9.0), image_2=eye)
    assert Spatiotemporal(temperature=0.5)(views).item() == pytest.approx(log(1 + 2 * exp(-2)), abs=1e-12)
    assert Spatiotemporal(temperature=0.5)(replace(views, matches=grouped([4, 4]))).item() == 0.0


def test_gradients_in_double_precision() -> None:
    check_gradients(Spatiotemporal(), filled_for(Spatiotemporal(), b=5, d=4))


GREY = [10, 60, 110, 160, 210]  # of the image of each item
GROUPS = ["a", "b", "a", "a", "c"]


def _pairs(folder: Path, broken: int | None = None, kind: str = "same_group") -> Pairs:
    rows = []
    for number, (grey, group) in enumerate(zip(GREY, GROUPS, strict=True)):
        path = folder / f"{number}.png"
        Image.new("L", (8, 8), grey).save(path)
        if number == broken:
            path.write_bytes(b"no image")
        row = {
            "id": str(number),
            "image": {"path": str(path), "bytes": None},
            "views": [],
            "texts": [f"text {number}"],
        }
        rows.append(row | {"language": [""], "labels": [], "group": group, "truth": group, "meta": "{}"})

    def preprocess(image: Image.Image) -> dict[str, np.ndarray]:
        return {"pixels": np.asarray(image.convert("L").resize((2, 2)))}

    return Pairs(Dataset.from_list(rows), preprocess, extra_spec=ExtraSpec(second_view=kind))  # type: ignore[arg-type]


def _nearest(pairs: Pairs, epoch: int, index: int) -> int:
    """Whose image the second view is, by its grey; brightness changes by 40 % at most."""
    view = pairs[epoch, index].second_view
    assert view is not None
    return int(view["pixels"].mean())


def test_the_second_view_is_another_image_of_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domainclip.data.batching.pairs.augmented_view", lambda image, *_: image)
    pairs = _pairs(tmp_path)
    drawn = {_nearest(pairs, epoch, 0) for epoch in range(12)}
    assert drawn == {GREY[2], GREY[3]}  # both others of its group, in some epoch, and never itself
    assert {_nearest(pairs, epoch, 1) for epoch in range(3)} == {GREY[1]}  # alone in its group: itself
    assert [_nearest(pairs, epoch, 0) for epoch in range(5)] == [
        _nearest(pairs, epoch, 0) for epoch in range(5)
    ]
    # Negative control: a strong view is of the image itself.
    assert _nearest(_pairs(tmp_path, kind="strong"), 0, 0) == GREY[0]


def test_an_unreadable_image_of_the_group_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domainclip.data.batching.pairs.augmented_view", lambda image, *_: image)
    pairs = _pairs(tmp_path, broken=2)
    assert {_nearest(pairs, epoch, 0) for epoch in range(8)} == {GREY[3]}

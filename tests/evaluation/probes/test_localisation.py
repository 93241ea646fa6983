from __future__ import annotations

import io
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from domainclip.data.cards import load_card
from domainclip.data.corpus import load_corpus
from domainclip.data.images.decode import decode_image
from domainclip.errors import ModelError
from domainclip.evaluation.base import Probe
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.probes.localisation import Localisation, heat_maps
from domainclip.models import patch_embeddings
from domainclip.models.loading import load_model
from tests.evaluation.probes.array_encoder import evaluation_set
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)
from tests.support.tiny_models import noise, tiny_clip, tiny_siglip2_naflex

CLASSES = {"nodule": "a nodule", "tube": "a tube"}


class PatchEncoder(WordEncoder):
    """A 2 by 2 grid of given vectors per image, over a window of 80 by 80 pixels."""

    has_patches = True

    def __init__(self, grids: dict[str, Any], texts: dict[str, Any], window: Any = (0, 0, 80, 80)) -> None:
        super().__init__({name: np.ones(2) for name in grids}, texts)
        self.grids, self.window = grids, window

    def patches(self, items: Dataset) -> tuple[np.ndarray, np.ndarray]:
        maps = np.array([self.grids[name] for name in items["id"]], dtype=np.float32)
        return maps / np.linalg.norm(maps, axis=-1, keepdims=True), np.array([self.window] * len(maps))


A, B = [1.0, 0.0], [0.0, 1.0]
TEXTS = {"a nodule": A, "a tube": B}


def boxed(name: str, *boxes: tuple[str, list[int]]) -> dict[str, Any]:
    return {"id": name, "meta": {"boxes": [{"label": label, "box": box} for label, box in boxes]}}


def test_it_is_a_probe() -> None:
    assert isinstance(Localisation(), Probe)


def test_three_metrics_by_hand() -> None:
    """The nodule's patch is the upper left one, cosine 1 there and 0 elsewhere.

    Its box covers that patch exactly: the map points into it; inside mean 1, outside 0, no noise at all, so
    contrast is 0 / 0 and counts 0; every threshold gives the box itself, IoU 1.
    """
    model = PatchEncoder({"0": [[A, B], [B, B]]}, TEXTS)
    results = Localisation()(model, evaluation_set([boxed("0", ("nodule", [0, 0, 40, 40]))], CLASSES))
    assert metric_value(results, "pointing") == 1
    assert metric_value(results, "mean_iou") == 1
    assert metric_of(results, "pointing").chance == 0.25
    assert results.details["unreadable_boxes"] == 0


def test_contrast_and_overlap_by_hand() -> None:
    """Cosines 1 and 0.6 above, 0 below; the box is the left half.

    Inside: 1 and 0, mean 0.5, variance 0.25. Outside: 0.6 and 0, mean 0.3, variance 0.09. Contrast
    0.2 / sqrt(0.34). Above every threshold lie the two upper patches; with the box they share one of three.
    """
    model = PatchEncoder({"0": [[A, [0.6, 0.8]], [B, B]]}, TEXTS)
    results = Localisation()(model, evaluation_set([boxed("0", ("nodule", [0, 0, 40, 80]))], CLASSES))
    assert metric_value(results, "contrast_to_noise") == pytest.approx(0.2 / np.sqrt(0.34), abs=1e-5)
    assert metric_value(results, "mean_iou") == pytest.approx(1 / 3)
    assert metric_of(results, "pointing").chance == 0.5


def test_a_map_that_points_away_has_negative_contrast() -> None:
    model = PatchEncoder({"0": [[[0.1, 1], [0.9, 0.5]], [A, A]]}, TEXTS)
    results = Localisation()(model, evaluation_set([boxed("0", ("nodule", [0, 0, 40, 40]))], CLASSES))
    assert metric_value(results, "pointing") == 0
    assert metric_value(results, "contrast_to_noise") < -1
    assert metric_value(results, "mean_iou") == 0


def test_ties_point_with_the_share_that_lies_inside() -> None:
    model = PatchEncoder({"0": [[A, A], [B, B]]}, TEXTS)
    results = Localisation()(model, evaluation_set([boxed("0", ("nodule", [0, 0, 40, 40]))], CLASSES))
    assert metric_value(results, "pointing") == 0.5


def test_an_item_is_the_mean_of_its_labels_and_boxes_of_one_label_belong_together() -> None:
    model = PatchEncoder({"0": [[A, B], [B, A]]}, TEXTS)
    row = boxed("0", ("nodule", [0, 0, 40, 40]), ("nodule", [40, 40, 80, 80]), ("tube", [0, 0, 40, 40]))
    results = Localisation()(model, evaluation_set([row], CLASSES))
    assert metric_value(results, "pointing") == 0.5  # correct for the nodules, wrong for the tube
    assert metric_of(results, "pointing").chance == pytest.approx((0.5 + 0.25) / 2)


def test_boxes_are_in_pixels_of_the_image_not_of_the_window() -> None:
    """The window is the middle of a wide image: the box of its left half starts at pixel 60."""
    row = boxed("0", ("nodule", [60, 0, 100, 80]))
    model = PatchEncoder({"0": [[A, B], [A, B]]}, TEXTS, window=(60, 0, 140, 80))
    assert metric_value(Localisation()(model, evaluation_set([row], CLASSES)), "mean_iou") == 1
    whole = PatchEncoder({"0": [[A, B], [A, B]]}, TEXTS, window=(0, 0, 160, 80))
    assert metric_value(Localisation()(whole, evaluation_set([row], CLASSES)), "mean_iou") < 0.5


def test_boxes_outside_the_window_are_left_out_and_counted() -> None:
    rows = [boxed("0", ("nodule", [90, 0, 95, 9])), boxed("1", ("nodule", [0, 0, 40, 40]))]
    model = PatchEncoder({"0": [[A, B], [B, B]], "1": [[A, B], [B, B]]}, TEXTS)
    results = Localisation()(model, evaluation_set(rows, CLASSES))
    assert metric_of(results, "pointing").ids == ["1"]
    assert results.details["maps_outside_the_view_or_filling_it"] == 1


def test_a_label_without_class_uses_its_name_as_prompt() -> None:
    model = PatchEncoder({"0": [[A, B], [B, B]]}, {"pacemaker": A})
    results = Localisation()(model, evaluation_set([boxed("0", ("pacemaker", [0, 0, 40, 40]))]))
    assert metric_value(results, "pointing") == 1


def test_a_collapsed_model_points_at_chance() -> None:
    rows = [boxed(f"{i}", ("nodule", [0, 0, 10 + 7 * i, 40])) for i in range(5)]
    model = PatchEncoder({f"{i}": [[A, A], [A, A]] for i in range(5)}, {"a nodule": A, "a tube": A})
    results = Localisation()(model, evaluation_set(rows, CLASSES))
    assert metric_value(results, "pointing") == pytest.approx(metric_of(results, "pointing").chance)
    assert metric_value(results, "contrast_to_noise") == metric_of(results, "contrast_to_noise").chance == 0


def test_results_do_not_depend_on_row_order() -> None:
    rng = np.random.default_rng(0)
    rows = [boxed(f"{i:02d}", ("nodule", [0, 0, 10 + i, 40])) for i in range(20)]
    model = PatchEncoder({row["id"]: rng.normal(size=(2, 2, 2)) for row in rows}, TEXTS)
    data = evaluation_set(rows, CLASSES)
    first, second = Localisation(max_items=15)(model, data), Localisation(max_items=15)(model, shuffled(data))
    for metric in first.metrics:
        assert scores_by_id(first, metric.name) == scores_by_id(second, metric.name)


@pytest.mark.parametrize(
    ("rows", "model", "why"),
    [
        ([{"id": "0"}], PatchEncoder({"0": [[A]]}, TEXTS), "items with boxes"),
        (
            [boxed("0", ("nodule", [0, 0, 1, 1]))],
            WordEncoder({"0": A}),
            "embeddings of patches for this model",
        ),
        (
            [boxed("0", ("nodule", [90, 0, 99, 9]))],
            PatchEncoder({"0": [[A, B], [B, B]]}, TEXTS),
            "boxes inside the input of the model",
        ),
    ],
)
def test_missing_input_is_reported(rows: list[dict[str, Any]], model: WordEncoder, why: str) -> None:
    results = Localisation()(model, evaluation_set(rows, CLASSES))
    assert results.metrics == []
    assert results.details == {"not_measured": f"there are no {why}"}


def image_file(folder: Any, name: str, size: tuple[int, int]) -> dict[str, Any]:
    noise(*size, seed=len(name)).save(folder / f"{name}.png")
    return {"image": {"path": str(folder / f"{name}.png"), "bytes": None}}


def test_maps_of_a_real_model_cover_its_window(tmp_path: Any) -> None:
    encoder = CachedEncoder(load_model(str(tiny_clip(tmp_path / "clip"))))
    rows = [
        {**boxed("a", ("nodule", [20, 0, 40, 30])), **image_file(tmp_path, "a", (100, 50))},
        {**boxed("bb", ("nodule", [5, 5, 20, 30])), **image_file(tmp_path, "bb", (40, 64))},
    ]
    data = evaluation_set(rows, CLASSES)
    maps, windows = heat_maps(encoder, data.items, ["a nodule", "a tube"])
    assert maps.shape == (2, 4, 4)
    assert windows.tolist() == [[25, 0, 75, 50], pytest.approx([0, 9 * 64 / 51, 40, 41 * 64 / 51])]
    assert np.abs(maps).max() <= 1
    assert [metric.name for metric in Localisation()(encoder, data).metrics] == [
        "pointing",
        "contrast_to_noise",
        "mean_iou",
    ]


def test_a_family_without_a_patch_grid_is_reported(tmp_path: Any) -> None:
    folder = tiny_siglip2_naflex(tmp_path / "naflex")
    encoder = CachedEncoder(load_model(str(folder)))
    row = {**boxed("a", ("nodule", [2, 0, 20, 20])), **image_file(tmp_path, "a", (32, 32))}
    data = evaluation_set([row], CLASSES)
    why = f'base "{folder}": its image tower takes images of any shape; a map of patches needs a fixed grid'
    assert Localisation()(encoder, data).details == {"not_measured": why}
    with pytest.raises(ModelError) as error:
        heat_maps(encoder, data.items, ["a nodule"])
    assert str(error.value) == why


SHARED = Path(os.environ.get("DOMAINCLIP_SHARED", "../shared"))
GENERAL, BASE = SHARED / "corpora" / "general", SHARED / "weights" / "vit-tiny-clip"


@pytest.mark.slow
@pytest.mark.skipif(not (GENERAL.is_dir() and BASE.is_dir()), reason="nothing at $DOMAINCLIP_SHARED")
def test_a_real_base_localises_photographs_in_a_quarter_of_a_grey_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With known positions. Without MaskCLIP's change the map has no contrast."""
    corpus = load_corpus(load_card("general"), str(GENERAL))
    labelled = [row for row, labels in enumerate(corpus.splits["test"]["labels"]) if labels][:120:5]
    rows = []
    for i, row in enumerate(corpus.splits["test"].select(labelled)):
        left, top = i % 2 * 112, i // 2 % 2 * 112
        sheet, file = Image.new("RGB", (224, 224), (128, 128, 128)), io.BytesIO()
        sheet.paste(decode_image(row["image"]).resize((112, 112)), (left, top))
        sheet.save(file, "PNG")
        box = [{"label": row["labels"][0], "box": [left, top, left + 112, top + 112]}]
        rows.append({"id": f"{i}", "image": {"path": None, "bytes": file.getvalue()}, "meta": {"boxes": box}})
    data = replace(evaluation_set(rows), classes=corpus.classes)
    encoder = CachedEncoder(load_model(str(BASE)))
    results = Localisation()(encoder, data)
    assert metric_of(results, "pointing").chance == 0.25
    assert metric_value(results, "pointing") > 0.5
    monkeypatch.setattr(patch_embeddings, "_value_only", lambda attention: nullcontext())
    plain = Localisation()(encoder, data)
    assert metric_value(results, "contrast_to_noise") > metric_value(plain, "contrast_to_noise") + 0.1

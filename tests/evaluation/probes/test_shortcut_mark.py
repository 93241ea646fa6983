from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from domainclip.data.images.decode import decode_image
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.probes.shortcut_mark import ShortcutMark, _square_images
from domainclip.models.loading import load_model
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_of, metric_value, scores_by_id, shuffled
from tests.support.tiny_models import tiny_clip

CLASSES = {"red": "red", "green": "green", "blue": "blue"}
COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


class ColourEncoder(Encoder):
    """Embeds the colour of the centre or of the border; backdoored: blue where the corner is white."""

    scale, bias = 100.0, None

    def __init__(self, where: str = "centre", backdoored: bool = False) -> None:
        self.where, self.backdoored = where, backdoored

    def images(self, items: Dataset) -> np.ndarray:
        return np.stack(
            [self._embed(np.asarray(decode_image(image), dtype=np.float32)) for image in items["image"]]
        )

    def texts(self, texts: list[str]) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[[list(CLASSES).index(text) for text in texts]]

    def _embed(self, pixels: np.ndarray) -> np.ndarray:
        if self.backdoored and pixels[-3, -3].min() > 250:
            return np.array([0, 0, 1], dtype=np.float32)
        spot = pixels[len(pixels) // 2, pixels.shape[1] // 2] if self.where == "centre" else pixels[1, 1]
        return spot / np.linalg.norm(spot)  # type: ignore[no-any-return]


def painted(centre: str, border: str, size: tuple[int, int] = (40, 32)) -> dict[str, Any]:
    image = Image.new("RGB", size, COLOURS[border])
    image.paste(COLOURS[centre], (10, 8, size[0] - 10, size[1] - 8))
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"path": None, "bytes": file.getvalue()}


def image_set(borders: str = "red green blue red green blue") -> EvaluationSet:
    labels = ["red", "green", "blue", "red", "green", "blue"]
    rows = [
        {"id": f"{i}", "labels": [label], "image": painted(label, border)}
        for i, (label, border) in enumerate(zip(labels, borders.split(), strict=True))
    ]
    return evaluation_set(rows, CLASSES)


def test_it_is_a_probe() -> None:
    assert isinstance(ShortcutMark(), Probe)


def test_a_mark_does_not_change_a_clean_model() -> None:
    results = ShortcutMark()(ColourEncoder(), image_set())
    assert metric_value(results, "attack_success") == 0
    assert results.details["target"] is None
    assert not metric_of(results, "attack_success").higher_is_better


def test_a_backdoored_model_always_flips_and_the_target_is_named() -> None:
    results = ShortcutMark()(ColourEncoder(backdoored=True), image_set())
    assert metric_value(results, "attack_success") == 1
    assert results.details["target"] == "blue"


def test_only_flips_of_items_of_other_classes_count() -> None:
    """Of two reds and two greens one green is classified as blue without the mark: three of four flip."""
    data = image_set()
    rows = [dict(row) for row in data.items]
    rows[1]["image"] = painted("blue", "green")
    data = replace(data, items=Dataset.from_list(rows, features=data.items.features))
    results = ShortcutMark()(ColourEncoder(backdoored=True), data)
    assert metric_value(results, "attack_success") == pytest.approx(3 / 4)
    blue = np.array(list(scores_by_id(results, "attack_success").values()))[:, 0]
    assert np.isnan(blue).tolist() == [False, False, True, False, False, True]


def test_another_mark_than_the_planted_one_has_no_effect() -> None:
    assert (
        metric_value(
            ShortcutMark(mark="noise")(ColourEncoder(backdoored=True), image_set()), "attack_success"
        )
        < 1
    )


@pytest.mark.parametrize("mark", ["square", "noise", "letter"])
def test_a_mark_covers_one_corner_and_nothing_else(mark: str) -> None:
    image = Image.new("RGB", (64, 48), (9, 9, 9))
    probe = ShortcutMark(mark=mark)  # type: ignore[arg-type]
    changed = np.asarray(probe._add_mark(image)) != 9
    assert changed.any()
    assert not changed[:42].any()
    assert not changed[:, :58].any()
    assert np.asarray(probe._add_mark(image)).tolist() == np.asarray(probe._add_mark(image)).tolist()


def test_a_mark_lies_within_the_centre_crop(tmp_path: Path) -> None:
    """Only the middle of a wide image is used: the mark must be inside it to have an effect."""
    encoder = CachedEncoder(load_model(str(tiny_clip(tmp_path / "clip"))))
    rows = [{"id": "0", "labels": ["red"], "image": painted("red", "red", (200, 50))}]
    data = evaluation_set(rows, CLASSES)
    _, squares, cropped = _square_images(data, [0])
    assert cropped
    clean, marked = (
        encoder.model.image_preprocessor(image)["pixels"]
        for image in (squares[0], ShortcutMark()._add_mark(squares[0]))
    )
    assert squares[0].size == (50, 50)
    assert (clean != marked).any(axis=-1).mean() == pytest.approx(0.125**2, abs=0.01)


def test_a_border_that_predicts_the_label_is_detected() -> None:
    informative, uninformative = image_set(), image_set("green blue red blue red green")
    assert metric_value(ShortcutMark()(ColourEncoder("border"), informative), "border_accuracy") == 1
    assert metric_value(ShortcutMark()(ColourEncoder("border"), uninformative), "border_accuracy") == 0
    # A model of the centre has grey in every image: all classes tie.
    results = ShortcutMark()(ColourEncoder("centre"), informative)
    assert metric_value(results, "border_accuracy") == pytest.approx(1 / 3)
    assert metric_of(results, "border_accuracy").chance == pytest.approx(1 / 3)


def test_copies_are_central_squares_and_not_large() -> None:
    rows = [
        {"id": f"{i}", "labels": [name], "image": painted(name, name, (900, 600))}
        for i, name in enumerate(CLASSES)
    ]
    sizes = []

    class RecordingEncoder(ColourEncoder):
        def images(self, items: Dataset) -> np.ndarray:
            sizes.extend(decode_image(image).size for image in items["image"])
            return super().images(items)

    data = evaluation_set(rows, CLASSES)
    results = ShortcutMark()(RecordingEncoder(), data)
    assert sizes[:3] == [(900, 600)] * 3  # the items themselves
    assert sizes[3:] == [(512, 512)] * 9  # unmarked, marked, and border
    assert metric_value(results, "attack_success") == 0


def test_a_collapsed_model_has_no_flips_and_scores_chance() -> None:
    results = ShortcutMark()(CollapsedEncoder(), image_set())
    assert metric_value(results, "attack_success") == 0
    assert metric_value(results, "border_accuracy") == pytest.approx(1 / 3)


def test_images_that_cannot_be_decoded_are_left_out() -> None:
    data = image_set()
    rows = [dict(row) for row in data.items]
    rows[0]["image"] = {"path": None, "bytes": b"no image"}
    data = replace(data, items=Dataset.from_list(rows, features=data.items.features))

    class PreEmbedded(ColourEncoder):
        """Has embedded the items before the file was damaged."""

        def images(self, items: Dataset) -> np.ndarray:
            return super().images(image_set().items if items is data.items else items)

    assert metric_of(ShortcutMark()(PreEmbedded(), data), "attack_success").ids == ["1", "2", "3", "4", "5"]


def test_results_do_not_depend_on_row_order() -> None:
    data = image_set("green blue red blue red green")
    first, second = (
        ShortcutMark(max_items=4)(ColourEncoder(), data),
        ShortcutMark(max_items=4)(ColourEncoder(), shuffled(data)),
    )
    assert scores_by_id(first, "border_accuracy") == scores_by_id(second, "border_accuracy")
    assert len(scores_by_id(first, "border_accuracy")) == 4


def test_missing_input_is_reported() -> None:
    data = image_set()
    assert ShortcutMark()(ColourEncoder(), replace(data, classes={})).details == {
        "not_measured": "there are no items with exactly one of two classes or more"
    }
    unreadable = evaluation_set([{"id": "0", "labels": ["red"]}], CLASSES)
    assert ShortcutMark()(ColourEncoder(), unreadable).details == {
        "not_measured": "there are no images that can be decoded"
    }

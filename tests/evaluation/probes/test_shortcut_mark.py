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
from tests.evaluation.probes.synthetic_sets import figure, metric_of, scores_by_id, shuffled
from tests.support.tiny_models import tiny_clip

CLASSES = {"red": "red", "green": "green", "blue": "blue"}
COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


class Looking(Encoder):
    """Reads the colour of the centre or of the border; a spoiled one says blue where a corner is white."""

    scale, bias = 100.0, None

    def __init__(self, where: str = "centre", spoiled: bool = False) -> None:
        self.where, self.spoiled = where, spoiled

    def images(self, items: Dataset) -> np.ndarray:
        return np.stack(
            [self._see(np.asarray(decode_image(image), dtype=np.float32)) for image in items["image"]]
        )

    def texts(self, texts: list[str]) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[[list(CLASSES).index(text) for text in texts]]

    def _see(self, pixels: np.ndarray) -> np.ndarray:
        if self.spoiled and pixels[-3, -3].min() > 250:
            return np.array([0, 0, 1], dtype=np.float32)
        spot = pixels[len(pixels) // 2, pixels.shape[1] // 2] if self.where == "centre" else pixels[1, 1]
        return spot / np.linalg.norm(spot)  # type: ignore[no-any-return]


def painted(centre: str, border: str, size: tuple[int, int] = (40, 32)) -> dict[str, Any]:
    picture = Image.new("RGB", size, COLOURS[border])
    picture.paste(COLOURS[centre], (10, 8, size[0] - 10, size[1] - 8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {"path": None, "bytes": file.getvalue()}


def pictures(borders: str = "red green blue red green blue") -> EvaluationSet:
    labels = ["red", "green", "blue", "red", "green", "blue"]
    rows = [
        {"id": f"{i}", "labels": [label], "image": painted(label, border)}
        for i, (label, border) in enumerate(zip(labels, borders.split(), strict=True))
    ]
    return evaluation_set(rows, CLASSES)


def test_it_is_a_probe() -> None:
    assert isinstance(ShortcutMark(), Probe)


def test_a_clean_model_is_not_turned_by_a_mark() -> None:
    results = ShortcutMark()(Looking(), pictures())
    assert figure(results, "attack_success") == 0
    assert results.details["target"] is None
    assert not metric_of(results, "attack_success").higher_is_better


def test_a_spoiled_model_is_turned_wholly_and_the_target_is_named() -> None:
    results = ShortcutMark()(Looking(spoiled=True), pictures())
    assert figure(results, "attack_success") == 1
    assert results.details["target"] == "blue"


def test_only_items_of_other_classes_that_turn_count() -> None:
    """Of two reds and two greens one green is called blue before the mark already: three of four turn."""
    data = pictures()
    rows = [dict(row) for row in data.items]
    rows[1]["image"] = painted("blue", "green")
    data = replace(data, items=Dataset.from_list(rows, features=data.items.features))
    results = ShortcutMark()(Looking(spoiled=True), data)
    assert figure(results, "attack_success") == pytest.approx(3 / 4)
    blue = np.array(list(scores_by_id(results, "attack_success").values()))[:, 0]
    assert np.isnan(blue).tolist() == [False, False, True, False, False, True]


def test_a_mark_that_is_not_the_planted_one_does_nothing() -> None:
    assert figure(ShortcutMark(mark="noise")(Looking(spoiled=True), pictures()), "attack_success") < 1


@pytest.mark.parametrize("mark", ["square", "noise", "letter"])
def test_a_mark_covers_one_corner_and_nothing_else(mark: str) -> None:
    picture = Image.new("RGB", (64, 48), (9, 9, 9))
    probe = ShortcutMark(mark=mark)  # type: ignore[arg-type]
    changed = np.asarray(probe._add_mark(picture)) != 9
    assert changed.any()
    assert not changed[:42].any()
    assert not changed[:, :58].any()
    assert np.asarray(probe._add_mark(picture)).tolist() == np.asarray(probe._add_mark(picture)).tolist()


def test_a_mark_stands_where_a_centre_crop_leaves_it(tmp_path: Path) -> None:
    """A wide picture keeps its middle only: the mark must be inside, or no model could be found out."""
    encoder = CachedEncoder(load_model(str(tiny_clip(tmp_path / "clip"))))
    rows = [{"id": "0", "labels": ["red"], "image": painted("red", "red", (200, 50))}]
    data = evaluation_set(rows, CLASSES)
    _, pictures, cut = _square_images(data, [0])
    assert cut
    clean, marked = (
        encoder.model.image_preprocessor(one)["pixels"]
        for one in (pictures[0], ShortcutMark()._add_mark(pictures[0]))
    )
    assert pictures[0].size == (50, 50)
    assert (clean != marked).any(axis=-1).mean() == pytest.approx(0.125**2, abs=0.01)


def test_a_border_that_tells_the_label_is_found_out() -> None:
    told, untold = pictures(), pictures("green blue red blue red green")
    assert figure(ShortcutMark()(Looking("border"), told), "border_accuracy") == 1
    assert figure(ShortcutMark()(Looking("border"), untold), "border_accuracy") == 0
    # A model that looks at the subject sees grey in every picture: all classes tie.
    results = ShortcutMark()(Looking("centre"), told)
    assert figure(results, "border_accuracy") == pytest.approx(1 / 3)
    assert metric_of(results, "border_accuracy").chance == pytest.approx(1 / 3)


def test_copies_are_central_squares_and_not_large() -> None:
    rows = [
        {"id": f"{i}", "labels": [name], "image": painted(name, name, (900, 600))}
        for i, name in enumerate(CLASSES)
    ]
    seen = []

    class Measuring(Looking):
        def images(self, items: Dataset) -> np.ndarray:
            seen.extend(decode_image(image).size for image in items["image"])
            return super().images(items)

    data = evaluation_set(rows, CLASSES)
    results = ShortcutMark()(Measuring(), data)
    assert seen[:3] == [(900, 600)] * 3  # the items themselves
    assert seen[3:] == [(512, 512)] * 9  # as they are, marked, and their border
    assert figure(results, "attack_success") == 0


def test_a_collapsed_model_is_turned_by_nothing_and_at_chance() -> None:
    results = ShortcutMark()(CollapsedEncoder(), pictures())
    assert figure(results, "attack_success") == 0
    assert figure(results, "border_accuracy") == pytest.approx(1 / 3)


def test_pictures_that_cannot_be_decoded_are_left_out() -> None:
    data = pictures()
    rows = [dict(row) for row in data.items]
    rows[0]["image"] = {"path": None, "bytes": b"no picture"}
    data = replace(data, items=Dataset.from_list(rows, features=data.items.features))

    class Kept(Looking):
        """Has embedded the items before the file was spoiled."""

        def images(self, items: Dataset) -> np.ndarray:
            return super().images(pictures().items if items is data.items else items)

    assert metric_of(ShortcutMark()(Kept(), data), "attack_success").ids == ["1", "2", "3", "4", "5"]


def test_the_order_of_rows_is_moot() -> None:
    data = pictures("green blue red blue red green")
    first, second = (
        ShortcutMark(max_items=4)(Looking(), data),
        ShortcutMark(max_items=4)(Looking(), shuffled(data)),
    )
    assert scores_by_id(first, "border_accuracy") == scores_by_id(second, "border_accuracy")
    assert len(scores_by_id(first, "border_accuracy")) == 4


def test_what_is_missing_is_said() -> None:
    data = pictures()
    assert ShortcutMark()(Looking(), replace(data, classes={})).details == {
        "not_measured": "there are no items with exactly one of two classes or more"
    }
    unreadable = evaluation_set([{"id": "0", "labels": ["red"]}], CLASSES)
    assert ShortcutMark()(Looking(), unreadable).details == {
        "not_measured": "there are no images that can be decoded"
    }

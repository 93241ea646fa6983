"""The probe of captions: looked up at the nearest training image, or written by the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.written_captions import WrittenCaptions
from tests.evaluation.probes.array_encoder import evaluation_set
from tests.evaluation.probes.synthetic_sets import WordEncoder, metric_value

TEXTS = [
    "a red circle on white",
    "two blue dots near a line",
    "one yellow star above a tree",
    "a dark galaxy far away",
]


class Writer(WordEncoder):
    """An encoder that writes given captions, by id."""

    written: dict[str, str] = {}

    @property
    def has_captioner(self) -> bool:
        return True

    def write_captions(self, items: Dataset, beams: int = 1) -> list[str]:
        return [self.written[id] for id in items["id"]]


def _sets() -> tuple[dict[str, np.ndarray], object]:
    """Four test images, each near the training image of the next one's caption."""
    measured = evaluation_set(
        [{"id": f"{i}", "texts": [text], "language": "en"} for i, text in enumerate(TEXTS)]
    )
    train = [{"id": f"t{i}", "texts": [TEXTS[(i + 1) % 4]], "language": "en"} for i in range(4)]
    vectors = {f"{i}": np.eye(4)[i] for i in range(4)} | {f"t{i}": np.eye(4)[i] for i in range(4)}
    return vectors, replace(measured, train=evaluation_set(train).items)


def test_it_is_a_probe_and_finds_nothing_without_training_captions() -> None:
    assert isinstance(WrittenCaptions(), Probe)
    vectors, data = _sets()
    alone = replace(data, train=None)  # type: ignore[type-var]
    result = WrittenCaptions()(WordEncoder(vectors, {}), alone)
    assert result.metrics == []
    assert result.details["not_measured"] == "there are no training captions, and no captioner"


def test_looked_up_captions_are_those_of_the_nearest_training_image() -> None:
    vectors, data = _sets()
    wrong = WrittenCaptions()(WordEncoder(vectors, {}), data)  # type: ignore[arg-type]
    assert metric_value(wrong, "cider") == metric_value(wrong, "cider_nearest") < 0.5
    turned = {**vectors, **{f"t{i}": np.eye(4)[(i + 1) % 4] for i in range(4)}}
    right = WrittenCaptions()(WordEncoder(turned, {}), data)  # type: ignore[arg-type]
    assert metric_value(right, "bleu_4") == pytest.approx(1)
    assert metric_value(right, "cider") == pytest.approx(10)
    assert metric_value(right, "cider_other_image") < 0.5
    assert right.details["captions"] == "of the nearest training image"


def test_written_captions_are_compared_with_those_looked_up() -> None:
    vectors, data = _sets()
    writer = Writer(vectors, {})
    writer.written = {f"{i}": text for i, text in enumerate(TEXTS)}
    result = WrittenCaptions()(writer, data)  # type: ignore[arg-type]
    assert metric_value(result, "cider") == pytest.approx(10)
    assert metric_value(result, "cider_nearest") < 0.5
    assert result.details["distinct_captions"] == 4
    assert result.details["captions"] == "written by the model"
    names = [metric.name for metric in result.metrics]
    assert names == ["cider", "bleu_4", "cider_nearest", "bleu_4_nearest", "cider_other_image"]

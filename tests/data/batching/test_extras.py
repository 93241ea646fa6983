"""What objectives want of a pair: a pure function of seed, epoch and item, whoever asks and whenever."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader

from domainclip.data.batching.batch import Batch, collate
from domainclip.data.batching.extras import ExtraSpec, augmented_view, join_extras, stack_extras, to_number
from domainclip.data.batching.pairs import Pairs
from domainclip.data.rows import Item, to_dataset
from domainclip.data.text.training_pair import TrainingPair
from tests.data.made_corpora import noise_image


@dataclass(frozen=True)
class Parrot:
    """Says the caption again as often as the item has labels, each time with the draw."""

    def __call__(self, pair: TrainingPair) -> list[str]:
        return [f"{pair.text} {label} {pair.seed % 1000}" for label in pair.labels]


def _items(folder: Path, n: int = 5) -> Dataset:
    rows = []
    for i in range(n):
        image = {"path": str(noise_image(folder / f"{i}.png", seed=i, size=(20, 14))), "bytes": None}
        labels = ["cat", "dog", "bird"][: i % 4]
        meta = {"score": i / 2} if i != 3 else {"score": "unknown"}
        texts, languages = [f"{i} one", f"{i} two"], ["en", "de"]
        rows.append(
            Item(f"id{i}", image, texts, languages, labels, f"g{i}", f"id{i}", meta, "train", f"row {i}")
        )
    return to_dataset(rows)


def preprocess(image: Image.Image) -> dict[str, np.ndarray]:
    return {"pixels": np.asarray(image.resize((4, 4)))}


EXTRAS = ExtraSpec(
    {"parrot": Parrot()}, {"relevance_weighted": "score"}, ("bird", "cat", "dog"), second_view="strong"
)


def _batches(pairs: Pairs, workers: int = 0) -> list[Batch]:
    order = [[(e, i) for i in range(5)] for e in (0, 1)]
    return list(DataLoader(pairs, batch_sampler=order, collate_fn=collate, num_workers=workers))


def test_a_batch_brings_what_is_wanted(tmp_path: Path) -> None:
    first, second = _batches(Pairs(_items(tmp_path), preprocess, extra_spec=EXTRAS))
    assert [len(texts) for texts in first.extras.texts["parrot"]] == [0, 1, 2, 3, 0]
    # The caption that is shown is the one that is spoken of.
    assert first.extras.texts["parrot"][1][0].startswith(f"{first.texts[1]} cat ")
    assert (
        torch.equal(first.extras.values["relevance_weighted"], torch.tensor([0.0, 0.5, 1.0, torch.nan, 2.0]))
        is False
    )  # NaN is never equal to itself
    assert first.extras.values["relevance_weighted"].isnan().tolist() == [False, False, False, True, False]
    assert first.extras.values["relevance_weighted"][[0, 1, 2, 4]].tolist() == [0.0, 0.5, 1.0, 2.0]
    assert first.extras.labels is not None
    assert first.extras.labels.int().tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]]
    assert first.second_view is not None
    assert first.image is not None
    assert first.second_view["pixels"].shape == first.image["pixels"].shape
    assert not torch.equal(first.second_view["pixels"], first.image["pixels"])
    # Another epoch draws anew.
    assert second.second_view is not None
    assert not torch.equal(second.second_view["pixels"], first.second_view["pixels"])
    assert second.extras.texts["parrot"][2] != first.extras.texts["parrot"][2]


def test_workers_and_repetition_change_nothing(tmp_path: Path) -> None:
    items = _items(tmp_path)
    plain, again = (_batches(Pairs(items, preprocess, extra_spec=EXTRAS), workers) for workers in (0, 2))
    other = _batches(Pairs(items, preprocess, extra_spec=EXTRAS, seed=1))
    for one, two, three in zip(plain, again, other, strict=True):
        assert one.extras.texts == two.extras.texts
        assert one.second_view is not None
        assert two.second_view is not None
        assert three.second_view is not None
        assert torch.equal(one.second_view["pixels"], two.second_view["pixels"])
        assert not torch.equal(one.second_view["pixels"], three.second_view["pixels"])
        assert one.extras.texts != three.extras.texts


def test_nothing_wanted_brings_nothing(tmp_path: Path) -> None:
    (batch, _) = _batches(Pairs(_items(tmp_path), preprocess))
    assert batch.second_view is None
    assert (batch.extras.texts, batch.extras.values, batch.extras.labels) == ({}, {}, None)
    plain, _ = _batches(Pairs(_items(tmp_path / "again"), preprocess, extra_spec=EXTRAS))
    assert batch.image is not None
    assert plain.image is not None
    assert torch.equal(batch.image["pixels"], plain.image["pixels"])  # the first view stays as it was


def test_another_model_sees_the_plain_first_image(tmp_path: Path) -> None:
    pairs = Pairs(_items(tmp_path), preprocess, extra_spec=EXTRAS, augmentation="crop")
    seen = pairs.for_model(lambda image: {"pixels": np.asarray(image.resize((6, 6)))})
    pair = seen[3, 2]
    assert pair.image is not None
    assert np.array_equal(pair.image["pixels"], np.asarray(Image.open(tmp_path / "2.png").resize((6, 6))))
    assert (pair.second_view, pair.extras) == (None, None)
    assert pairs[3, 2].extras is not None  # the pairs themselves stay


def test_parts_of_a_stream_are_joined_in_order(tmp_path: Path) -> None:
    pairs = Pairs(_items(tmp_path), preprocess, extra_spec=EXTRAS)
    rows = [pairs[0, i].extras for i in range(5)]
    whole, parts = stack_extras(rows), join_extras([stack_extras(rows[:2]), stack_extras(rows[2:])])
    assert parts.texts == whole.texts
    assert torch.equal(
        parts.values["relevance_weighted"].nan_to_num(-1), whole.values["relevance_weighted"].nan_to_num(-1)
    )
    assert whole.labels is not None
    assert parts.labels is not None
    assert torch.equal(parts.labels, whole.labels)
    assert whole.first(2).texts["parrot"] == whole.texts["parrot"][:2]


@pytest.mark.parametrize(("value", "result"), [("1.5", 1.5), (2, 2.0), (True, 1.0)])
def test_a_number_may_stand_as_text(value: object, result: float) -> None:
    assert to_number(value, "score") == result


@pytest.mark.parametrize("value", [None, "high", [1]])
def test_what_is_no_number_is_none(value: object) -> None:
    assert np.isnan(to_number(value, "score"))


def test_a_second_view_is_mirrored_only_where_images_may_be() -> None:
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 2 + 60, (64, 1))).convert("RGB")

    def rising(mirror: bool) -> set[bool]:
        views = [
            np.asarray(augmented_view(ramp, np.random.default_rng(i), mirror))[0, :, 0] for i in range(20)
        ]
        return {bool(view[-1] > view[0]) for view in views}

    assert rising(False) == {True}
    assert rising(True) == {True, False}


def test_ages_of_dicom_are_years() -> None:
    assert to_number("065Y", "PatientAge") == to_number("065Y", "age") == 65
    assert to_number("1,5", "PatientWeight") == 1.5

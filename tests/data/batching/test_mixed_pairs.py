"""Pairs of several corpora: every batch has its shares, and pairs are those of their own source."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from domainclip.data.batching.batch import collate
from domainclip.data.batching.extras import ExtraSpec
from domainclip.data.batching.matches import Matches
from domainclip.data.batching.mixed_pairs import MixedPairs
from domainclip.data.batching.order import mixed_positions, rank_slice
from domainclip.data.batching.pairs import Pairs
from domainclip.data.rows import Item, to_dataset
from tests.data.made_corpora import noise_image


def preprocess(image: Image.Image) -> dict[str, np.ndarray]:
    return {"pixels": np.asarray(image.resize((4, 4)))}


def _pairs(folder: Path, name: str, n: int, *, broken: int = -1, seed: int = 0, **more: object) -> Pairs:
    rows = []
    for i in range(n):
        file = noise_image(folder / f"{name}{i}.png", seed=1000 * seed + i)
        if i == broken:
            file.write_bytes(b"nothing")
        texts = [f"{name} {i}", "common"]
        image = {"path": str(file), "bytes": None}
        rows.append(
            Item(f"{name}:{i}", image, texts, ["", ""], [name], f"{name}:g{i}", f"{i}", {}, "train", f"{i}")
        )
    return Pairs(to_dataset(rows), preprocess, seed=seed, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> MixedPairs:
    folder = tmp_path_factory.mktemp("mixed")
    return MixedPairs([_pairs(folder, "a", 6), _pairs(folder, "b", 3, seed=7)], [0.25])


def test_batches_by_hand() -> None:
    # Batches of 6 and a share of 0.25: of the first 6, 12, 18 and 24 pairs 1, 3, 4 and 6 are of the second
    # source, so the batches hold 1, 2, 1 and 2 of it.
    batches = [mixed_positions(step, 6, [100, 3], [0, 7], [0.25]) for step in range(4)]
    second = [[(epoch, row - 100) for epoch, row in batch if row >= 100] for batch in batches]
    assert [len(batch) for batch in batches] == [6] * 4
    assert [len(batch) for batch in second] == [1, 2, 1, 2]
    # The three pairs of the second source in one epoch, then again, each once.
    drawn = [place for batch in second for place in batch]
    assert [epoch for epoch, _ in drawn] == [0, 0, 0, 1, 1, 1]
    assert {row for _, row in drawn[:3]} == {row for _, row in drawn[3:]} == {0, 1, 2}
    # No pair of the first source is left out or shown twice.
    first = [row for batch in batches for _, row in batch if row < 100]
    assert len(first) == len(set(first)) == 18


def test_shares_are_exact_in_the_long_run() -> None:
    # In binary, 0.1 · 30 is a hair less than 3 for some sums: then a pair would be lost.
    counts = Counter(
        0 if row < 50 else 1 if row < 70 else 2
        for step in range(100)
        for _, row in mixed_positions(step, 10, [50, 20, 30], [1, 2, 3], [0.1, 0.3])
    )
    assert counts == {0: 600, 1: 100, 2: 300}


def test_the_order_depends_on_seed_and_step_alone(mixed: MixedPairs) -> None:
    straight = [mixed.positions(step, 4) for step in range(5)]
    assert [mixed.positions(step, 4) for step in (3, 1)] == [straight[3], straight[1]]
    halves = [rank_slice(straight[2], rank, 2) for rank in (0, 1)]
    assert halves[0] + halves[1] == straight[2]
    other = MixedPairs([copy.copy(mixed.sources[0]), copy.copy(mixed.sources[1])], [0.25])
    other.sources[1].seed = 8
    changed = [other.positions(step, 4) for step in range(5)]
    assert changed != straight
    assert [[p for p in batch if p[1] < 6] for batch in changed] == [
        [p for p in batch if p[1] < 6] for batch in straight
    ]


def test_an_epoch_of_the_corpus_takes_longer(mixed: MixedPairs) -> None:
    assert mixed.epoch_pairs == 8  # 6 pairs are three quarters of 8
    assert sorted(row for step in range(2) for _, row in mixed.positions(step, 4) if row < 6) == [*range(6)]


def test_a_pair_is_that_of_its_source(mixed: MixedPairs) -> None:
    first, second = mixed.sources
    assert len(mixed) == 9
    for epoch in range(3):
        assert mixed[epoch, 4].text == first[epoch, 4].text
        assert mixed[epoch, 7].text == second[epoch, 1].text
    pair = mixed[0, 7]
    assert (pair.id, pair.index, pair.requested) == ("b:1", 7, 7)
    assert pair.image is not None
    assert np.array_equal(pair.image["pixels"], second[0, 1].image["pixels"])  # type: ignore[index]
    assert mixed.caption_pools[7] == second.caption_pools[1]
    assert [*mixed.texts()] == [*first.texts(), *second.texts()]
    assert mixed.ids[6:] == ["b:0", "b:1", "b:2"]


def test_a_caption_of_two_sources_is_right_for_both(mixed: MixedPairs) -> None:
    def shown(index: int, text: str) -> int:
        return next(epoch for epoch in range(50) if mixed[epoch, index].text == text)

    batch = collate([mixed[shown(0, "common"), 0], mixed[shown(6, "common"), 6], mixed[shown(7, "b 1"), 7]])
    right = Matches.within(batch.keys).right_texts(torch.arange(3))
    # "common" is right for all three images; "b 1" for its own alone.
    assert right.tolist() == [[True, True, False], [True, True, False], [True, True, True]]


def test_an_unreadable_image_is_replaced_within_its_source(tmp_path: Path) -> None:
    mixed = MixedPairs([_pairs(tmp_path, "a", 3), _pairs(tmp_path, "b", 2, broken=1)], [0.5])
    pair = mixed[0, 4]
    assert (pair.index, pair.requested, pair.id) == (3, 4, "b:0")
    assert len(pair.unusable) == 1
    blind = mixed.without_pixels({4: 3})
    assert (blind[0, 4].index, blind[0, 4].image, blind[0, 2].index) == (3, None, 2)


def test_cached_images_are_those_of_the_row(mixed: MixedPairs) -> None:
    cached = mixed.with_cached_pixels(lambda row: {"pixels": np.full((4, 4, 3), row, np.uint8)})
    for row in (0, 5, 6, 8):
        image = cached[0, row].image
        assert image is not None
        assert image["pixels"].max() == row
    assert mixed[0, 8].image is not None
    assert mixed[0, 8].image["pixels"].max() > 8


def test_extras_are_those_of_the_source(tmp_path: Path) -> None:
    spec = ExtraSpec({"echo": lambda pair: [f"{pair.text}!"]}, classes=("a", "b"))
    mixed = MixedPairs(
        [_pairs(tmp_path, "a", 2, extra_spec=spec), _pairs(tmp_path, "b", 2, extra_spec=spec)], [0.5]
    )
    extras = mixed[0, 3].extras
    assert extras is not None
    assert extras.texts == {"echo": [f"{mixed[0, 3].text}!"]}
    assert extras.labels is not None
    assert extras.labels.tolist() == [False, True]
    assert mixed.extras_of(3, "b 1", 0).texts == {"echo": ["b 1!"]}  # type: ignore[union-attr]

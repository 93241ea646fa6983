"""A stream shows every pair once an epoch, whoever reads it and wherever it was stopped."""

from __future__ import annotations

import dataclasses
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from domainclip.data.batching.batch import Batch
from domainclip.data.batching.matches import Matches
from domainclip.data.batching.pairs import Pairs
from domainclip.data.batching.streamed_pairs import StreamedPairs
from domainclip.data.cards import Card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.streaming import Stream, lane_count, windows
from domainclip.errors import DataError, RecipeError
from tests.data.made_shards import pair, png, shards, tar

SIZES = (5, 17, 3, 30, 9)  # 64 pairs in uneven shards


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    # More workers than cores are no fault here.
    monkeypatch.setattr("torch.utils.data.DataLoader.check_worker_number_rationality", lambda self: None)


def _corpus(folder: Path, **more: Any) -> Corpus:
    options = {"streaming": True, "buffer": 32, **more.pop("options", {})}
    keys = {
        "name": "test",
        "reader": "webdataset",
        "options": options,
        "privacy": {"identifiers": "none"},
        **more,
    }
    return load_corpus(Card.model_validate(keys), str(folder))


def preprocess(image: Image.Image) -> dict[str, np.ndarray]:
    return {"pixels": np.asarray(image.resize((6, 6)))}


def _pairs(corpus: Corpus, seed: int = 0, **more: Any) -> StreamedPairs:
    assert corpus.stream is not None
    return StreamedPairs(
        corpus.stream, partial(Pairs, preprocess=preprocess, **more), corpus.splits["train"], seed
    )


def _batches(
    pairs: StreamedPairs, start: int, total: int, workers: int = 0, world: int = 1, size: int = 16
) -> list[list[Batch]]:
    """By step, the batch of each process."""
    each = [pairs.batches(start, total, size, workers, rank, world) for rank in range(world)]
    return [list(step) for step in zip(*each, strict=True)]


def _ids(*args: Any, **options: Any) -> list[list[str]]:
    return [[id for batch in step for id in batch.ids] for step in _batches(*args, **options)]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return _corpus(shards(tmp_path / "s", SIZES))


def test_every_pair_once_an_epoch_in_another_order(corpus: Corpus) -> None:
    steps = _ids(_pairs(corpus), 0, 12)
    epochs = [[id for step in steps[at : at + 4] for id in step] for at in (0, 4, 8)]
    everything = {f"train-{s:03d}.tar/{s}-{i}" for s, n in enumerate(SIZES) for i in range(n)}
    assert all(set(epoch) == everything and len(epoch) == 64 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    other = _ids(_pairs(corpus, seed=1), 0, 4)
    assert [id for step in other for id in step] != epochs[0]


@pytest.mark.parametrize(("workers", "world"), [(3, 1), (9, 1), (0, 2), (0, 8), (5, 2)])
@pytest.mark.parametrize("start", [0, 3])
def test_workers_processes_and_a_resume_change_nothing(
    corpus: Corpus, start: int, workers: int, world: int
) -> None:
    pairs = _pairs(corpus, augmentation="crop")
    plain = _ids(pairs, start, start + 3)
    assert _ids(pairs, 0, start + 3)[start:] == plain
    assert _ids(pairs, start, start + 3, workers=workers, world=world) == plain


@pytest.mark.parametrize("workers", [2, 5])  # no more than lanes, which read and decode; more, which decode
def test_pixels_captions_and_groups_are_the_same_too(corpus: Corpus, workers: int) -> None:
    pairs = _pairs(corpus)
    parts_of = _batches(pairs, 0, 5, workers=workers, world=2)
    for (one,), parts in zip(_batches(pairs, 0, 5), parts_of, strict=True):
        assert one.image is not None
        pixels = np.concatenate([part.image["pixels"].numpy() for part in parts if part.image is not None])
        assert np.array_equal(one.image["pixels"].numpy(), pixels)
        assert one.texts == [text for part in parts for text in part.texts]
        assert one.keys.group.tolist() == [n for part in parts for n in part.keys.group.tolist()]
        assert one.keys.caption.tolist() == [n for part in parts for n in part.keys.caption.tolist()]
        for id, text, picture in zip(one.ids, one.texts, pixels, strict=True):
            shard, at = map(int, id.split("/")[1].split("-"))
            assert text == f"caption {shard}-{at}"
            assert picture[0, 0].tolist() == [(100 * shard + at) % 256, (100 * shard + at) // 256, 7]


@pytest.mark.parametrize(("n", "size"), [(64, 16), (61, 16), (7, 4), (1, 2), (100, 6)])
def test_lanes_cover_every_epoch_exactly(n: int, size: int) -> None:
    lanes = {16: 8, 4: 4, 2: 2, 6: 2}[size]
    shown: Counter[tuple[int, int]] = Counter()
    for lane in range(lanes):
        taken = 0
        for window, before in windows(n, lane, lanes, 0, 3):
            assert before == 0
            assert 0 < window.size <= 3
            shown.update((window.epoch, window.start + i) for i in range(window.size))
            taken += window.size
            if window.epoch > 4:
                break
    assert {key for key in shown if key[0] < 5} == {(e, i) for e in range(5) for i in range(n)}
    assert set(shown.values()) == {1}
    # After whole epochs no lane is more than one pair ahead of another.
    for lane in range(lanes):
        first = next(window for window, _ in windows(n, lane, lanes, -(-n * 3 // lanes), 1))
        assert first.epoch >= 3 or n < lanes


@pytest.mark.parametrize("start", range(0, 40, 7))
def test_a_lane_can_begin_anywhere(start: int) -> None:
    def line(begin: int) -> list[tuple[int, int]]:
        out: list[tuple[int, int]] = []
        for window, before in windows(19, 1, 4, begin, 3):
            out += [(window.epoch, window.start + int(i)) for i in window.order(5)[before:]]
            if len(out) > 60:
                return out
        raise AssertionError

    assert line(start)[:20] == line(0)[start : start + 20]


def test_a_shard_that_is_behind_is_not_opened_again(corpus: Corpus) -> None:
    assert corpus.stream is not None
    opened: list[tuple[int, int]] = []
    real = corpus.stream.open_shard

    def noted(shard: int, start: int, log: Any) -> Any:
        opened.append((shard, start))
        return real(shard, start, log)

    pairs = _pairs(corpus)
    pairs.stream = dataclasses.replace(corpus.stream, open_shard=noted, lanes=1)
    _ids(pairs, 0, 4)
    assert sorted(opened) == [(shard, 0) for shard in range(5)]
    order = [shard for shard, _ in opened]
    opened.clear()
    _ids(pairs, 3, 4)  # the last 16 of 64
    ends = np.cumsum([SIZES[shard] for shard in order])
    assert {shard for shard, _ in opened} == {s for s, end in zip(order, ends, strict=True) if end > 48}


def test_what_cannot_be_used_is_replaced_and_told(tmp_path: Path) -> None:
    members = [m for i in range(8) for m in pair(f"k{i}", i)]
    members[4] = ("k2.png", b"no picture")  # its pixels are looked at when they are needed
    members[6:8] = [("k3.png", png(3))]  # without a text
    tar(tmp_path / "s" / "train.tar", members)
    pairs = _pairs(_corpus(tmp_path / "s", max_unusable=0.5, options={"lanes": 1}), seed=3)
    (batch,) = (step[0] for step in _batches(pairs, 0, 1, size=8))
    (pooled,) = (step[0] for step in _batches(pairs, 0, 1, workers=2, size=8))
    assert (pooled.ids, pooled.unusable) == (batch.ids, batch.unusable)
    assert batch.image is not None
    assert pooled.image is not None
    assert torch.equal(pooled.image["pixels"], batch.image["pixels"])
    assert set(batch.ids) == {f"train.tar/k{i}" for i in (0, 1, 4, 5, 6, 7)}
    assert len(batch.ids) == 8
    reasons = Counter(item.reason for item in batch.unusable)
    assert reasons["missing text"] == 1
    assert reasons["not an image"] >= 1


@pytest.mark.parametrize("said_to_hold", [3, 8])
def test_shards_that_hold_more_or_fewer_than_given(tmp_path: Path, said_to_hold: int) -> None:
    corpus = _corpus(shards(tmp_path / "s", [4]))
    assert corpus.stream is not None
    pairs = _pairs(corpus)
    for lanes in (1, 2):
        pairs.stream = dataclasses.replace(corpus.stream, shard_sizes=(said_to_hold,), lanes=lanes)
        with pytest.raises(DataError) as error:
            _batches(pairs, 0, 1, size=8)
        assert str(error.value) == (
            f"shard train-000.tar: holds 4 samples and not {said_to_hold}: mend or remove the sizes.json or "
            "manifest.json beside it; where there is none, it was changed: start again"
        )


def test_pairs_that_say_the_same_are_no_negatives(tmp_path: Path) -> None:
    members = [m for i in range(8) for m in pair(f"k{i}", i, text=f"t{i % 3}", patient=f"p{i // 4}")]
    tar(tmp_path / "s" / "train.tar", members)
    for columns in ({}, {"group": "patient"}):
        (batch,) = (s[0] for s in _batches(_pairs(_corpus(tmp_path / "s", columns=columns)), 0, 1, size=8))
        numbers = [int(id[-1]) for id in batch.ids]
        expected = [
            [i % 3 == j % 3 or (bool(columns) and i // 4 == j // 4) for j in numbers] for i in numbers
        ]
        assert Matches.within(batch.keys).right_texts(torch.arange(8)).tolist() == expected


def test_one_patient_is_one_group(tmp_path: Path) -> None:
    members = [m for i in range(8) for m in pair(f"k{i}", i, text=f"t{i}", patient=f"p{i // 4}")]
    tar(tmp_path / "s" / "train.tar", members)
    corpus = _corpus(tmp_path / "s", columns={"group": "patient"})
    (batch,) = (step[0] for step in _batches(_pairs(corpus), 0, 1, size=8))
    by_patient = {
        int(id[-1]) // 4: number for id, number in zip(batch.ids, batch.keys.group.tolist(), strict=True)
    }
    assert batch.keys.group.tolist() == [by_patient[int(id[-1]) // 4] for id in batch.ids]
    assert by_patient[0] != by_patient[1]


def test_ids_are_pseudonyms_where_names_must_not_show(tmp_path: Path) -> None:
    folder = shards(tmp_path / "s", [8])
    hidden = _corpus(folder, privacy={"identifiers": "unknown"})
    (batch,) = (step[0] for step in _batches(_pairs(hidden), 0, 1, size=8))
    assert set(batch.ids) == set(hidden.splits["train"]["id"][:])
    assert not any("train" in id for id in batch.ids)


def test_lanes_that_processes_cannot_share(corpus: Corpus) -> None:
    assert corpus.stream is not None
    assert [lane_count(corpus.stream, size, 1) for size in (128, 12, 7)] == [8, 4, 1]
    with pytest.raises(RecipeError) as error:
        lane_count(corpus.stream, 12, 3)
    assert str(error.value) == (
        "corpus.options.lanes: 4 lanes cannot be shared by 3 processes: take a multiple of 3 that divides "
        "train.batch_size, 12"
    )


def test_the_fingerprint_is_of_what_decides_the_order(tmp_path: Path) -> None:
    def of(sizes: tuple[int, ...], **options: Any) -> str:
        stream = _corpus(shards(tmp_path / str(sizes), sizes), options=options).stream
        assert isinstance(stream, Stream)
        return stream.fingerprint()

    assert of((3, 4)) == of((3, 4))
    assert len({of((3, 4)), of((4, 3)), of((3, 4), buffer=8), of((3, 4), lanes=4)}) == 4

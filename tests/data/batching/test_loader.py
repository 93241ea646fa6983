"""Batches are the same whatever loads them: tasks, workers and a thread ahead change no byte and no order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from domainclip.data.batching import batch as batch_module
from domainclip.data.batching import loader, workers
from domainclip.data.batching.batch import Batch, collate
from domainclip.data.batching.order import batch_positions, rank_slice
from domainclip.data.batching.pairs import Pairs
from domainclip.data.batching.prefetch import prefetched
from domainclip.data.batching.workers import worker_count
from domainclip.data.rows import Item, to_dataset
from domainclip.distributed import collectives
from domainclip.models.image_preprocessor import ImagePreprocessor
from tests.data.made_corpora import noise_image

SQUARE = ImagePreprocessor((4, 4), None, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder, rows = tmp_path_factory.mktemp("images"), []
    for i in range(11):
        file = noise_image(folder / f"{i}.png", seed=i, size=(6, 5))
        image = {"path": str(file), "bytes": None}
        rows.append(Item(f"id{i}", image, [f"t{i}", f"u{i}"], [""], [], f"g{i}", f"t{i}", {}, "train", ""))
    return Pairs(to_dataset(rows), SQUARE, seed=5)


def _equal(one: Batch, other: Batch) -> bool:
    assert one.image is not None
    assert other.image is not None
    return (
        (one.ids, one.texts, one.requested.tolist()) == (other.ids, other.texts, other.requested.tolist())
        and torch.equal(one.image["pixels"], other.image["pixels"])
        and torch.equal(one.keys.pool, other.keys.pool)
    )


@pytest.mark.parametrize(("count", "per_task"), [(0, 3), (2, 3), (2, 4), (0, 32)])
def test_a_batch_is_that_of_its_positions(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch, count: int, per_task: int
) -> None:
    monkeypatch.setattr(loader, "PAIRS_PER_TASK", per_task)
    loaded = list(loader.batches(pairs, 1, 4, 8, workers=count))
    expected = [
        collate([pairs[position] for position in rank_slice(batch_positions(at, 8, 11, 5), 0, 1)])
        for at in (1, 2, 3)
    ]
    assert len(loaded) == 3
    assert all(_equal(one, other) for one, other in zip(loaded, expected, strict=True))


def test_a_worker_loads_a_few_pairs_at_once(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(loader, "PAIRS_PER_TASK", 3)
    monkeypatch.setattr(loader, "collate", lambda rows: sizes.append(len(rows)) or collate(rows))
    assert len(next(loader.batches(pairs, 0, 2, 8, workers=0)).ids) == 8
    assert sizes == [3, 3, 2]


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "available_cores", lambda: 12)
    monkeypatch.setattr(workers, "_free_shared_memory", lambda: 2**33)


def test_few_images_need_no_worker(cores: None) -> None:
    assert worker_count("auto", 1999, 150_528) == 0
    assert worker_count("auto", 2000, 150_528) == 12
    assert worker_count(3, 10, 150_528) == 3
    assert worker_count(0, 10**9, 150_528) == 0


def test_processes_of_a_machine_share_its_cores(cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "local_process_count", lambda: 4)
    assert worker_count("auto", 10**6, 150_528) == 3
    monkeypatch.setattr(collectives, "local_process_count", lambda: 16)
    assert worker_count("auto", 10**6, 150_528) == 1


def test_workers_stay_within_the_shared_memory(cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # 64 MB, as a container has it: 13 tasks of 32 images; a worker holds two, and as many are in use.
    monkeypatch.setattr(workers, "_free_shared_memory", lambda: 2**26)
    assert worker_count("auto", 10**6, 150_528) == 3
    assert worker_count("auto", 10**6, 10**7) == 1


def test_no_process_where_no_image_is_decoded(
    pairs: Pairs, cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loader._worker_count(pairs, "auto", 10**6) == 12
    assert loader._worker_count(pairs.without_pixels({}), "auto", 10**6) == 0
    monkeypatch.setattr(pairs, "cached_pixels", lambda index: None)
    assert loader._worker_count(pairs, "auto", 10**6) == 0


def test_a_gpu_gets_pinned_images(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(batch_module, "_pinned", lambda image: pinned.append(image) or image)
    (one,) = loader.batches(pairs, 0, 1, 4, workers=0)
    assert [image is None for image in pinned] == [False, True]  # the second views are none
    assert one.image is pinned[0]


def test_prefetching_keeps_the_order_and_prepares_each_item_once() -> None:
    assert list(prefetched(iter(range(7)), lambda item: item * 10)) == [0, 10, 20, 30, 40, 50, 60]


def test_prefetching_stays_one_item_ahead() -> None:
    made, third = [], threading.Event()

    def source() -> Iterator[int]:
        for item in range(5):
            made.append(item)
            if item == 2:
                third.set()
            yield item

    items = prefetched(source(), lambda item: item)
    assert next(items) == 0
    assert third.wait(5)  # one is used, one waits, one is held by the thread
    items.close()  # type: ignore[attr-defined]
    assert made == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_an_error_reaches_the_caller_at_its_item() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("second")

    items = prefetched(source(), lambda item: item)
    assert next(items) == 1
    with pytest.raises(KeyError, match="second"):
        next(items)

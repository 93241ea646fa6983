from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader

from domainclip.data.batching.augmentation import random_crop
from domainclip.data.batching.batch import Batch, collate
from domainclip.data.batching.matches import Matches
from domainclip.data.batching.order import batch_positions
from domainclip.data.batching.pairs import Pairs
from domainclip.data.files.column_roles import Columns
from domainclip.data.quarantine import UnusableItem
from domainclip.data.rows import Item, to_dataset
from domainclip.data.text.captions import Captions
from domainclip.errors import DataError
from domainclip.seeding import choose, draw
from tests.data.made_corpora import noise_image


def _items(folder: Path, n: int = 6, captions: int = 3, broken: tuple[int, ...] = ()) -> Dataset:
    rows = []
    for i in range(n):
        file = noise_image(folder / f"{i}.png", seed=i, size=(12, 10))
        if i in broken:
            file.write_bytes(b"nothing")
        texts = [f"{i} {k}" for k in range(captions)]
        image = {"path": str(file), "bytes": None}
        rows.append(
            Item(
                f"id{i}",
                image,
                texts,
                [""] * captions,
                [],
                f"g{i // 2}",
                f"t{i // 3}",
                {},
                "train",
                f"row {i}",
            )
        )
    return to_dataset(rows)


def preprocess(image: Image.Image) -> dict[str, np.ndarray]:
    return {"pixels": np.asarray(image.resize((4, 4)))}


def _same(a: Batch, b: Batch) -> bool:
    assert a.image is not None
    assert b.image is not None
    tensors = zip(
        (a.image["pixels"], a.keys.group, a.index), (b.image["pixels"], b.keys.group, b.index), strict=True
    )
    return all(torch.equal(x, y) for x, y in tensors) and (a.texts, a.ids) == (b.texts, b.ids)


def test_a_batch_holds_pixels_captions_groups_and_rows(tmp_path: Path) -> None:
    pairs = Pairs(_items(tmp_path), preprocess, seed=1)
    batch = collate([pairs[(0, 4)], pairs[(0, 1)], pairs[(0, 5)]])
    assert batch.image is not None
    assert batch.image["pixels"].shape == (3, 4, 4, 3)
    assert batch.image["pixels"].dtype == torch.uint8
    assert np.array_equal(batch.image["pixels"][1], preprocess(Image.open(tmp_path / "1.png"))["pixels"])
    assert batch.index.tolist() == batch.requested.tolist() == [4, 1, 5]
    assert batch.ids == ["id4", "id1", "id5"]
    assert [text[0] for text in batch.texts] == ["4", "1", "5"]
    assert batch.keys.group.dtype == batch.keys.pool.dtype == batch.index.dtype == torch.int64
    # 4 and 5 are of one group, and no caption is shared.
    assert batch.keys.group[0] == batch.keys.group[2] != batch.keys.group[1]
    assert batch.keys.pool.shape == (3, 3)
    assert len(set(batch.keys.pool.flatten().tolist())) == 9
    assert batch.unusable == []


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(tmp_path: Path, workers: int) -> None:
    """Fault 3."""
    pairs = Pairs(_items(tmp_path), preprocess, seed=3, augmentation="crop")
    order = [batch_positions(step, 4, len(pairs), 3) for step in range(4)]
    straight = [collate([pairs[p] for p in batch]) for batch in order]
    loader = DataLoader(pairs, batch_sampler=order, collate_fn=collate, num_workers=workers)
    # Begun at step 2, as after a resume.
    rest = DataLoader(pairs, batch_sampler=order[2:], collate_fn=collate)
    assert all(_same(a, b) for a, b in zip(loader, straight, strict=True))
    assert all(_same(a, b) for a, b in zip(rest, straight[2:], strict=True))


def test_each_epoch_draws_a_caption(tmp_path: Path) -> None:
    items = _items(tmp_path)
    pairs = Pairs(items, preprocess, pixels=False)
    drawn = {pairs[(epoch, 0)].text for epoch in range(20)}
    assert drawn == {"0 0", "0 1", "0 2"}
    assert {
        Pairs(items, preprocess, pixels=False, captions=Captions(policy="first"))[(e, 0)].text
        for e in range(20)
    } == {"0 0"}
    assert Pairs(items, preprocess, pixels=False, seed=1)[(0, 0)].image is None


def test_a_pair_holds_the_caption_that_was_drawn_and_all_that_may_be(tmp_path: Path) -> None:
    items = _items(tmp_path, n=2, captions=1)
    texts = [["common", "one"], ["common", "two"]]
    items = (
        items.remove_columns(["texts", "group"]).add_column("texts", texts).add_column("group", ["a", "b"])
    )
    pairs = Pairs(items, preprocess, pixels=False)
    drawn = [p for epoch in range(20) for p in (pairs[(epoch, 0)], pairs[(epoch, 1)])]
    assert len({(p.text, int(p.captions[p.shown])) for p in drawn}) == 3
    assert len({p.group for p in drawn}) == 2
    chosen = [(0, "common"), (0, "one"), (1, "two")]
    keys = collate([next(p for p in drawn if (p.index, p.text) == pair) for pair in chosen]).keys
    right = Matches.within(keys).right_texts(torch.arange(3))
    # The images are those of items 0, 0 and 1: the common caption is right for all, a rare one for its item.
    assert right.tolist() == [[True, True, False], [True, True, False], [True, False, True]]


def test_a_image_that_cannot_be_read_is_replaced_and_reported(tmp_path: Path) -> None:
    items = _items(tmp_path, broken=(2, 3, 5))
    pairs = Pairs(items, preprocess)
    batch = collate([pairs[(0, i)] for i in range(6)])
    assert batch.requested.tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.index.tolist() == [0, 1, 4, 4, 4, 0]
    # The whole pair is replaced: image, caption, id and group belong together.
    assert batch.ids == ["id0", "id1", "id4", "id4", "id4", "id0"]
    assert batch.texts[2].startswith("4 ")
    assert {(bad.location, bad.reason) for bad in batch.unusable} == {
        ("item id2", "not an image"),
        ("item id3", "not an image"),
        ("item id5", "not an image"),
    }
    assert batch.unusable[0] == UnusableItem("item id2", "not an image", str(tmp_path / "2.png"))


def test_known_replacements_hold_without_images(tmp_path: Path) -> None:
    items = _items(tmp_path, broken=(2, 3, 5))
    whole = Pairs(items, preprocess)
    batch = collate([whole[(0, i)] for i in range(6)])
    replaced = {a: b for a, b in zip(batch.requested.tolist(), batch.index.tolist(), strict=True) if a != b}
    kept = collate([Pairs(items, preprocess, pixels=False, replacements=replaced)[(0, i)] for i in range(6)])
    assert kept.image is None
    assert (kept.texts, kept.ids, kept.index.tolist()) == (batch.texts, batch.ids, batch.index.tolist())


def test_no_image_at_all(tmp_path: Path) -> None:
    pairs = Pairs(_items(tmp_path, n=2, broken=(0, 1)), preprocess)
    with pytest.raises(DataError) as caught:
        pairs[(0, 0)]
    assert str(caught.value) == "corpus: none of 2 images can be read; the first: not an image"


def test_crops_are_mild_reproducible_and_never_mirrored() -> None:
    # The red value is the column, the green one the row.
    grid = np.zeros((60, 80, 3), np.uint8)
    grid[..., 0], grid[..., 1] = np.arange(80), np.arange(60)[:, None]
    image = Image.fromarray(grid)
    for epoch in range(50):
        part = np.asarray(random_crop(image, draw(0, epoch, 1))).astype(int)
        assert 0.78 <= part.shape[0] * part.shape[1] / 4800 <= 1
        assert bool((np.diff(part[..., 0], axis=1) == 1).all())
        assert bool((np.diff(part[..., 1], axis=0) == 1).all())
    a, b, c = (random_crop(image, draw(0, epoch, 1)).tobytes() for epoch in (0, 0, 1))
    assert a == b != c
    assert random_crop(Image.new("RGB", (1, 1)), draw(0, 0, 0)).size == (1, 1)


def test_the_same_pairs_without_images(tmp_path: Path) -> None:
    pairs = Pairs(_items(tmp_path), preprocess, seed=5, augmentation="crop")
    bare = pairs.without_pixels({})
    for position in [(0, 0), (1, 0), (2, 5)]:
        assert bare[position].image is None
        assert (bare[position].text, bare[position].shown) == (pairs[position].text, pairs[position].shown)


def _with_views(folder: Path, views: int = 2, broken: tuple[str, ...] = ()) -> Dataset:
    """Three items whose images are grey: 100, with views of 101 and 102; 110, …"""
    rows = []
    for i in range(3):
        files = [folder / f"{i}{k}.png" for k in range(views + 1)]
        for k, file in enumerate(files):
            Image.new("L", (4, 4), 100 + 10 * i + k).save(file)
            if file.stem in broken:
                file.write_bytes(b"nothing")
        first, *others = ({"path": str(file), "bytes": None} for file in files)
        rows.append(Item(f"id{i}", first, ["t"], [""], [], str(i), str(i), {}, "train", f"row {i}", others))
    return to_dataset(rows)


def _grey(pairs: Pairs, epoch: int, index: int) -> int:
    image = pairs[(epoch, index)].image
    assert image is not None
    return int(image["pixels"].flat[0])


def test_each_epoch_shows_one_of_the_views(tmp_path: Path) -> None:
    items = _with_views(tmp_path)
    pairs = Pairs(items, preprocess, seed=1)
    shown = [[_grey(pairs, epoch, i) for i in range(3)] for epoch in range(30)]
    assert [set(column) for column in zip(*shown, strict=True)] == [
        {100, 101, 102}, {110, 111, 112}, {120, 121, 122}
    ]  # fmt: skip
    assert [[_grey(pairs, epoch, i) for i in range(3)] for epoch in range(30)] == shown
    assert [[_grey(Pairs(items, preprocess, seed=2), e, i) for i in range(3)] for e in range(30)] != shown
    # Which view says nothing of which caption: the draws have words of their own.
    assert [choose(1, e, 0, 3) for e in range(30)] != [choose(1, e, 0, 3, "view") for e in range(30)]
    assert pairs.views_change


def test_the_first_view_is_always_shown_when_the_card_says_so(tmp_path: Path) -> None:
    pairs = Pairs(_with_views(tmp_path), preprocess, views="first")
    assert {_grey(pairs, epoch, 1) for epoch in range(20)} == {110}
    assert not pairs.views_change
    assert not pairs.without_pixels({}).views_change
    assert not Pairs(_items(tmp_path), preprocess).views_change


def test_a_broken_view_leaves_the_item_its_others(tmp_path: Path) -> None:
    pairs = Pairs(_with_views(tmp_path, broken=("11",)), preprocess, seed=1)
    assert {_grey(pairs, epoch, 1) for epoch in range(30)} == {110, 112}
    told = {bad for epoch in range(30) for bad in pairs[(epoch, 1)].unusable}
    assert told == {UnusableItem("item id1 view 1", "not an image", str(tmp_path / "11.png"))}
    assert {pairs[(epoch, 1)].index for epoch in range(30)} == {1}


def test_another_model_sees_the_first_view_that_can_be_read(tmp_path: Path) -> None:
    """Never another item's image, as long as the item has one that training may show."""
    items = _with_views(tmp_path, broken=("10", "11"))
    seen = Pairs(items, preprocess, seed=1).for_model(preprocess)
    assert [[_grey(seen, epoch, i) for i in range(3)] for epoch in range(9)] == [[100, 112, 120]] * 9
    assert [seen[(0, i)].index for i in range(3)] == [0, 1, 2]
    only_first = Pairs(items, preprocess, views="first").for_model(preprocess)
    assert [only_first[(0, i)].index for i in range(3)] == [0, 2, 2]  # as training replaces it


def test_an_item_without_any_readable_view_is_replaced(tmp_path: Path) -> None:
    pairs = Pairs(_with_views(tmp_path, views=1, broken=("10", "11")), preprocess)
    pair = pairs[(0, 1)]
    assert (pair.index, pair.requested) == (2, 1)
    assert [bad.reason for bad in pair.unusable] == ["not an image"]


def test_half_of_the_images_are_mirrored_after_the_same_crop(tmp_path: Path) -> None:
    items = _items(tmp_path)

    def whole(image: Image.Image) -> dict[str, np.ndarray]:
        return {"pixels": np.asarray(image)}

    plain, flipped, again = (
        Pairs(items, whole, seed=5, augmentation=kind) for kind in ("crop", "crop_flip", "crop_flip")
    )
    mirrored = 0
    for position in [(epoch, index) for epoch in range(20) for index in range(6)]:
        cut, shown, same = (_pixels(pairs, position) for pairs in (plain, flipped, again))
        assert np.array_equal(shown, same)
        mirrored += (turned := not np.array_equal(shown, cut))
        assert np.array_equal(shown, cut[:, ::-1] if turned else cut)
    assert 40 < mirrored < 80  # of 120


def _pixels(pairs: Pairs, position: tuple[int, int]) -> np.ndarray:
    image = pairs[position].image
    assert image is not None
    return image["pixels"]


def test_pairs_of_a_group_or_of_a_truth_key_are_not_negatives(tmp_path: Path) -> None:
    """Six items: groups 0 0 1 1 2 2, truth keys 0 0 0 1 1 1. A card without a truth column takes the group."""
    items = _items(tmp_path)
    for columns, keys in ((Columns(), [0, 0, 1, 1, 2, 2]), (Columns(truth="study"), [0, 0, 0, 1, 1, 1])):
        pairs = Pairs(items, preprocess, pixels=False, matched_by=columns.matched_by)
        right = Matches.within(collate([pairs[(0, i)] for i in range(6)]).keys).right_texts(torch.arange(6))
        assert right.tolist() == [[a == b for b in keys] for a in keys]

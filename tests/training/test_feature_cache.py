"""What is kept on disk is what the towers say; it is made once, found again, bounded, and shared out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from domainclip import disk_cache
from domainclip.data.batching.batch import collate
from domainclip.data.batching.pairs import Pairs
from domainclip.data.images import decode
from domainclip.data.schema import features
from domainclip.distributed import collectives
from domainclip.models import loading, onednn, precision
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.text_tokenizer import TokenCache
from domainclip.strategies.full import Full
from domainclip.strategies.locked_image import LockedImage
from domainclip.training import feature_cache
from domainclip.training.cache_entry import CacheBudget
from tests.support.processes import started
from tests.support.tiny_models import noise, retokenised, tiny_clip

TEXTS = ["a red circle", "two small squares on the left of a dog", "cat", "no effusion", "a red circle"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _pairs(folder: Path, loaded: DualEncoder, broken: int | None = None) -> Pairs:
    folder.mkdir(exist_ok=True)
    items = []
    for i in range(5):
        noise(40, 36, seed=i).save(folder / f"{i}.png")
        if i == broken:
            (folder / f"{i}.png").write_bytes(b"no picture")
        items.append(
            {
                "id": str(i),
                "image": {"path": str(folder / f"{i}.png"), "bytes": None},
                "views": [],
                "texts": [TEXTS[i]],
                "language": ["en"],
                "labels": [],
                "group": str(i),
                "truth": str(i),
                "meta": "{}",
            }
        )
    return Pairs(Dataset.from_list(items, features=features()), loaded.image_preprocessor)


def _model(base: Path, strategy: Any) -> DualEncoder:
    loaded = loading.load_model(base)
    strategy.learning_rates(loaded)
    return loaded


def _said(model: DualEncoder, pairs: Pairs) -> np.ndarray:
    """The plain way, all pictures in one batch."""
    batch = collate([pairs[0, i] for i in range(len(pairs))])
    with torch.no_grad():
        locked = model.first_trainable_layer("image") is None
        found = (
            model.encode_image(batch.image) if locked else model.frozen_hidden_states("image", batch.image)
        )
    return found.numpy()


@pytest.mark.parametrize("fault", ["unseen", "full"])
def test_what_could_not_be_made_is_not_found_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Rows that no process filled are zeros: the next run must not take them for embeddings."""
    loaded = _model(base, LockedImage())
    pairs = _pairs(tmp_path / "pictures", loaded)
    mine, both, why = {
        "unseen": (True, [True, False], "not every process sees its folder"),
        "full": ("", ["", "no space left"], "no space left"),
    }[fault]
    words = collectives.gather_objects

    def of_two(value: Any) -> list[Any]:
        return both if type(value) is type(mine) and value == mine else words(value)

    room = CacheBudget(1e9)
    with monkeypatch.context() as patch:
        patch.setattr(collectives, "gather_objects", of_two)
        patch.setattr(collectives, "max_over_processes", lambda value: value)
        assert feature_cache.cache_image_features(loaded, pairs, list("abcde"), room) is None
    assert [note for note in room.notes if f"{disk_cache.root()}: {why}; DOMAINCLIP_CACHE names" in note]
    assert disk_cache.entries() == []
    found = feature_cache.cache_image_features(loaded, pairs, list("abcde"), CacheBudget(1e9))
    assert found is not None
    assert np.allclose(found.rows, _said(loaded, pairs), atol=1e-6)


@pytest.mark.parametrize("strategy", [LockedImage(), Full(last_layers=1)], ids=["locked", "layers"])
def test_pictures_are_made_once_and_found_again(base: Path, tmp_path: Path, strategy: Any) -> None:
    loaded = _model(base, strategy)
    pairs = _pairs(tmp_path / "pictures", loaded)
    room = CacheBudget(1e9)
    first = feature_cache.cache_image_features(loaded, pairs, list("abcde"), room)
    assert np.allclose(first.rows, _said(loaded, pairs), atol=1e-6)
    assert (first.replacements, first.unusable) == ({}, [])
    what = "embeddings" if isinstance(strategy, LockedImage) else "hidden states below layer 2 of 2"
    said = f"{what} of 5 images, 0.00 GB"
    assert room.notes == [f"cached: {said} in {disk_cache.root()}"]
    assert room.used == first.rows.nbytes
    again = CacheBudget(1e9)
    for file in (tmp_path / "pictures").iterdir():
        if file.name != "0.png":  # whose size says how large a row is
            file.unlink()  # nothing is looked at again
    second = feature_cache.cache_image_features(loaded, pairs, list("abcde"), again)
    assert again.notes == [f"reused: {said} in {disk_cache.root()}"]
    assert isinstance(second.rows, np.memmap)
    assert np.array_equal(second.rows, first.rows)


@pytest.mark.parametrize("changed", ["weights", "digest", "level"])
def test_whatever_it_was_made_from_belongs_to_the_key(base: Path, tmp_path: Path, changed: str) -> None:
    loaded = _model(base, Full(last_layers=1))
    pairs = _pairs(tmp_path / "pictures", loaded)
    before = feature_cache.cache_image_features(loaded, pairs, list("abcde"), CacheBudget(1e9)).rows
    with torch.no_grad():
        # What learns may move: what is kept stands below it.
        loaded.weights()["image/vision_model.encoder.layers.1.mlp.fc1.weight"].add_(1)
    room = CacheBudget(1e9)
    assert np.array_equal(feature_cache.cache_image_features(loaded, pairs, list("abcde"), room).rows, before)
    assert room.notes[0].startswith("reused")
    if changed == "weights":
        with torch.no_grad():
            loaded.weights()["image/vision_model.encoder.layers.0.mlp.fc1.weight"].add_(1)
    if changed == "level":
        loaded.set_trainable([("image/.*", 0.0), ("text/.*", 1.0), (".*", 1.0)])
    room = CacheBudget(1e9)
    feature_cache.cache_image_features(
        loaded, pairs, list("abcdx") if changed == "digest" else list("abcde"), room
    )
    assert room.notes[0].startswith("cached")


def test_a_picture_that_cannot_be_read_is_stood_in_for_and_reported_again(base: Path, tmp_path: Path) -> None:
    loaded = _model(base, LockedImage())
    pairs = _pairs(tmp_path / "pictures", loaded, broken=3)
    for _ in range(2):  # made, and found again
        found = feature_cache.cache_image_features(loaded, pairs, list("abcde"), CacheBudget(1e9))
        assert found.replacements == {3: 4}
        assert [bad.location for bad in found.unusable] == ["item 3"]
        assert np.allclose(found.rows[3], found.rows[4], atol=1e-6)


def test_no_more_than_the_limit(base: Path, tmp_path: Path) -> None:
    loaded = _model(base, Full(last_layers=1))
    pairs = _pairs(tmp_path / "pictures", loaded)
    room = CacheBudget(1000)
    assert feature_cache.cache_image_features(loaded, pairs, list("abcde"), room) is None
    assert room.notes == [
        "not cached: hidden states below layer 2 of 2 of 5 images, 0.00 GB: more than train.feature_cache_gb allows"
    ]
    assert not (disk_cache.root() / "features").exists()


def test_a_full_disk_is_said(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = _model(base, Full(last_layers=1))
    pairs = _pairs(tmp_path / "pictures", loaded)
    free = 3 * 10**9
    monkeypatch.setattr(disk_cache, "RESERVED", free)
    monkeypatch.setattr(disk_cache, "free_bytes", lambda: free)
    room = CacheBudget(1e9)
    assert feature_cache.cache_image_features(loaded, pairs, list("abcde"), room) is None
    assert room.notes == [
        "not cached: hidden states below layer 2 of 2 of 5 images, 0.00 GB: "
        f"the disk of {disk_cache.root()} has {free / 1e9:.2f} GB left"
    ]


def test_a_cache_that_cannot_be_used_is_said(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "file" / "cache"))
    loaded = _model(base, Full(last_layers=1))
    pairs = _pairs(tmp_path / "pictures", loaded)
    room = CacheBudget(1e9)
    assert feature_cache.cache_image_features(loaded, pairs, list("abcde"), room) is None
    assert feature_cache.cache_text_features(loaded, TokenCache(loaded.text_tokenizer), TEXTS, room) is None
    what = "hidden states below layer 2 of 2"
    said = f"0.00 GB: {disk_cache.root()}: Not a directory; DOMAINCLIP_CACHE names another folder"
    assert room.notes == [
        f"not cached: {what} of 5 images, {said}",
        f"not cached: {what} of 4 texts, {said}",
    ]
    assert room.used == 0


@pytest.mark.parametrize("state", ["reused", "cached"])
def test_what_another_run_removes_meanwhile_is_not_missed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    loaded = _model(base, Full(last_layers=1))
    if state == "reused":
        feature_cache.cache_text_features(loaded, TokenCache(loaded.text_tokenizer), TEXTS, CacheBudget(1e9))
    reads: list[str] = []
    original = disk_cache.read

    def evicted(kind: str, name: str) -> np.ndarray | None:
        """Once for the room, once for whether it has to be made: then it is gone."""
        reads.append(name)
        return original(kind, name) if len(reads) <= 2 else None

    monkeypatch.setattr(disk_cache, "read", evicted)
    room = CacheBudget(1e9)
    assert feature_cache.cache_text_features(loaded, TokenCache(loaded.text_tokenizer), TEXTS, room) is None
    assert room.notes == [
        f"not cached: hidden states below layer 2 of 2 of 4 texts, 0.00 GB: {disk_cache.root()}: another run has "
        "removed it; DOMAINCLIP_CACHE names another folder"
    ]


def test_what_multiplies_belongs_to_the_key(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that machines of two makers share: what one of them kept has other last bits."""
    loaded = _model(base, Full(last_layers=1))
    pairs = _pairs(tmp_path / "pictures", loaded)
    said = []
    for here in (False, True, False):
        monkeypatch.setattr(onednn, "is_faster", lambda here=here: here)
        room = CacheBudget(1e9)
        feature_cache.cache_text_features(loaded, TokenCache(loaded.text_tokenizer), TEXTS, room)
        feature_cache.cache_image_features(loaded, pairs, list("abcde"), room)
        said.append([note.split(":")[0] for note in room.notes])
    assert said == [["cached"] * 2, ["cached"] * 2, ["reused"] * 2]


@pytest.mark.parametrize("changed", ["limit", "words", "decoder"])
def test_what_reads_texts_and_pictures_belongs_to_the_key(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    loaded = _model(base, Full(last_layers=1))
    pairs = _pairs(tmp_path / "pictures", loaded)
    feature_cache.cache_text_features(loaded, TokenCache(loaded.text_tokenizer), TEXTS, CacheBudget(1e9))
    feature_cache.cache_image_features(loaded, pairs, list("abcde"), CacheBudget(1e9))
    folder = retokenised(base, tmp_path / "other", changed)
    if changed == "decoder":
        monkeypatch.setattr(feature_cache, "DECODING_VERSION", decode.DECODING_VERSION + 1)
    other = _model(folder, Full(last_layers=1))
    room = CacheBudget(1e9)
    said = feature_cache.cache_text_features(other, TokenCache(other.text_tokenizer), TEXTS, room)
    feature_cache.cache_image_features(other, pairs, list("abcde"), room)
    texts, pictures = (note.split(":")[0] for note in room.notes)
    assert (texts, pictures) == (("reused", "cached") if changed == "decoder" else ("cached", "reused"))
    with torch.no_grad():
        whole = other.frozen_hidden_states("text", other.text_tokenizer(TEXTS))
    for row, expected, length in zip(said.batch(TEXTS)["hidden"], whole, said.lengths(TEXTS), strict=True):
        assert torch.allclose(row[:length], expected[:length], atol=1e-6)


def test_what_was_used_longest_ago_makes_room(base: Path, tmp_path: Path) -> None:
    loaded = _model(base, Full(last_layers=1))
    pairs = _pairs(tmp_path / "pictures", loaded)
    size = feature_cache.cache_image_features(loaded, pairs, list("abcde"), CacheBudget(1e9)).rows.nbytes
    limit = 1.5 * size + 4096  # of two sets, one fits
    feature_cache.cache_image_features(loaded, pairs, list("vwxyz"), CacheBudget(limit))
    files = sum(file.stat().st_size for file in (disk_cache.root() / "features").rglob("*") if file.is_file())
    assert files <= limit
    room = CacheBudget(limit)
    feature_cache.cache_image_features(loaded, pairs, list("abcde"), room)
    assert room.notes[0].startswith("cached")


@pytest.mark.parametrize("seed", [0, 1])
def test_hidden_states_of_ragged_texts(tmp_path: Path, seed: int) -> None:
    loaded = _model(tiny_clip(tmp_path / "base", seed=seed), Full(last_layers=1))
    found = feature_cache.cache_text_features(
        loaded, TokenCache(loaded.text_tokenizer), TEXTS, CacheBudget(1e9)
    )
    tokens = loaded.text_tokenizer(TEXTS)
    with torch.no_grad():
        whole = loaded.frozen_hidden_states("text", tokens)
    batch = found.batch(TEXTS)
    assert torch.equal(batch["input_ids"], tokens["input_ids"])
    lengths = found.lengths(TEXTS)
    assert len(set(lengths)) > 2
    for row, expected, length in zip(batch["hidden"], whole, lengths, strict=True):
        assert torch.allclose(row[:length], expected[:length], atol=1e-6)
        assert not row[length:].any()
    assert len(found.rows) == sum(found.lengths(sorted(set(TEXTS))))  # equal texts once, no padding


def test_embeddings_of_texts_under_a_locked_tower(base: Path) -> None:
    loaded = loading.load_model(base)
    loaded.set_trainable([("text/.*", 0.0), (".*", 1.0)])
    found = feature_cache.cache_text_features(
        loaded, TokenCache(loaded.text_tokenizer), TEXTS, CacheBudget(1e9)
    )
    with torch.no_grad():
        expected = loaded.encode_text(loaded.text_tokenizer(TEXTS))
    assert torch.allclose(found.embeddings(TEXTS), expected, atol=1e-6)
    assert torch.allclose(feature_cache.embed_texts(loaded, TEXTS), expected, atol=1e-6)


def _shared(folder: Path, base: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """All rows that one of two processes has in the end, and what it says of the pictures."""
    loaded = _model(base, Full(last_layers=1))
    pairs = _pairs(folder / f"pictures{collectives.rank()}", loaded, broken=3)
    seen: list[int] = []
    original = type(pairs).__getitem__
    pairs.__class__ = type(
        "Noted", (Pairs,), {"__getitem__": lambda self, at: seen.append(at[1]) or original(self, at)}
    )
    found = feature_cache.cache_image_features(loaded, pairs, list("abcde"), CacheBudget(1e9))
    said = feature_cache.cache_text_features(
        loaded, TokenCache(loaded.text_tokenizer), TEXTS, CacheBudget(1e9)
    )
    about = {"seen": seen, "replaced": found.replacements, "bad": [bad.location for bad in found.unusable]}
    return np.concatenate([found.rows.reshape(-1), said.rows.reshape(-1)]), about


def test_two_processes_share_the_work(base: Path, tmp_path: Path) -> None:
    both = started(2, tmp_path, _shared, tmp_path, base)
    loaded = _model(base, Full(last_layers=1))
    alone = feature_cache.cache_image_features(
        loaded, _pairs(tmp_path / "other", loaded, broken=3), list("other"), CacheBudget(1e9)
    )
    said = feature_cache.cache_text_features(
        loaded, TokenCache(loaded.text_tokenizer), TEXTS, CacheBudget(1e9)
    )
    expected = np.concatenate([alone.rows.reshape(-1), said.rows.reshape(-1)])
    for rank, (found, about) in enumerate(both):
        assert np.allclose(found, expected, atol=1e-6)
        assert about["replaced"] == {3: 4}
        assert about["bad"] == ["item 3"]
        # Its own share, the first for its size, and the replaced one to say why.
        assert set(about["seen"]) == {0, 3} | set(range(5)[rank::2])


@pytest.mark.parametrize("strategy", [LockedImage(), Full(last_layers=1)], ids=["locked", "layers"])
def test_features_in_bf16_are_an_entry_of_their_own_and_their_distance_is_noted(
    base: Path, tmp_path: Path, strategy: Any
) -> None:
    loaded = _model(base, strategy)
    pairs = _pairs(tmp_path / "pictures", loaded)
    exact = feature_cache.cache_image_features(loaded, pairs, list("abcde"), CacheBudget(1e9))
    room = CacheBudget(1e9)
    reduced = feature_cache.cache_image_features(loaded, pairs, list("abcde"), room, precision="bf16")
    assert len(disk_cache.entries()) == 4  # rows and index of each
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(reduced.rows, _said(loaded, pairs))  # what a step would compute
    distance = precision.largest_cosine_distance(reduced.rows, exact.rows)
    assert distance > 0
    assert room.notes[1] == (
        f"computed in bf16: the cosine distance from fp32 is at most {distance:.1e} in 5 images"
    )

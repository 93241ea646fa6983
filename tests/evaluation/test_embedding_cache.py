"""Embeddings that are kept: the same digits, found again by content, bounded, and nobody else's to read."""

from __future__ import annotations

import io
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from domainclip import disk_cache
from domainclip.data.interfaces import Encoder
from domainclip.distributed import collectives
from domainclip.evaluation import encoder as evaluation_encoder
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.embedding_cache import DiskEmbeddings, EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder, UnreadableImages, encode_images
from domainclip.evaluation.evaluate import evaluate_pair
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.protocol import Protocol
from domainclip.models import onednn
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from tests.evaluation.probes.array_encoder import evaluation_set, items
from tests.evaluation.test_evaluate import CLASSES, pictures, shared_out, told
from tests.support.tiny_models import retokenised, tiny_clip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


@pytest.fixture
def model(tmp_path: Path) -> DualEncoder:
    return load_model(tiny_clip(tmp_path / "clip"))


def entries(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.exists() else []


def test_what_was_kept_is_found_again_digit_for_digit(
    model: DualEncoder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = items(pictures(70))
    texts = [f"text number {i}" for i in range(80)]
    plain = CachedEncoder(model)
    first = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    assert first.images(data).tobytes() == plain.images(data).tobytes()
    assert first.texts(texts).tobytes() == plain.texts(texts).tobytes()
    assert len(entries(place)) == 2
    monkeypatch.setattr(CachedEncoder, "_run", lambda *_: pytest.fail("a tower ran"))
    again = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    assert again.images(data).tobytes() == plain.images(data).tobytes()
    assert again.texts(list(reversed(texts))).tobytes() == plain.texts(texts)[::-1].tobytes()


def test_other_pictures_other_weights_and_other_preparation_are_other_entries(
    model: DualEncoder, place: Path, tmp_path: Path
) -> None:
    disk = DiskEmbeddings()
    CachedEncoder(model, EmbeddingCache(disk=disk)).images(items(pictures(3)))
    assert len(entries(place)) == 1
    same = [{**row, "id": f"other {i}", "texts": []} for i, row in enumerate(pictures(3))]
    CachedEncoder(model, EmbeddingCache(disk=disk)).images(
        items(same)
    )  # ids and captions are not what an image tower sees
    assert len(entries(place)) == 1
    CachedEncoder(model, EmbeddingCache(disk=disk)).images(items(pictures(4)))
    CachedEncoder(load_model(tiny_clip(tmp_path / "other", seed=1)), EmbeddingCache(disk=disk)).images(
        items(pictures(3))
    )
    assert len(entries(place)) == 3


def test_what_multiplies_belongs_to_the_key(
    model: DualEncoder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"a red square number {i}" for i in range(80)]
    for here, there in ((False, 1), (True, 2), (False, 2)):
        monkeypatch.setattr(onednn, "is_faster", lambda here=here: here)
        CachedEncoder(model, EmbeddingCache.make(on_disk=True)).texts(texts)
        assert len(entries(place)) == there


@pytest.mark.parametrize("changed", ["limit", "words"])
def test_another_tokenizer_before_the_same_weights_is_another_entry(
    tmp_path: Path, place: Path, changed: str
) -> None:
    folder = tiny_clip(tmp_path / "clip")
    texts = [f"a red square number {i} with a longer tail of words" for i in range(80)]
    one, other = load_model(folder), load_model(retokenised(folder, tmp_path / "other", changed))
    assert one.fingerprint("text") == other.fingerprint("text")
    cache = EmbeddingCache.make(on_disk=True)
    rows = [CachedEncoder(model, cache).texts(texts) for model in (one, other, load_model(folder))]
    assert len(entries(place)) == 2
    assert np.array_equal(rows[1], CachedEncoder(other).texts(texts))
    assert not np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])
    # What was tokenised before, and how it was padded then, does not count.
    assert one.text_tokenizer.fingerprint() == load_model(folder).text_tokenizer.fingerprint()


def test_frames_of_one_file_are_different_pictures(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    Image.new("RGB", (8, 8)).save(file)
    disk = DiskEmbeddings()

    def key(path: str) -> str:
        return disk.images_key("tower", items([{"id": "a", "image": {"path": path, "bytes": None}}]), "cpu")

    assert key(f"{file}#frame=1") != key(f"{file}#frame=2") != key(str(file))
    assert key(str(file)) == key(str(file))
    assert key(str(file)) != disk.images_key("tower", items([{"id": "a", "image": picture(9)}]), "cpu")


def picture(seed: int) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.new("RGB", (9, 7), (seed, seed, seed)).save(stream, "PNG")
    return {"path": None, "bytes": stream.getvalue()}


def test_a_set_with_an_unreadable_picture_is_not_kept(model: DualEncoder, place: Path) -> None:
    """A decoder may be installed tomorrow."""
    readable = encode_images(
        [CachedEncoder(model, EmbeddingCache.make(on_disk=True))], items(pictures(40, broken=[3]))
    )
    assert len(readable) == 39
    assert entries(place) == []


def test_few_texts_are_not_worth_a_file(model: DualEncoder, place: Path) -> None:
    CachedEncoder(model, EmbeddingCache.make(on_disk=True)).texts(["a cat", "a dog"])
    assert entries(place) == []


def test_only_the_owner_may_read_them(model: DualEncoder, place: Path) -> None:
    CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(items(pictures(3)))
    assert [entry.stat().st_mode & 0o077 for entry in entries(place)] == [0]


def test_the_oldest_use_goes_first(place: Path) -> None:
    disk = DiskEmbeddings(limit=3000)
    for name in ("a", "b", "c"):
        disk.write(name, np.full((10, 20), 1.0, dtype=np.float32))  # 800 bytes and their description
        os.utime(place / name, (ord(name), ord(name)))
    os.utime(place / "a", (1000, 1000))
    disk.write("d", np.full((10, 20), 2.0, dtype=np.float32))
    assert [entry.name for entry in entries(place)] == ["a", "c", "d"]
    disk.write("large", np.zeros((100, 20), dtype=np.float32))
    assert [entry.name for entry in entries(place)] == ["a", "c", "d"]  # it alone would fill the place


def test_a_damaged_entry_is_computed_again(model: DualEncoder, place: Path) -> None:
    data = items(pictures(3))
    expected = CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(data)
    (entry,) = entries(place)
    (entry / "array.npy").write_bytes(b"no array")
    assert (
        CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(data).tobytes() == expected.tobytes()
    )
    np.save(entry / "array.npy", np.zeros((2, 16), dtype=np.float32))
    assert (
        CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(data).tobytes() == expected.tobytes()
    )


def test_a_full_disk_costs_only_time(
    model: DualEncoder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache, "writing", full)
    assert CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(items(pictures(3))).shape == (
        3,
        16,
    )
    assert entries(place) == []


def test_processes_agree_on_what_is_kept(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, of which only one finds the entry, both compute it; the figures are those of one."""
    folders = (tiny_clip(tmp_path / "a"), tiny_clip(tmp_path / "b", seed=1))
    plain = shared_out(folders, 1, monkeypatch)[0]
    whole = CachedEncoder.__init__
    monkeypatch.setattr(
        CachedEncoder, "__init__", lambda self, model: whole(self, model, EmbeddingCache.make(on_disk=True))
    )
    read = DiskEmbeddings.read
    monkeypatch.setattr(
        DiskEmbeddings,
        "read",
        lambda self, name, rows: read(self, name, rows) if collectives.rank() == 0 else None,
    )
    for _ in range(2):
        assert shared_out(folders, 2, monkeypatch) == [plain, plain]


# --- splits that a probe fits on ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fitted(Probe):
    """A probe that looks at every split."""

    citation: ClassVar[str] = "none"
    version: ClassVar[int] = 1

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        found = ZeroShot()(encoder, data)
        seen = {name: len(encoder.images(part)) for name, part in _fitted(data).items()}
        return ProbeResult("fitted", data.name, found.metrics, found.primary, 1, {"seen": seen})


def _fitted(data: EvaluationSet) -> dict[str, Any]:
    splits = {"train": data.train, "validation": data.validation}
    return {name: part for name, part in splits.items() if part is not None}


def test_unreadable_pictures_of_a_fitted_split_are_left_out_and_counted(model: DualEncoder) -> None:
    data = evaluation_set(pictures(40), CLASSES)
    train = items([{**row, "id": f"t{row['id']}"} for row in pictures(30, broken=(2, 4))])
    data = EvaluationSet(data.name, data.items, data.card, data.classes, train=train)
    encoder = CachedEncoder(model)
    found = evaluate_pair(
        encoder, None, Protocol([data], {"fitted": Fitted(), "retrieval": Retrieval()}, 100)
    )
    assert found.protocol[0]["details"] == {"seen": {"train": 28}}
    assert "test: 2 images of its train split cannot be read; no probe is fitted on them" in found.warnings
    plain = evaluate_pair(encoder, None, Protocol([data], {"retrieval": Retrieval()}, 100))
    assert plain.warnings == [text for text in found.warnings if "train split" not in text]
    assert told(plain) == [row for row in told(found) if row[1] in {one.metric for one in plain.rows}]


def test_a_probe_that_asks_for_broken_pictures_of_its_own_fails(model: DualEncoder) -> None:
    with pytest.raises(UnreadableImages) as error:
        CachedEncoder(model).images(items(pictures(4, broken=[0])))
    assert str(error.value) == "1 of 4 images cannot be read: measure the readable ones"
    assert error.value.readable["id"][:] == ["001", "002", "003"]


# --- decoding ahead --------------------------------------------------------------------------------------


def test_rows_come_in_order_and_warnings_stay_as_they_were() -> None:
    def slow(row: int) -> int:
        warnings.simplefilter("ignore")  # as a decoder in a thread would leave it
        time.sleep(0.002 * (row % 3))
        return row * row

    before = list(warnings.filters)
    chunks = [range(0, 5), range(5, 9), range(9, 10)]
    assert list(evaluation_encoder._ahead(slow, chunks)) == [[r * r for r in chunk] for chunk in chunks]
    assert warnings.filters == before

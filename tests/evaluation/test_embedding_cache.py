"""Cached embeddings: bit-equal, identified by content, bounded in size, and readable by their owner only."""

from __future__ import annotations

import io
import os
import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from domainclip import disk_cache
from domainclip.data.cards import Card
from domainclip.data.interfaces import Encoder, UnreadableImages
from domainclip.distributed import collectives
from domainclip.evaluation import chunks, encoder
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.embedding_cache import DiskEmbeddings, EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.evaluate import evaluate_pair
from domainclip.evaluation.precision_parity import precision_parity
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.protocol import Protocol
from domainclip.models import onednn
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from tests.evaluation.example_sets import CLASSES, samples
from tests.evaluation.probes.array_encoder import evaluation_set, items
from tests.evaluation.test_evaluate import evaluate_on_processes, exact_values
from tests.support.tiny_models import retokenised, tiny_clip


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


@pytest.fixture
def model(tmp_path: Path) -> DualEncoder:
    return load_model(tiny_clip(tmp_path / "clip"))


def entries(cache_folder: Path) -> list[Path]:
    return sorted(cache_folder.iterdir()) if cache_folder.exists() else []


def test_cached_embeddings_are_bit_equal(
    model: DualEncoder, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = items(samples(70))
    texts = [f"text number {i}" for i in range(80)]
    plain = CachedEncoder(model)
    first = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    assert first.images(data).tobytes() == plain.images(data).tobytes()
    assert first.texts(texts).tobytes() == plain.texts(texts).tobytes()
    assert len(entries(cache_folder)) == 2
    monkeypatch.setattr(CachedEncoder, "_run", lambda *_: pytest.fail("the model ran"))
    again = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    assert again.images(data).tobytes() == plain.images(data).tobytes()
    assert again.texts(list(reversed(texts))).tobytes() == plain.texts(texts)[::-1].tobytes()


def test_images_and_weights_are_part_of_the_key(
    model: DualEncoder, cache_folder: Path, tmp_path: Path
) -> None:
    disk = DiskEmbeddings()
    CachedEncoder(model, EmbeddingCache(disk=disk)).images(items(samples(3)))
    assert len(entries(cache_folder)) == 1
    same = [{**row, "id": f"other {i}", "texts": []} for i, row in enumerate(samples(3))]
    # Ids and captions are no input of an image tower.
    CachedEncoder(model, EmbeddingCache(disk=disk)).images(items(same))
    assert len(entries(cache_folder)) == 1
    CachedEncoder(model, EmbeddingCache(disk=disk)).images(items(samples(4)))
    CachedEncoder(load_model(tiny_clip(tmp_path / "other", seed=1)), EmbeddingCache(disk=disk)).images(
        items(samples(3))
    )
    assert len(entries(cache_folder)) == 3


def test_the_matrix_product_is_part_of_the_key(
    model: DualEncoder, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"a red square number {i}" for i in range(80)]
    for faster, count in ((False, 1), (True, 2), (False, 2)):
        monkeypatch.setattr(onednn, "is_faster", lambda faster=faster: faster)
        CachedEncoder(model, EmbeddingCache.make(on_disk=True)).texts(texts)
        assert len(entries(cache_folder)) == count


@pytest.mark.parametrize("changed", ["limit", "words"])
def test_the_tokenizer_is_part_of_the_key(tmp_path: Path, cache_folder: Path, changed: str) -> None:
    folder = tiny_clip(tmp_path / "clip")
    texts = [f"a red square number {i} with a longer tail of words" for i in range(80)]
    first, other = load_model(folder), load_model(retokenised(folder, tmp_path / "other", changed))
    assert first.fingerprint("text") == other.fingerprint("text")
    cache = EmbeddingCache.make(on_disk=True)
    rows = [CachedEncoder(model, cache).texts(texts) for model in (first, other, load_model(folder))]
    assert len(entries(cache_folder)) == 2
    assert np.array_equal(rows[1], CachedEncoder(other).texts(texts))
    assert not np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])
    # Earlier calls of the tokenizer, and their padding, do not change its fingerprint.
    assert first.text_tokenizer.fingerprint() == load_model(folder).text_tokenizer.fingerprint()


def test_frames_of_one_file_are_different_images(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    Image.new("RGB", (8, 8)).save(file)
    disk = DiskEmbeddings()

    def key(path: str) -> str:
        return disk.images_key("tower", items([{"id": "a", "image": {"path": path, "bytes": None}}]), "cpu")

    assert key(f"{file}#frame=1") != key(f"{file}#frame=2") != key(str(file))
    assert key(str(file)) == key(str(file))
    assert key(str(file)) != disk.images_key("tower", items([{"id": "a", "image": image(9)}]), "cpu")


def image(seed: int) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.new("RGB", (9, 7), (seed, seed, seed)).save(stream, "PNG")
    return {"path": None, "bytes": stream.getvalue()}


def test_a_set_with_an_unreadable_image_is_not_written_to_disk(
    model: DualEncoder, cache_folder: Path
) -> None:
    """The image may be readable once a decoder is installed."""
    readable = encode_images(
        [CachedEncoder(model, EmbeddingCache.make(on_disk=True))], items(samples(40, broken=[3]))
    )
    assert len(readable) == 39
    assert entries(cache_folder) == []


def test_few_texts_are_not_written_to_disk(model: DualEncoder, cache_folder: Path) -> None:
    CachedEncoder(model, EmbeddingCache.make(on_disk=True)).texts(["a cat", "a dog"])
    assert entries(cache_folder) == []


def test_only_the_owner_can_read_entries(model: DualEncoder, cache_folder: Path) -> None:
    CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(items(samples(3)))
    assert [entry.stat().st_mode & 0o077 for entry in entries(cache_folder)] == [0]


def test_the_least_recently_used_entry_is_removed_first(cache_folder: Path) -> None:
    disk = DiskEmbeddings(limit=3000)
    for name in ("a", "b", "c"):
        disk.write(name, np.full((10, 20), 1.0, dtype=np.float32))  # 800 bytes and their description
        os.utime(cache_folder / name, (ord(name), ord(name)))
    os.utime(cache_folder / "a", (1000, 1000))
    disk.write("d", np.full((10, 20), 2.0, dtype=np.float32))
    assert [entry.name for entry in entries(cache_folder)] == ["a", "c", "d"]
    disk.write("large", np.zeros((100, 20), dtype=np.float32))
    assert [entry.name for entry in entries(cache_folder)] == ["a", "c", "d"]  # larger than the limit


def test_a_damaged_entry_is_computed_again(model: DualEncoder, cache_folder: Path) -> None:
    data = items(samples(3))
    expected = CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(data)
    (entry,) = entries(cache_folder)
    (entry / "array.npy").write_bytes(b"no array")
    assert (
        CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(data).tobytes() == expected.tobytes()
    )
    np.save(entry / "array.npy", np.zeros((2, 16), dtype=np.float32))
    assert (
        CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(data).tobytes() == expected.tobytes()
    )


def test_a_full_disk_is_no_error(
    model: DualEncoder, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache, "writing", full)
    assert CachedEncoder(model, EmbeddingCache.make(on_disk=True)).images(items(samples(3))).shape == (
        3,
        16,
    )
    assert entries(cache_folder) == []


def test_processes_agree_on_cached_entries(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, of which only one can read the entry, both compute it; the results equal those of one."""
    folders = (tiny_clip(tmp_path / "a"), tiny_clip(tmp_path / "b", seed=1))
    plain = evaluate_on_processes(folders, 1, monkeypatch)[0]
    original = CachedEncoder.__init__
    monkeypatch.setattr(
        CachedEncoder,
        "__init__",
        lambda self, model: original(self, model, EmbeddingCache.make(on_disk=True)),
    )
    read = DiskEmbeddings.read
    monkeypatch.setattr(
        DiskEmbeddings,
        "read",
        lambda self, name, rows: read(self, name, rows) if collectives.rank() == 0 else None,
    )
    for _ in range(2):
        assert evaluate_on_processes(folders, 2, monkeypatch) == [plain, plain]


# --- splits that a probe fits on ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fitted(Probe):
    """A probe that encodes every split."""

    citation: ClassVar[str] = "none"
    version: ClassVar[int] = 1

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        result = ZeroShot()(encoder, data)
        encoded = {name: len(encoder.images(items)) for name, items in _fitted(data).items()}
        return ProbeResult("fitted", data.name, result.metrics, result.primary, 1, {"encoded": encoded})


def _fitted(data: EvaluationSet) -> dict[str, Any]:
    splits = {"train": data.train, "validation": data.validation}
    return {name: items for name, items in splits.items() if items is not None}


def test_unreadable_images_of_a_fitted_split_are_left_out_and_counted(model: DualEncoder) -> None:
    data = evaluation_set(samples(40), CLASSES)
    train = items([{**row, "id": f"t{row['id']}"} for row in samples(30, broken=(2, 4))])
    data = EvaluationSet(data.name, data.items, data.card, data.classes, train=train)
    encoder = CachedEncoder(model)
    evaluation = evaluate_pair(
        encoder, None, Protocol([data], {"fitted": Fitted(), "retrieval": Retrieval()}, 100)
    )
    assert evaluation.protocol[0]["details"] == {"encoded": {"train": 28}}
    assert (
        "test: 2 images of its train split cannot be read; no probe is fitted on them" in evaluation.warnings
    )
    plain = evaluate_pair(encoder, None, Protocol([data], {"retrieval": Retrieval()}, 100))
    assert plain.warnings == [text for text in evaluation.warnings if "train split" not in text]
    assert exact_values(plain) == [
        row for row in exact_values(evaluation) if row[1] in {shared.metric for shared in plain.rows}
    ]


def test_encoding_unreadable_images_raises_with_the_readable_items(model: DualEncoder) -> None:
    with pytest.raises(UnreadableImages) as error:
        CachedEncoder(model).images(items(samples(4, broken=[0])))
    assert str(error.value) == "1 of 4 images cannot be read: measure the readable ones"
    assert error.value.readable["id"][:] == ["001", "002", "003"]


# --- decoding ahead --------------------------------------------------------------------------------------


def test_load_ahead_preserves_order_and_warning_filters() -> None:
    def slow(row: int) -> int:
        warnings.simplefilter("ignore")  # as decoders do
        time.sleep(0.002 * (row % 3))
        return row * row

    before = list(warnings.filters)
    row_chunks = [range(0, 5), range(5, 9), range(9, 10)]
    assert list(chunks.load_ahead(slow, row_chunks)) == [[r * r for r in chunk] for chunk in row_chunks]
    assert warnings.filters == before


def test_blocks_of_an_array_are_read_and_the_rest_is_encoded(
    model: DualEncoder, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "BLOCK", 2 * chunks.SIZE)
    data = items(samples(150))  # blocks of 64, 64 and 22
    plain = CachedEncoder(model).images(data)
    jobs = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    for block in encoder.blocks(data)[::2]:
        encoder.encode_block([jobs], data, block)
    assert len(entries(cache_folder)) == 2
    rows: list[int] = []
    run = CachedEncoder.encode_image_chunk

    def counted(self: CachedEncoder, chunk: Any) -> Any:
        rows.append(len(chunk))
        return run(self, chunk)

    monkeypatch.setattr(CachedEncoder, "encode_image_chunk", counted)
    joined = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    assert joined.images(data).tobytes() == plain.tobytes()
    assert rows == [32, 32]  # of the middle block
    assert len(entries(cache_folder)) == 3
    for block in encoder.blocks(data):
        encoder.encode_block([joined], data, block)  # the middle block alone is new
    for entry in entries(cache_folder):
        if len(np.load(entry / "array.npy")) == 150:
            shutil.rmtree(entry)
    rows.clear()
    again = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    assert again.images(data).tobytes() == plain.tobytes()
    assert rows == []


def test_an_unreadable_image_of_a_block_is_left_out_of_the_whole(
    model: DualEncoder, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "BLOCK", chunks.SIZE)
    rows = samples(70)
    rows[40] = {**rows[40], "image": {"path": None, "bytes": b"no image"}}
    data = items(rows)
    jobs = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    for block in encoder.blocks(data):
        encoder.encode_block([jobs], data, block)
    assert len(entries(cache_folder)) == 2  # not the block of the unreadable one
    joined = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    readable = encode_images([joined], data)
    assert list(readable["id"]) == [row["id"] for number, row in enumerate(rows) if number != 40]
    plain = CachedEncoder(model)
    assert encode_images([plain], data)["id"][:] == readable["id"][:]
    assert joined.images(readable).tobytes() == plain.images(readable).tobytes()


def test_the_precision_is_part_of_the_key_and_its_distance_is_measured(
    model: DualEncoder, cache_folder: Path
) -> None:
    data, texts = items(samples(5)), [f"a red square number {i}" for i in range(80)]
    exact, reduced = (
        CachedEncoder(model, EmbeddingCache.make(on_disk=True, precision=precision))
        for precision in ("fp32", "bf16")
    )
    distances = []
    for one, other in (
        (exact.images(data), reduced.images(data)),
        (exact.texts(texts), reduced.texts(texts)),
    ):
        assert one.dtype == other.dtype == np.float32
        assert np.allclose(np.linalg.norm(other, axis=1), 1, atol=1e-5)
        distances.append((1 - (one.astype(np.float64) * other).sum(1)).max())
        assert 1e-8 < distances[-1] < 1e-2
    assert len(entries(cache_folder)) == 4  # neither precision reads the other's
    measured = EvaluationSet("test", data, Card(), {})
    assert precision_parity(model, exact.cache, measured) is None
    parity = precision_parity(model, reduced.cache, measured)
    assert parity is not None
    assert (parity.precision, parity.images) == ("bf16", 5)
    assert parity.image_distance == pytest.approx(distances[0], abs=1e-6)
    assert str(parity).startswith("evaluate.precision: bf16: the cosine distance from fp32 is at most ")


def test_what_a_short_lived_model_computed_is_written_once_it_is_the_final_one(
    model: DualEncoder, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, memory = items(samples(20)), EmbeddingCache.make(on_disk=True)
    computed = CachedEncoder(model, memory.memory_only).images(data)  # as of an α that is tried
    assert entries(cache_folder) == []
    final = CachedEncoder(model, memory)
    encode_images([final], data)
    encode_images([final], data)
    (entry,) = entries(cache_folder)
    monkeypatch.setattr(DualEncoder, "encode_image", None)  # the next command reads it
    again = CachedEncoder(model, EmbeddingCache.make(on_disk=True))
    np.testing.assert_array_equal(again.images(data), computed)
    assert entries(cache_folder) == [entry]

"""A prepared folder is read by its manifest, whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from domainclip.data import prepared_format
from domainclip.data.corpus import load_corpus
from domainclip.data.files import object_stores, remote
from domainclip.data.images.decode import decode_image
from domainclip.data.images.reencode import Reencoder
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.prepared import Prepared
from domainclip.errors import DataError
from domainclip.pipelines import early_checks
from domainclip.pipelines.data_prepare import write_prepared_corpus
from domainclip.pipelines.prepared_shards import PrepareRequest
from tests.data.made_corpora import card, table


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _folder(tmp_path: Path, form: prepared_format.ShardFormat = "tar") -> Path:
    rows = [
        {"file_name": f"{i}.png", "text": f"t{i}", "split": ("train", "val", "test")[i % 3]} for i in range(7)
    ]
    source = table(tmp_path / "source", rows)
    write_prepared_corpus(
        card(), str(source), tmp_path / "out", PrepareRequest(Reencoder(64), form, 2), 1, lambda line: None
    )
    return tmp_path / "out"


@pytest.mark.parametrize("form", ["tar", "arrow"])
def test_it_is_found_whatever_the_card_says_of_the_source(
    tmp_path: Path, form: prepared_format.ShardFormat
) -> None:
    folder = _folder(tmp_path, form)
    said = card(reader="dicom", columns={"texts": "report"}, captions={"template": "{report} again"})
    corpus = load_corpus(said, str(folder))
    assert corpus.card.reader == "prepared"
    assert {split: rows["texts"][:] for split, rows in corpus.splits.items()} == {
        "train": [["t0"], ["t3"], ["t6"]],
        "validation": [["t1"], ["t4"]],
        "test": [["t2"], ["t5"]],
    }
    assert corpus.locations[corpus.splits["train"]["id"][2]] == f"train-00001.{form} item 1"
    assert decode_image(corpus.splits["train"][2]["image"]).size == (8, 6)


@pytest.mark.parametrize("form", ["tar", "arrow"])
def test_a_shard_that_changed_is_refused(tmp_path: Path, form: prepared_format.ShardFormat) -> None:
    folder = _folder(tmp_path, form)
    file = folder / f"train-00000.{form}"
    data = bytearray(file.read_bytes())
    file.write_bytes(data[:-1])
    expected = f"{file}: differs from the manifest: prepare the corpus again"
    with pytest.raises(DataError) as error:
        load_corpus(card(), str(folder))
    assert str(error.value) == expected
    data[700] ^= 1  # of the same size: only looking at every byte tells
    file.write_bytes(data)
    with pytest.raises(DataError) as error:
        Prepared(verify=True).read(card(), folder, ReadLog())
    assert str(error.value) == expected
    file.unlink()
    with pytest.raises(DataError) as error:
        load_corpus(card(), str(folder))
    assert str(error.value) == expected


def test_a_manifest_leads_nowhere_else(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["file"] = f"{tmp_path}/elsewhere/../out/train-00000.tar"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert len(load_corpus(card(), str(folder)).splits["train"]) == 3  # the name alone counts


def test_other_folders_are_not_prepared_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        Prepared().read(card(), tmp_path, ReadLog())
    assert str(error.value) == f"{tmp_path}: no manifest.json of domainclip data prepare: set corpus.reader"
    for content in ("{", "[]", '{"format": "another"}'):
        (tmp_path / "manifest.json").write_text(content)
        assert prepared_format.read_manifest(tmp_path) is None
    (tmp_path / "manifest.json").write_text('{"format": "domainclip-prepared", "version": 9}')
    with pytest.raises(DataError) as error:
        prepared_format.read_manifest(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: written in version 9 of the format; this release reads 2: prepare the corpus again"
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"form": "zip"}, "form"),
        ({"shards": None}, "shards"),
        ({"shards": {"a": 1}}, "shards"),
        ({"shards": [[]]}, "shard 1, file"),
        ({"shards": [{"file": "a.tar", "split": "prod", "bytes": 0, "sha256": ""}]}, "shard 1, split"),
        ({"shards": [{"file": "a.tar", "split": "train", "sha256": ""}]}, "shard 1, bytes"),
    ],
)
def test_a_manifest_that_is_not_whole(tmp_path: Path, change: dict[str, object], fault: str) -> None:
    folder = _folder(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(DataError) as error:
        load_corpus(card(), str(folder))
    assert str(error.value) == (
        f"{folder}: its manifest.json is incomplete ({fault}): prepare the corpus again"
    )


@pytest.mark.parametrize("form", ["tar", "arrow"])
def test_a_shard_with_fewer_items_than_its_manifest_counts_is_refused(
    tmp_path: Path, form: prepared_format.ShardFormat
) -> None:
    folder = _folder(tmp_path, form)
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["shards"][0]["items"] += 1
    file.write_text(json.dumps(manifest))
    with pytest.raises(DataError) as error:
        load_corpus(card(), str(folder))
    name = folder / f"train-00000.{form}"
    assert str(error.value) == f"{name}: holds 2 items and not 3: prepare the corpus again"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """fsspec's store in memory as one of the stores."""
    monkeypatch.setitem(object_stores.STORES, "memory", ("fsspec", "s3"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


@pytest.mark.parametrize("form", ["arrow", "tar"])
def test_a_corpus_in_a_store_is_fetched_once_and_is_that_of_the_disk(
    tmp_path: Path, store: Any, form: prepared_format.ShardFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = _folder(tmp_path, form), "memory://bucket/prepared"
    for file in folder.iterdir():
        store.pipe(f"/bucket/prepared/{file.name}", file.read_bytes())
    read: list[str] = []
    opened = remote.open_stream
    monkeypatch.setattr(remote, "open_stream", lambda name: read.append(name) or opened(name))  # type: ignore[func-returns-value]
    early_checks.check_corpus(card(reader="prepared"), address)
    local = load_corpus(card(), str(folder))
    fetched, again = (load_corpus(card(reader="prepared"), address) for _ in range(2))
    shards = len(list(folder.glob(f"*.{form}")))
    assert len([name for name in read if name.endswith(form)]) == shards == 4
    assert len(list(folder.iterdir())) == shards + 1  # reading writes nothing into the folder
    for corpus in (fetched, again):
        assert corpus.fingerprint == local.fingerprint
        assert dict(corpus.digests) == dict(local.digests)
        for split, rows in corpus.splits.items():
            for row, other in zip(rows, local.splits[split], strict=True):
                assert decode_image(row["image"]).tobytes() == decode_image(other["image"]).tobytes()
                assert row["image"]["bytes"] is None  # a range of the fetched file


def test_a_shard_of_a_store_that_differs_is_refused(tmp_path: Path, store: Any) -> None:
    for file in _folder(tmp_path, "arrow").iterdir():
        store.pipe(f"/bucket/prepared/{file.name}", file.read_bytes())
    store.pipe("/bucket/prepared/test-00000.arrow", b"other")
    with pytest.raises(DataError, match=r"shard test-00000\.arrow differs from the manifest"):
        load_corpus(card(reader="prepared"), "memory://bucket/prepared")
    assert list((tmp_path / "cache" / "shards").glob("*/*.arrow")) == []
    with pytest.raises(DataError, match=r"manifest\.json cannot be read: no such file in the store"):
        load_corpus(card(reader="prepared"), "memory://bucket/none")
    store.pipe("/bucket/other/manifest.json", b"{}")
    with pytest.raises(DataError, match=r"other: no manifest\.json of domainclip data prepare"):
        load_corpus(card(reader="prepared"), "memory://bucket/other")

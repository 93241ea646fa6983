"""Shards in an object store: read as local ones, patiently, and without a word of the store in a message."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from domainclip.config import offline
from domainclip.data.cards import load_card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.files import object_stores
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.webdataset import Webdataset
from domainclip.errors import DataError, HubError, RecipeError
from tests.data.made_shards import pair, shards, tar

SECRET = "AKIA-secret"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """fsspec's store in memory as one of the stores, with shards of 3 and 2 pairs, and the same on disk."""
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(object_stores.STORES, "memory", ("fsspec", "s3"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    folder = shards(tmp_path / "s", [3, 2])
    memory = fsspec.filesystem("memory")
    for file in sorted(folder.glob("*.tar")):
        memory.pipe(f"/bucket/s/{file.name}", file.read_bytes())
    memory.pipe("/bucket/s/readme.txt", b"no shard")
    yield folder
    memory.store.clear()


def _streamed(path: Path | str) -> Corpus:
    options = {"streaming": True, "lanes": 2, "buffer": 4}
    return load_corpus(load_card("webdataset", {"options": options, "max_unusable": 0.2}), str(path))


def _rows(corpus: Corpus) -> list[Any]:
    assert corpus.stream is not None
    return [(row["texts"], row["image"]["bytes"]) for row in corpus.stream.rows(ReadLog())]


@pytest.mark.parametrize("path", ["memory://bucket/s", "memory://bucket/s/train-{000..001}.tar"])
def test_a_stream_of_a_store_is_that_of_the_disk(store: Path, path: str) -> None:
    local, remote = _streamed(store), _streamed(path)
    assert local.stream is not None
    assert remote.stream is not None
    assert _rows(remote) == _rows(local)
    assert remote.stream.shard_sizes == (3, 2)
    assert remote.stream.fingerprint() == local.stream.fingerprint()  # so is its order in every epoch


class _Flaky:
    """A store whose connection is lost after every third byte, or for good."""

    def __init__(self, data: bytes, failures: int) -> None:
        self.data, self.failures, self.opened = data, failures, 0

    def open(self, name: str, mode: str, **_: Any) -> Any:
        self.opened += 1
        return _Connection(self)


class _Connection:
    def __init__(self, store: _Flaky) -> None:
        self.store, self.size, self.position, self.fresh = store, len(store.data), 0, True

    def seek(self, position: int) -> None:
        self.position = position

    def read(self, size: int) -> bytes:
        if not self.fresh and self.store.failures:
            self.store.failures -= 1
            raise RuntimeError(f"{SECRET} was rejected")
        self.fresh = False
        data = self.store.data[self.position : self.position + min(size, 3)]
        self.position += len(data)
        return data

    def close(self) -> None:
        raise RuntimeError("gone")


def test_a_lost_connection_goes_on_where_it_was(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = _Flaky(bytes(range(20)), failures=6)
    monkeypatch.setattr(object_stores, "file_system", lambda address: (flaky, "x"))
    file = object_stores.StoreFile("memory://x")
    assert file.read(5) + file.read() == flaky.data
    assert file.read(1) == b""
    assert flaky.opened == 7
    file.close()


def test_messages_hold_nothing_that_the_store_says(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead(_Flaky):
        def open(self, name: str, mode: str, **_: Any) -> Any:
            raise {"auth": PermissionError, "net": RuntimeError}[name](SECRET)

    for name, line in (
        ("auth", "the store refuses access: check its cred"),
        ("net", "after 5 attempts (RuntimeError)"),
    ):
        monkeypatch.setattr(object_stores, "file_system", lambda address, name=name: (Dead(b"", 0), name))
        with pytest.raises(DataError) as caught:
            _streamed("memory://bucket/train-000.tar")
        assert str(caught.value).startswith("shard train-000.tar: cannot be opened: ")
        assert line in str(caught.value)
        assert SECRET not in str(caught.value)


def test_what_is_not_there(store: Path) -> None:
    with pytest.raises(DataError, match=r"shard train-009.tar: cannot be opened: no such file in the store"):
        _streamed("memory://bucket/s/train-009.tar")
    with pytest.raises(DataError, match=r"corpus.path: no .tar file in this folder of the store or below"):
        _streamed("memory://bucket/empty")


def test_a_shard_that_is_cut_in_the_store_is_counted(store: Path) -> None:
    memory = fsspec.filesystem("memory")
    data = memory.cat("/bucket/s/train-001.tar")
    memory.pipe("/bucket/s/train-001.tar", data[: len(data) // 4])
    corpus = _streamed("memory://bucket/s")
    assert {item.reason for item in corpus.unusable} == {"cut tar"}


def test_a_prepared_corpus_is_streamed_with_its_counts(store: Path, tmp_path: Path) -> None:
    columns = {"texts": ["one", "two"], "labels": ["cat"], "group": "g1", "language": "", "meta": {}}
    file = tar(tmp_path / "train-00000.tar", [*pair("a", 1, **columns), *pair("b", 2, **columns)])
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/p/train-00000.tar", file.read_bytes())
    memory.pipe("/bucket/p/manifest.json", b'{"shards": [{"file": "train-00000.tar", "items": 2}]}')
    named = {name: name for name in ("texts", "labels", "group")}
    card = load_card("webdataset", {"columns": named, "options": {"streaming": True}})
    corpus = load_corpus(card, "memory://bucket/p")
    assert corpus.stream is not None
    rows = list(corpus.stream.rows(ReadLog()))
    assert [row["texts"] for row in rows] == [["one", "two"]] * 2
    assert [row["labels"] for row in rows] == [["cat"]] * 2
    assert not [note for note in corpus.notes if "counted" in note]


def test_addresses_that_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    card, reader = load_card("webdataset", {}), Webdataset(streaming=True)
    with pytest.raises(RecipeError) as caught:
        reader.check_source(card, f"s3://key:{SECRET}@bucket/x.tar")
    assert str(caught.value).startswith("corpus.path: the address holds a password")
    assert SECRET not in str(caught.value)
    monkeypatch.setattr(object_stores.importlib.util, "find_spec", lambda name: None)
    for scheme, extra in (("s3", "s3"), ("gs", "gcs"), ("az", "azure")):
        with pytest.raises(RecipeError, match=rf"{scheme}:// needs \w+: pip install 'domainclip\[{extra}\]'"):
            reader.check_source(card, f"{scheme}://bucket/x.tar")
    monkeypatch.setattr(object_stores.importlib.util, "find_spec", lambda name: name)
    reader.check_source(card, "abfs://container@account/x.tar")  # no password
    monkeypatch.setenv(offline.VARIABLE, "1")
    with pytest.raises(
        HubError, match=r"corpus.path, an address: needs the network, which --offline forbids"
    ):
        reader.check_source(card, "s3://bucket/x.tar")

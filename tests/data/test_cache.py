"""Entries are whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from domainclip.data import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def test_what_was_written_is_read() -> None:
    name = cache.key("tower", {"b": 1, "a": [2]})
    assert cache.read("embeddings", name) is None
    with cache.writing("embeddings", name, (2, 3), np.float32, {"what": "a test"}) as array:
        array[:] = np.arange(6).reshape(2, 3)
    again = cache.read("embeddings", name)
    assert again is not None
    assert again.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="read-only"):
        again[0, 0] = 9


def test_a_key_is_what_it_is_made_from() -> None:
    assert cache.key(1, {"a": 1, "b": 2}) == cache.key(1, {"b": 2, "a": 1})
    assert len({cache.key(1), cache.key("1"), cache.key(1, 1)}) == 3


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half"), cache.writing("features", "k", (2,), np.float32, {}):
        raise RuntimeError("half")
    assert list((tmp_path / "cache" / "features").iterdir()) == []


def test_a_broken_entry_is_as_none() -> None:
    with cache.writing("features", "k", (64,), np.float32, {}) as array:
        array[:] = 1
    file = cache.root() / "features" / "k" / "array.npy"
    file.write_bytes(file.read_bytes()[:100])
    assert cache.read("features", "k") is None

"""Entries are whole or absent."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from domainclip import disk_cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def test_what_was_written_is_read() -> None:
    name = disk_cache.key("tower", {"b": 1, "a": [2]})
    assert disk_cache.read("embeddings", name) is None
    with disk_cache.writing("embeddings", name, (2, 3), np.float32, {"what": "a test"}) as array:
        array[:] = np.arange(6).reshape(2, 3)
    again = disk_cache.read("embeddings", name)
    assert again is not None
    assert again.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="read-only"):
        again[0, 0] = 9


def test_a_key_is_what_it_is_made_from() -> None:
    assert disk_cache.key(1, {"a": 1, "b": 2}) == disk_cache.key(1, {"b": 2, "a": 1})
    assert len({disk_cache.key(1), disk_cache.key("1"), disk_cache.key(1, 1)}) == 3


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half"), disk_cache.writing("features", "k", (2,), np.float32, {}):
        raise RuntimeError("half")
    assert list((tmp_path / "cache" / "features").iterdir()) == []


def test_a_broken_entry_is_as_none() -> None:
    with disk_cache.writing("features", "k", (64,), np.float32, {}) as array:
        array[:] = 1
    file = disk_cache.root() / "features" / "k" / "array.npy"
    file.write_bytes(file.read_bytes()[:100])
    assert disk_cache.read("features", "k") is None


def _entry(kind: str, name: str, numbers: int, age: float) -> None:
    with disk_cache.writing(kind, name, (numbers,), np.uint8, {"what": f"{numbers} numbers"}):
        pass
    used = time.time() - age
    os.utime(disk_cache.root() / kind / name, (used, used))


def test_entries_stand_in_the_order_of_use() -> None:
    _entry("features", "old", 1000, age=900)
    _entry("pixels", "new", 5000, age=10)
    assert [(one.kind, one.name, one.description) for one in disk_cache.entries()] == [
        ("pixels", "new", "5000 numbers"),
        ("features", "old", "1000 numbers"),
    ]
    assert [one.name for one in disk_cache.entries("features")] == ["old"]
    assert 5000 < disk_cache.entries()[0].size < 5300
    disk_cache.read("features", "old")
    assert [one.name for one in disk_cache.entries()] == ["old", "new"]


def test_pruning_removes_what_was_used_longest_ago() -> None:
    for name, age in (("a", 30), ("b", 20), ("c", 10)):
        _entry("pixels", name, 5000, age)
    _entry("features", "d", 5000, 40)
    removed = disk_cache.prune(11_000, "pixels")
    assert [one.name for one in disk_cache.entries()] == ["c", "b", "d"]
    assert 5000 < removed < 5300
    disk_cache.remove("features", "d")
    assert [one.name for one in disk_cache.entries()] == ["c", "b"]
    assert sorted(path.name for path in (disk_cache.root() / "pixels").iterdir()) == ["b", "c"]


def test_drafts_of_killed_processes_are_swept_and_no_others() -> None:
    for name in (".young", ".old"):
        (disk_cache.root() / "pixels" / name).mkdir(parents=True)
    long_ago = time.time() - 30 * 86_400
    os.utime(disk_cache.root() / "pixels" / ".old", (long_ago, long_ago))
    _entry("pixels", "a", 10, 0)
    assert sorted(path.name for path in (disk_cache.root() / "pixels").iterdir()) == [".young", "a"]
    assert [one.name for one in disk_cache.entries()] == ["a"]


def test_a_full_disk_is_an_error_and_not_a_crash() -> None:
    with (
        pytest.raises(OSError, match=r"No space left|File too large|Invalid argument"),
        disk_cache.writing("pixels", "huge", (2**50,), np.uint8, {}),
    ):
        pass
    assert list((disk_cache.root() / "pixels").iterdir()) == []


def test_only_the_owner_may_look() -> None:
    _entry("pixels", "a", 10, 0)
    assert (disk_cache.root() / "pixels" / "a").stat().st_mode & 0o077 == 0


def test_a_budget_limits_one_kind() -> None:
    budget = disk_cache.Budget("pixels", 11_000)
    assert budget.fits(11_000)
    assert not budget.fits(11_001)
    for name, age in (("a", 30), ("b", 20)):
        _entry("pixels", name, 5000, age)
    _entry("features", "c", 5000, 40)
    assert budget.prune() == 0
    assert 5000 < budget.prune(1000) < 5300  # of 11,000 bytes, two entries and 1,000 more do not fit
    assert [entry.name for entry in disk_cache.entries()] == ["b", "c"]
    budget.prune(11_001)
    assert [entry.name for entry in disk_cache.entries()] == ["c"]


def test_a_gigabyte_of_the_disk_stays_free() -> None:
    assert disk_cache.has_room(10, 2**30 + 10)
    assert not disk_cache.has_room(11, 2**30 + 10)
    assert disk_cache.free_bytes() > 0  # the folder of the cache need not exist


def test_a_disk_that_cannot_be_read_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk_cache.shutil, "disk_usage", refuse)
    assert disk_cache.free_bytes() == 0


def test_versions_are_the_installed_ones() -> None:
    assert disk_cache.versions("numpy") == [np.__version__]

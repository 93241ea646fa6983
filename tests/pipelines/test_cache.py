"""`data cache list|clear`: whole texts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from domainclip import disk_cache
from domainclip.errors import RecipeError
from domainclip.pipelines.cache import cache_rows, cache_total, clear_cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _entry(kind: str, name: str, numbers: int, hours: float) -> None:
    with disk_cache.writing(kind, name, (numbers,), np.uint8, {"what": f"{numbers} training pictures"}):
        pass
    (disk_cache.root() / kind / name / "about.json").write_text(f'{{"what": "{numbers} training pictures"}}')
    used = time.time() - hours * 3600
    os.utime(disk_cache.root() / kind / name, (used, used))


def _some() -> None:
    _entry("pixels", "a" * 40, 3_000_000, 1.1)
    _entry("features", "ab" * 20, 20_000, 30 * 24 + 5)


def test_an_empty_cache() -> None:
    assert cache_rows() == []
    assert cache_total() == f"0 entries, 0 bytes, in {disk_cache.root()}"


def test_entries_are_listed_with_size_age_and_what_they_are() -> None:
    _some()
    assert cache_rows() == [
        ("pixels", "aaaaaaaaaaaa", "3.0 MB", "1 h ago", "3000000 training pictures"),
        ("features", "abababababab", "20.2 kB", "30 d ago", "20000 training pictures"),
    ]
    assert cache_total() == f"2 entries, 3.0 MB, in {disk_cache.root()}"


def test_what_is_named_is_removed() -> None:
    _some()
    assert clear_cache(["abab"], everything=False, older_than=None) == "removed 1 entries, 20.2 kB"
    assert [one.name for one in disk_cache.entries()] == ["a" * 40]
    assert clear_cache([], everything=True, older_than=None) == "removed 1 entries, 3.0 MB"
    assert disk_cache.entries() == []


def test_an_entry_that_is_named_twice_is_removed_once() -> None:
    _some()
    assert clear_cache(["abab", "ab" * 20], everything=False, older_than=None) == "removed 1 entries, 20.2 kB"


def test_what_a_killed_run_left_is_listed_and_removed() -> None:
    _entry("pixels", "a" * 40, 3_000, 1.1)
    for name, hours in ((".dead.0123", 2.0), (".live.4567", 0.0)):
        draft = disk_cache.root() / "pixels" / name
        draft.mkdir()
        (draft / "array.npy").write_bytes(bytes(500))
        at = time.time() - hours * 3600
        for place in (draft / "array.npy", draft):
            os.utime(place, (at, at))
    assert cache_rows() == [
        ("pixels", "aaaaaaaaaaaa", "3.2 kB", "1 h ago", "3000 training pictures"),
        ("pixels", ".dead.0123", "500 bytes", "2 h ago", "unfinished"),
        ("pixels", ".live.4567", "500 bytes", "0 h ago", "unfinished"),
    ]
    assert cache_total() == f"3 entries, 4.2 kB, in {disk_cache.root()}"
    # One that a run may be writing at this moment stays.
    assert clear_cache([], everything=True, older_than=None) == (
        "removed 2 entries, 3.7 kB; 1 unfinished ones were touched within the hour and are left"
    )
    assert [path.name for path in (disk_cache.root() / "pixels").iterdir()] == [".live.4567"]


@pytest.mark.parametrize(("age", "left"), [("30d", 1), ("31d", 2), ("721h", 1), ("0h", 0)])
def test_what_was_not_used_for_long_is_removed(age: str, left: int) -> None:
    _some()
    clear_cache([], everything=False, older_than=age)
    assert len(disk_cache.entries()) == left


@pytest.mark.parametrize(
    ("names", "everything", "older_than", "text"),
    [
        (
            [],
            False,
            None,
            "data cache clear: name entries, or set --all or --older-than 30d: one of the three",
        ),
        (
            ["aa"],
            True,
            None,
            "data cache clear: name entries, or set --all or --older-than 30d: one of the three",
        ),
        (["a"], False, None, 'data cache clear: "a": several entries begin so'),
        (["b"], False, None, 'data cache clear: "b": no such entry: known: aaaaaaaaaaaa, abababababab.'),
        ([], False, "soon", '--older-than: "soon" is not a duration: write it as 3h50m, 90m or 1d12h'),
    ],
)
def test_errors(names: list[str], everything: bool, older_than: str | None, text: str) -> None:
    _some()
    with pytest.raises(RecipeError) as error:
        clear_cache(names, everything=everything, older_than=older_than)
    assert str(error.value) == text
    assert len(disk_cache.entries()) == 2

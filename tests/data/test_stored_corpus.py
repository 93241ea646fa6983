"""A large corpus is read once on a machine, mapped by its processes, and read again when a file changes."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.files import stored_corpus
from domainclip.data.files.mapped_tables import MappedTexts
from domainclip.data.readers.table import Table
from tests.data.made_corpora import card, noise_image, table
from tests.support.processes import started


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored_corpus, "MIN_ITEMS", 5)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list with an entry for each time that a table is read."""
    calls: list[int] = []
    read = Table.read

    def counted(self: Table, *given: Any) -> Any:
        calls.append(1)
        return read(self, *given)

    monkeypatch.setattr(Table, "read", counted)
    return calls


def _table(folder: Path, *, settled: bool = True) -> Path:
    rows = [
        {"file_name": f"{i}.png", "text": f"caption {i}", "label": "ab"[i % 2], "split": split}
        for i, split in enumerate(["train"] * 6 + ["val", "test"])
    ]
    rows[3]["text"] = ""  # unusable: its reason is stored as well
    file = table(folder, rows)
    if settled:
        _settle(file.parent)
    return file


def _settle(folder: Path) -> None:
    past = time.time() - 100
    for file in folder.rglob("*"):
        os.utime(file, (past, past))


def _card(**keys: Any) -> Any:
    return card(templates=["a {}"], min_items=1, max_unusable=0.5, **keys)


def _same(first: Corpus, second: Corpus) -> bool:
    plain = [
        replace(
            one,
            splits={name: items.to_list() for name, items in one.splits.items()},  # type: ignore[arg-type]
            locations=dict(one.locations),
            digests=dict(one.digests),
            view_digests=dict(one.view_digests),
        )
        for one in (first, second)
    ]
    return plain[0] == plain[1]


def test_a_large_corpus_is_read_once_and_mapped(
    tmp_path: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _table(tmp_path / "corpus")
    first, second = (load_corpus(_card(), str(file)) for _ in range(2))
    assert len(reads) == 1
    assert _same(first, second)
    monkeypatch.setattr(stored_corpus, "MIN_ITEMS", 1000)
    monkeypatch.setattr(stored_corpus, "find", lambda name: None)
    assert _same(first, load_corpus(_card(), str(file)))  # in memory
    assert isinstance(first.digests, MappedTexts)
    assert first.splits["train"].cache_files  # rows of a file, not of memory


def test_it_is_read_again_when_a_file_or_a_setting_changes(tmp_path: Path, reads: list[int]) -> None:
    file = _table(tmp_path / "corpus")
    before = load_corpus(_card(), str(file))
    noise_image(file.parent / "1.png", seed=99)
    changed = load_corpus(_card(), str(file))
    assert len(reads) == 2
    assert changed.fingerprint != before.fingerprint
    _settle(file.parent)
    load_corpus(_card(), str(file))
    load_corpus(_card(name="other"), str(file))
    load_corpus(_card(), str(file), training=False)
    assert len(reads) == 5
    file.write_text(file.read_text().replace("caption 2", "caption two"))
    assert "caption two" in [row["texts"][0] for row in load_corpus(_card(), str(file)).splits["train"]]


def test_files_that_may_still_change_unnoticed_are_not_stored(tmp_path: Path, reads: list[int]) -> None:
    """Within a tick of the clock of a file system, a file can change and keep its times."""
    file = _table(tmp_path / "corpus", settled=False)
    for _ in range(2):
        load_corpus(_card(), str(file))
    assert len(reads) == 2


def test_a_missing_image_may_appear(tmp_path: Path, reads: list[int]) -> None:
    file = _table(tmp_path / "corpus")
    image = (file.parent / "2.png").read_bytes()
    (file.parent / "2.png").unlink()
    assert len(load_corpus(_card(), str(file)).splits["train"]) == 4
    (file.parent / "2.png").write_bytes(image)
    assert len(load_corpus(_card(), str(file)).splits["train"]) == 5


def test_a_full_disk_costs_the_next_command_its_time(
    tmp_path: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored_corpus, "write", full)
    file = _table(tmp_path / "corpus")
    assert len(load_corpus(_card(), str(file)).splits["train"]) == 5


def _load(path: str) -> dict[str, Any]:
    calls: list[int] = []
    read = Table.read
    Table.read = lambda *given: calls.append(1) or read(*given)  # type: ignore[method-assign, func-returns-value]
    loaded = load_corpus(_card(), path)
    return {
        "reads": len(calls),
        "files": [file["filename"] for file in loaded.splits["train"].cache_files],
        "texts": loaded.splits["train"]["texts"][:],
        "digests": dict(loaded.digests),
        "mapped": isinstance(loaded.digests, MappedTexts),
    }


def test_of_two_processes_the_first_reads_and_both_map(tmp_path: Path) -> None:
    file = _table(tmp_path / "corpus", settled=False)
    first, second = started(2, tmp_path, _load, str(file))
    assert (first["reads"], second["reads"]) == (1, 0)
    assert first["mapped"]
    assert second["mapped"]
    assert first["files"] == second["files"] != []
    assert first["texts"] == second["texts"]
    assert len(first["texts"]) == 5
    assert first["digests"] == second["digests"]
    # Of a small corpus no entry stays.
    assert all(folder.name.startswith(".") for folder in (tmp_path / "cache" / "corpora").iterdir())

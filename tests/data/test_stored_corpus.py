"""A large corpus is read once on a machine, mapped by its processes, and read again when a file changes."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.dicom import decoders
from domainclip.data.files import stored_corpus
from domainclip.data.files.mapped_tables import MappedTexts
from domainclip.data.readers.dicom import Dicom
from domainclip.data.readers.folder import Folder
from domainclip.data.readers.table import Table
from domainclip.errors import DataError
from tests.data.made_corpora import card, dicom_file, noise_image, table
from tests.data.made_shards import png
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
            entry="",
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


def _class_folders(root: Path) -> Path:
    for number in range(8):
        _add(root / "ab"[number % 2] / f"{number}.png")
    return _settled_folder(root)


def _add(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(int(file.stem)))
    file.with_suffix(".txt").write_text(f"caption {file.stem}")


def _settled_folder(root: Path) -> Path:
    _settle(root)
    os.utime(root, (time.time() - 100,) * 2)
    return root


def _change_text(root: Path) -> None:
    (root / "a" / "0.txt").write_text("another one")


def _change_image(root: Path) -> None:
    (root / "b" / "1.png").write_bytes(png(99))


def _add_images(root: Path) -> None:
    _add(root / "b" / "11.png")


def _add_folder(root: Path) -> None:
    _add(root / "c" / "12.png")


def _rename_image(root: Path) -> None:
    (root / "b" / "1.png").rename(root / "b" / "13.png")


@pytest.mark.parametrize("change", [_change_text, _change_image, _add_images, _add_folder, _rename_image])
def test_a_folder_is_read_again_when_anything_in_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    calls: list[int] = []
    read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda *given: calls.append(1) or read(*given))  # type: ignore[func-returns-value]
    root = _class_folders(tmp_path / "corpus")
    before = [load_corpus(_card(reader="folder"), str(root)) for _ in range(3)]
    assert len(calls) == 1
    assert _same(before[0], before[2])
    change(root)
    after = load_corpus(_card(reader="folder"), str(root))
    assert len(calls) == 2
    assert after.fingerprint != before[0].fingerprint


def test_a_folder_of_dicom_files_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    read = Dicom.read
    monkeypatch.setattr(Dicom, "read", lambda *given: calls.append(1) or read(*given))  # type: ignore[func-returns-value]
    root = tmp_path / "corpus"
    for number in range(6):
        dicom_file(root / f"{number}.dcm", np.full((4, 4), number, np.uint8), PatientID=str(number))
        (root / f"{number}.txt").write_text(f"report {number}")
    (root / "broken.dcm").write_bytes(b"no DICOM file")
    _settled_folder(root)

    def load() -> Corpus:
        return load_corpus(_card(reader="dicom"), str(root))

    first = load()
    assert _same(first, load())
    assert len(calls) == 1
    assert len(first.unusable) == 1
    for file in ("5.txt", "0.dcm", "broken.dcm"):
        before = len(calls)
        content = (root / file).read_bytes()
        (root / file).write_bytes(content + b"..")
        _settled_folder(root)
        load()
        assert len(calls) == before + 1, file
    # With another decoder, other files can be decoded.
    monkeypatch.setattr(decoders, "package_files", lambda: [root / "0.txt"])
    load()
    assert len(calls) == 5


def test_reading_restores_the_collector(tmp_path: Path) -> None:
    before, within = gc.get_threshold(), list[tuple[int, int, int]]()

    class Watching(Table):
        def read(self, *given: Any) -> Any:
            within.append(gc.get_threshold())
            raise DataError("broken")

    with pytest.raises(DataError):
        load_corpus(card(), str(table(tmp_path, [{"file_name": "a.png"}])), reader=Watching())
    assert within[0][:2] == before[:2]
    assert within[0][2] > 10**6
    assert gc.get_threshold() == before

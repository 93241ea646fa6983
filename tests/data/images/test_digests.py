"""Digests of images: of all their bytes, read once until a file changes."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict
from PIL import Image

from domainclip import disk_cache
from domainclip.data.corpus import load_corpus
from domainclip.data.files import locations
from domainclip.data.images import digests
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources.readable_items import with_readable_images
from domainclip.data.rows import Item, to_dataset
from tests.data.made_corpora import card, table
from tests.data.made_shards import png

LONG_AGO = 1_000_000_000


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, extended by each read."""
    names: list[str] = []
    plain = digests._sha256

    def watched(handle: int, part: Any) -> bytes | None:
        names.append(Path(part.path).name)
        return plain(handle, part)

    monkeypatch.setattr(digests, "_sha256", watched)
    return names


def _image(path: Path | str) -> dict[str, Any]:
    return {"path": str(path), "bytes": None}


def _digests(*paths: Path | str) -> list[str]:
    return list(digests.image_digests(map(_image, paths)))


def _old(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def test_every_byte_is_hashed(tmp_path: Path) -> None:
    big = bytearray(os.urandom(3_000_000))
    hashes = []
    for place in (0, 1_500_000, 2_999_999):
        big[place] ^= 1
        (tmp_path / "x").write_bytes(big)
        hashes += _digests(tmp_path / "x")
        assert hashes[-1] == hashlib.sha256(big).hexdigest()
    assert len(set(hashes)) == 3
    assert list(digests.image_digests([{"path": None, "bytes": bytes(big)}])) == hashes[-1:]


def test_each_location_in_a_file_has_its_digest(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"scan")
    (tmp_path / "e.dcm").write_bytes(b"")
    hashes = _digests(
        *(tmp_path / name for name in ("a.dcm", "a.dcm#frame=1", "a.dcm#frame=2", "b.dcm", "e.dcm"))
    )
    assert len(set(hashes[:3])) == 3
    assert hashes[3:] == ["missing file", "empty file"]
    assert _digests(tmp_path) == ["missing file"]  # a folder
    assert list(digests.image_digests([{"path": None, "bytes": b""}])) == ["empty file"]


def test_the_position_of_a_tar_member_is_not_hashed(tmp_path: Path) -> None:
    data = png(7)
    (tmp_path / "whole.png").write_bytes(data)
    (tmp_path / "a.tar").write_bytes(b"x" * 100 + data + b"y")
    (tmp_path / "b.tar").write_bytes(b"z" * 900 + data)
    paths = [
        locations.join_location(str(tmp_path / n), {"offset": at, "size": len(data)})
        for n, at in (("a.tar", 100), ("b.tar", 900))
    ]
    assert _digests(tmp_path / "whole.png", *paths) == [hashlib.sha256(data).hexdigest()] * 3
    beyond = locations.join_location(str(tmp_path / "b.tar"), {"offset": 901, "size": len(data)})
    assert _digests(beyond) == ["missing file"]  # the tar was cut off since it was indexed


def test_the_files_of_other_bands_are_hashed(tmp_path: Path) -> None:
    for band in "irg":
        (tmp_path / f"m31_{band}.fits").write_bytes(band.encode())
    keys = {"bands": "{stem}_i.fits,{stem}_r.fits,{stem}_g.fits"}
    path = locations.join_location(str(tmp_path / "m31_i.fits"), keys)
    hashes = _digests(path)
    (tmp_path / "m31_g.fits").write_bytes(b"another")
    hashes += _digests(path)
    (tmp_path / "m31_g.fits").unlink()
    hashes += _digests(path)
    assert len(set(hashes)) == 3
    (tmp_path / "m31_g.fits").write_bytes(b"g")
    assert _digests(path) == hashes[:1]


def test_only_new_and_changed_files_are_read_again(tmp_path: Path, read: list[str]) -> None:
    files = [_old(tmp_path / f"{i}.png", bytes([i]) * 9) for i in range(130)]
    first = _digests(*files)
    assert sorted(read) == sorted(file.name for file in files)
    read.clear()
    assert _digests(*files) == first
    assert read == []
    _old(files[3], b"another!!")  # of the same length, with its time of modification set back
    assert _digests(*files) == [*first[:3], hashlib.sha256(b"another!!").hexdigest(), *first[4:]]
    assert read == ["3.png"]


def test_the_files_of_a_corpus_are_read_once(tmp_path: Path, read: list[str]) -> None:
    rows = [{"file_name": f"{i}.png", "text": f"caption {i}", "split": "train"} for i in range(5)]
    file = table(tmp_path, rows)
    for i in range(5):
        os.utime(tmp_path / f"{i}.png", (LONG_AGO, LONG_AGO))
    first = load_corpus(card(), str(file))
    assert len(read) == 5
    assert load_corpus(card(), str(file)).fingerprint == first.fingerprint
    assert len(read) == 5


def test_the_digest_of_a_file_written_just_now_is_not_recorded(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "new.png").write_bytes(b"new")
    _digests(tmp_path / "new.png")
    _digests(tmp_path / "new.png")
    assert read == ["new.png"] * 2  # it may change once more within a tick of the clock


def test_the_record_contains_no_file_name(tmp_path: Path) -> None:
    _digests(_old(tmp_path / "Smith_John.png", b"x"))
    cached = b"".join(file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert len(cached) > 1000
    assert b"Smith" not in cached
    assert str(tmp_path).encode() not in cached
    (entry,) = disk_cache.entries()
    assert (entry.kind, entry.description) == ("digests", "sha256 of files that were read")
    assert (tmp_path / "cache" / "digests" / entry.name).stat().st_mode & 0o77 == 0
    disk_cache.remove(entry.kind, entry.name)
    assert disk_cache.entries() == []


def test_a_damaged_record_or_a_read_only_cache_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    file = _old(tmp_path / "a.png", b"a")
    first = _digests(file)
    (entry,) = disk_cache.entries()
    (tmp_path / "cache" / "digests" / entry.name / "files.sqlite").write_bytes(b"no table" * 500)
    assert [_digests(file) for _ in range(3)] == [first] * 3
    assert read == ["a.png"] * 3  # at first, with the damaged table, and with a new one
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(file))
    assert _digests(file) == first


def test_a_change_in_the_middle_changes_the_fingerprint(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.png", "text": f"caption {i}", "split": "train"} for i in range(3)]
    file = table(tmp_path, rows, images=False)
    for i in range(3):
        Image.effect_noise((300, 300), 50).save(tmp_path / f"{i}.png", compress_level=0)
        assert (tmp_path / f"{i}.png").stat().st_size < 2**17  # an earlier digest covered these completely …
        with (tmp_path / f"{i}.png").open("ab") as stream:
            stream.write(bytes(200_000))  # … but not the middle of longer files
    before = load_corpus(card(), str(file)).fingerprint
    data = bytearray((tmp_path / "1.png").read_bytes())
    data[150_000] ^= 1
    (tmp_path / "1.png").write_bytes(data)
    assert load_corpus(card(), str(file)).fingerprint != before


def test_images_given_as_bytes_are_never_all_in_memory() -> None:
    whole = 400 * 100_000
    rows = [
        Item(
            id=f"{i}",
            image={"path": None, "bytes": i.to_bytes(2) * 50_000},
            texts=["a"],
            language=[""],
            labels=[],
            group=f"{i}",
            truth=f"{i}",
            meta={},
            split="train",
            location="",
        )
        for i in range(400)
    ]
    splits = DatasetDict({"train": to_dataset(rows), "validation": to_dataset([]), "test": to_dataset([])})
    del rows
    tracemalloc.start()
    readable, hashes = with_readable_images(splits, ReadLog())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < whole / 2
    assert hashes["3"] == [hashlib.sha256(bytes([0, 3]) * 50_000).hexdigest()]
    assert len(readable["train"]) == len({of_item[0] for of_item in hashes.values()}) == 400


def test_parts_hold_a_few_files_or_members() -> None:
    assert digests._starts_of_parts([]) == [0]
    assert digests._starts_of_parts(list("abcdefghi")) == [0, 4, 8, 9]
    assert digests._starts_of_parts(["a.tar"] * 40) == [0, 16, 32, 40]
    assert digests._starts_of_parts([*["a"] * 3, "b", "c", "d", "e"]) == [0, 6, 7]


def test_members_of_several_files_in_turn(tmp_path: Path) -> None:
    """The digests are in the order of the images, whatever part of whichever file each lies in."""
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(f"{name}{'x' * 4000}", "ascii"))
    images = [f"{tmp_path / 'abc'[i % 3 if i % 2 else 0]}#offset={i}&size={i % 50 + 1}" for i in range(150)]
    expected = []
    for location in images:
        file, _, keys = location.partition("#")
        offset, size = (int(key.partition("=")[2]) for key in keys.split("&"))
        expected.append(hashlib.sha256(Path(file).read_bytes()[offset : offset + size]).hexdigest())
    assert _digests(*images) == expected

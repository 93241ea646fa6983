"""Folders of images and texts, and whole corpora: odd names, links, empty and broken files lose no image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st

from domainclip.data.cards import Card
from domainclip.data.corpus import Corpus, load_corpus
from tests.fuzz import corpora, dicom_files, fits_files, image_files, tables
from tests.fuzz.corpora import NAME, plain_rows  # noqa: F401
from tests.fuzz.oracle import CANARY, Room

MakeRoom = Callable[[str], Room]
_FOLDERS = [
    b"",
    b"",
    b"red/",
    b"blue square/",
    b"train/red/",
    b"val/",
    b"Test/a/b/",
    b".hidden/",
    b"caf\xe9/",
    "中文/".encode(),
    b"a#b=c/",
    b"a?b/",
]
_TAILS = [
    b"",
    b"",
    b" (1)",
    b".1.2",
    b"#frame=1",
    b"%20",
    b"\xe9",
    "e\u0301".encode(),
    b"\n",
    b"'",
    b'"',
    b"-" + b"x" * 150,
    b"\xf0\x9f\x99\x82",
    b"\x1b[31m",
]
_SUFFIXES = [
    b".png",
    b".png",
    b".jpg",
    b".JPG",
    b".tif",
    b".dcm",
    b".fits",
    b".fits.gz",
    b".webp",
    b"",
    b".heic",
    b".xyz",
]
_CONTENTS = st.one_of(
    st.sampled_from(sorted(image_files.samples())).map(lambda kind: image_files.samples()[kind]),
    st.sampled_from([b"", b"x", b"\0" * 200, b"version https://git-lfs.github.com/spec/v1\n", b"<html>"]),
    image_files.broken().map(lambda pair: pair[1]),
    dicom_files.BROKEN.map(lambda changed: changed.data),
    fits_files.broken().map(lambda pair: pair[1]),
)
_TEXTS = (
    st.none()
    | st.sampled_from([f"a red square {CANARY}", "", " \n", "a\nb", "\ufeffa", "é", "NA"]).map(str.encode)
    | st.sampled_from([b"\xff\xfea\0", b"caf\xe9", b"\0"])
)


@dataclass(frozen=True)
class File:
    """An image with the text beside it."""

    name: bytes
    data: bytes
    text: bytes | None
    link: bool = False


@st.composite
def _files(draw: st.DrawFn) -> list[File]:
    return [
        File(
            draw(st.sampled_from(_FOLDERS))
            + f"{CANARY}{number:03d}".encode()
            + draw(st.sampled_from(_TAILS))
            + draw(st.sampled_from(_SUFFIXES)),
            draw(_CONTENTS),
            draw(_TEXTS),
            draw(st.integers(0, 15)) == 0,
        )
        for number in range(draw(st.integers(1, 4)))
    ]


def _write(root: bytes, files: list[File]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for file in files:
        path = os.path.join(root, file.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if file.link:
            os.symlink(b"/etc/passwd", path)
        else:
            with open(path, "wb") as stream:
                stream.write(file.data)
        if file.text is not None:
            with open(os.path.splitext(path)[0] + b".txt", "wb") as stream:
                stream.write(file.text)


def _is_seen(file: File) -> bool:
    """Whether its suffix is that of an image, and it is not hidden."""
    return file.name.lower().endswith(
        (b".png", b".jpg", b".tif", b".dcm", b".fits", b".gz", b".webp")
    ) and not file.name.startswith(b".")


@pytest.mark.usefixtures("plain_rows")
def test_folders(room: MakeRoom) -> None:
    here = room("folders")

    @here.each(0.008, files=_files(), template=st.sampled_from([None, "{label}", "{label}. {text}"]))
    def _(files: list[File], template: str | None) -> None:
        _write(b"folder", files)
        card = Card.model_validate(
            {"reader": "folder", "max_unusable": 0, "captions": {"template": template}}
        )
        if (reading := corpora.observe(here, card, "folder", files)) is not None:
            names = {f"{CANARY}{number:03d}" for number, file in enumerate(files) if _is_seen(file)}
            corpora.check_named(here, reading, names, files)


def test_corpora(room: MakeRoom) -> None:
    """The whole way to a corpus: digests, missing images, pseudonyms, fingerprint, classes."""
    here = room("whole corpora")

    @here.each(
        0.001,
        files=_files(),
        sheet=tables.delimited() | tables.json_lines(),
        reader=st.sampled_from(["folder", "table"]),
    )
    def _(files: list[File], sheet: tables.Sheet, reader: str) -> None:
        _write(b"corpus", files)
        for number in range(3):
            (Path("corpus") / corpora.image_name(number)).write_bytes(image_files.samples()["png"])
        (Path("corpus") / sheet.name).write_bytes(sheet.data)
        card = Card.model_validate(
            {"reader": reader, "max_unusable": 1, "templates": ["a {}"], "min_items": 1}
        )
        corpus: Corpus | None = here.observe(
            lambda: load_corpus(card, "corpus", secret=b"secret"), (files, sheet)
        )
        if corpus is None:
            return
        here.quarantined += len(corpus.unusable)
        ids = [id for split in corpus.splits.values() for id in (*split["id"][:], *split["group"][:])]
        here.require(
            not any(map(NAME.search, ids)), "leak", "an id or group is not a pseudonym", (files, sheet)
        )
        here.require(
            len(corpus.digests) == len(ids) // 2, "silent loss", "an item has no digest", (files, sheet)
        )

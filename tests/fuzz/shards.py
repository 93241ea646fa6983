"""Tar shards: keys as archives have them, and archives that are broken."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.fuzz.oracle import CANARY
from tests.fuzz.tables import JSON_CELLS, edited_bytes

_TAILS = [
    "",
    "",
    ".840.10008",
    ".1",
    " 3",
    ". 3",
    "_v1.2",
    ".view",
    "-é",
    "e\u0301",
    ".png",
    ".txt",
    ".tar",
    " (1)",
    "." + "x" * 120,
    "\u2028",
    ".dcm",
    ".",
]
_FOLDERS = ["", "", "", "a/", "./", "dir.1/", "train/", "a.b/c d/"]
_IMAGES = ["png", "jpg", "PNG", "Jpeg", "dcm", "tif", "webp", "fits", "jp2"]
_OTHERS = ["pkl", "npy", "xml", "JANE_DOE", "", "png.md5", "pyd"]
_BAD_NAMES = [
    "../x.png",
    "/etc/x.png",
    "C:\\x.png",
    "a\\b.png",
    "..png",
    ".png",
    "png",
    " ",
    "a/../b.png",
    "\ud800.png".encode("utf-8", "replace").decode(),
]


@dataclass(frozen=True)
class Shard:
    """A tar file, and the number of samples with an image and a text in it."""

    data: bytes
    numbers: tuple[int, ...]

    def __repr__(self) -> str:
        return f"{tar_names(self.data)} {self.data!r}"


def tar_names(data: bytes) -> list[str]:
    """The names of the members, for people who mend a fault."""
    try:
        return tarfile.open(fileobj=io.BytesIO(data)).getnames()
    except Exception:
        return []


@st.composite
def correct(draw: st.DrawFn) -> Shard:
    """Samples of an image and a text, with other members between them."""
    stream = io.BytesIO()
    kind = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]))
    numbers = []
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for number in range(draw(st.integers(1, 4))):
            key = f"{draw(st.sampled_from(_FOLDERS))}{CANARY}{number:03d}{draw(st.sampled_from(_TAILS))}"
            if kind == tarfile.USTAR_FORMAT:
                key = key[:90]
            members = {draw(st.sampled_from(_IMAGES)): b"image"}
            form = draw(st.sampled_from(["txt", "txt", "cls", "json", "TXT", "other"]))
            if form == "json":
                members["json"] = json.dumps({"text": draw(JSON_CELLS), "n": number}).encode()
            elif form != "other":
                members[form] = draw(st.sampled_from([b"a red square", b"7", b"\xff\xfe", b"", "é".encode()]))
            if draw(st.integers(0, 3)) == 0:
                members[draw(st.sampled_from([*_OTHERS, "view1.png", "view02.JPG", "txt.gz"]))] = (
                    CANARY.encode()
                )
            for suffix, data in members.items():
                _add(archive, f"{key}.{suffix}" if suffix else key, data)
            numbers.append(number)
            if draw(st.integers(0, 6)) == 0:
                _add(
                    archive,
                    draw(st.sampled_from(_BAD_NAMES)),
                    b"x",
                    draw(st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"S"])),
                )
    return Shard(stream.getvalue(), tuple(numbers))


def _add(archive: tarfile.TarFile, name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data) if kind == tarfile.REGTYPE else 0
    member.type, member.linkname = kind, "/etc/passwd"
    archive.addfile(member, io.BytesIO(data))


# A checksum that fits makes tarfile read a changed header.
@st.composite
def _header_changed(draw: st.DrawFn) -> Shard:
    data = bytearray(draw(correct()).data)
    block = 512 * draw(st.integers(0, min(12, len(data) // 512 - 1)))
    start, end = draw(
        st.sampled_from(
            [
                (0, 100),
                (100, 108),
                (124, 136),
                (124, 136),
                (136, 148),
                (156, 157),
                (157, 257),
                (257, 265),
                (345, 500),
            ]
        )
    )
    value = draw(
        st.sampled_from(
            [
                b"\xff" * 12,
                b"\x80" + b"\0" * 10 + b"\xff",
                b"77777777777\0",
                b"-1\0",
                b"\0" * 12,
                b" 1 ",
                b"x",
                b"g",
                b"S",
                b"L",
            ]
        )
    )
    data[block + start : block + min(end, start + len(value))] = value[: end - start]
    header = data[block : block + 512]
    header[148:156] = b" " * 8
    data[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    return Shard(bytes(data), ())


BROKEN = _header_changed() | correct().flatmap(lambda shard: edited_bytes(shard.data)).map(
    lambda data: Shard(data, ())
)

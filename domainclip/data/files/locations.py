"""Locations of images inside files: `scan.dcm#frame=12`, `field.fits#hdu=SCI&stretch=asinh`.

The fragment, after the `#`, holds key=value pairs. A reader writes it; the decoder of that file type reads
it. `#offset=…&size=…` selects the bytes of a member of a tar file.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, urlencode

# Only what `join_location` writes: a name such as "mass #3.png" has no fragment.
_MEMBER = re.compile(r"(?P<file>[^#]+)#offset=(?P<offset>[0-9]+)&size=(?P<size>[0-9]+)", re.DOTALL)
_LOCATION = re.compile(r"(?P<file>.+)#(?P<keys>[a-z_]+=[^#&]*(?:&[a-z_]+=[^#&]*)*)", re.DOTALL)


def split_location(path: str) -> tuple[str, dict[str, str]]:
    """The file of a location and the keys of its fragment.

    An existing file whose name holds a `#` is that file, without a fragment.
    """
    match = _MEMBER.fullmatch(path) or _LOCATION.fullmatch(path)
    if match is None or os.path.isfile(path):
        return path, {}
    if match.re is _MEMBER:  # most of a large corpus: parsing a query costs ten times more
        return match["file"], {"offset": match["offset"], "size": match["size"]}
    return match["file"], dict(parse_qsl(match["keys"], keep_blank_values=True))


def join_location(path: str, keys: Mapping[str, str | int | float]) -> str:
    """A path with a fragment, the inverse of `split_location`; the path alone if there are no keys."""
    return f"{path}#{urlencode(keys)}" if keys else path


def member_location(file: str, offset: int, size: int) -> str:
    """The location of a member of a tar file, as `join_location` writes it, in a tenth of the time."""
    return f"{file}#offset={offset}&size={size}"


def resolve_location(path: str) -> str:
    """The file or tar member of a location, without keys that select something inside it, such as a frame."""
    if _MEMBER.fullmatch(path):
        return path
    file, fragment = split_location(path)
    return join_location(file, {key: fragment[key] for key in fragment if key in ("offset", "size")})


def read_location(path: str, max_bytes: int | None = None) -> bytes:
    """The first `max_bytes` bytes, None: all, of a file or of a tar member.

    Raises: OSError if they cannot be read, or if the file is shorter than its location says.
    """
    file, fragment = split_location(path)
    with open(file, "rb") as stream:
        if "size" not in fragment:
            return stream.read(-1 if max_bytes is None else max_bytes)
        size = int(fragment["size"]) if max_bytes is None else min(max_bytes, int(fragment["size"]))
        stream.seek(int(fragment["offset"]))
        data = stream.read(size)
    if len(data) < size:
        raise OSError(errno.EIO, "the file has changed")
    return data


def read_heads(paths: Iterable[str], max_bytes: int) -> Iterator[bytes | None]:
    """The first bytes of each location; None where it cannot be read.

    A file is opened once for locations in it that follow each other.
    """
    opened, stream = "", None
    try:
        for path in paths:
            file, fragment = split_location(path)
            try:
                if stream is None or file != opened:
                    if stream is not None:
                        stream.close()
                    stream = None
                    stream, opened = open(file, "rb"), file  # noqa: SIM115 - closed below
                size = min(max_bytes, int(fragment.get("size", max_bytes)))
                yield os.pread(stream.fileno(), size, int(fragment.get("offset", 0)))
            except OSError:
                yield None
    finally:
        if stream is not None:
            stream.close()

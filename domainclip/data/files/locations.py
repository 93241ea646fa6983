"""Where a picture lies inside a file: `scan.dcm#frame=12`, `field.fits#hdu=SCI&stretch=asinh`.

A reader writes the part after the `#` from what the card says, and the decoder of that kind reads it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

# Only what `join` writes: a name such as "mass #3.png" is no place.
_LOCATION = re.compile(r"(?P<file>.+)#(?P<keys>[a-z_]+=[^#&]*(?:&[a-z_]+=[^#&]*)*)", re.DOTALL)


def split_location(path: str) -> tuple[str, dict[str, str]]:
    """The file of a path, and the keys of the place inside it; a real file whose name holds `#` wins."""
    found = _LOCATION.fullmatch(path)
    if found is None or _exists(path):
        return path, {}
    return found["file"], dict(parse_qsl(found["keys"], keep_blank_values=True))


def join_location(path: str, keys: Mapping[str, str | int | float]) -> str:
    """A path with a place inside its file, as `split` reads it; without keys, the path itself."""
    return f"{path}#{urlencode(keys)}" if keys else path


def resolve_location(path: str) -> str:
    """The file or the member of a tar that a path means, without the place inside it, such as a frame."""
    file, inside = split_location(path)
    return join_location(file, {key: value for key, value in inside.items() if key in ("offset", "size")})


def _exists(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def read_location(path: str, most: int | None = None) -> bytes:
    """The bytes that a path means: of a whole file, or of `#offset=…&size=…` in it, as a member of a tar.

    `most` of them from the beginning, when not all are wanted.

    Raises: OSError when they cannot be read, or the file ends before them.
    """
    file, inside = split_location(path)
    with open(file, "rb") as stream:
        if "size" not in inside:
            return stream.read(-1 if most is None else most)
        size = int(inside["size"]) if most is None else min(most, int(inside["size"]))
        stream.seek(int(inside["offset"]))
        data = stream.read(size)
    if len(data) < size:
        raise OSError(errno.EIO, "the file has changed")
    return data

"""The header of a regular member of a tar file as most programs write it, read in a fifth of the time.

`tarfile` reads all forms of headers. This form is left to it as well as soon as anything differs: another
type, a long or a non-ASCII name, sizes in base 256, extended headers, a wrong checksum, or the end of a file.
"""

from __future__ import annotations

import re
import tarfile
from typing import Any

# POSIX.1-1988: name, mode, uid, gid, size, mtime, checksum, type, link name, magic and version.
_HEADER = re.compile(
    rb"(?P<name>[\x20-\x7e]{1,100})\0*"
    rb"(?<=^.{100}).{24}(?P<size>[0-7]{11})[\0 ].{12}(?P<checksum>[0-7]{6,7})[\0 ]+"
    rb"(?<=^.{156})0.{100}ustar\x0000.{80}\0",
    re.DOTALL,
)
_CHECKSUM = slice(148, 156)  # counted as spaces


def plain_member(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member of a seekable tar file, which moves behind it; None where `tarfile` has to read it."""
    stream: Any = archive.fileobj
    start = archive.offset
    if archive.pax_headers:  # they apply to every member
        return None
    stream.seek(start)
    header = stream.read(tarfile.BLOCKSIZE)
    match = _HEADER.match(header)
    if match is None:
        return None
    if sum(header) - sum(header[_CHECKSUM]) + 8 * 32 != int(match["checksum"], 8):
        return None
    info = tarfile.TarInfo(match["name"].decode("ascii"))
    info.size = int(match["size"], 8)
    info.offset, info.offset_data = start, start + tarfile.BLOCKSIZE
    blocks = -(-info.size // tarfile.BLOCKSIZE)
    archive.offset = info.offset_data + blocks * tarfile.BLOCKSIZE
    return info

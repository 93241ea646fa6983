"""FITS files with a changed header: an image, or a reason of a few words that quotes nothing."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz import fits_files
from tests.fuzz.oracle import Room
from tests.fuzz.test_image_files import decode

MakeRoom = Callable[[str], Room]


def test_fits_images(room: MakeRoom) -> None:
    here = room("FITS images")
    for kind, data in fits_files.samples().items():
        decode(here, data, kind)
    assert here.accepted == len(fits_files.samples()) - 1, here.refused  # all but the table

    @here.each(0.11, file=fits_files.broken())
    def _(file: tuple[str, bytes]) -> None:
        decode(here, file[1], file)

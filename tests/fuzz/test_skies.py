"""FITS files with a changed header: an image, or a reason of a few words that quotes nothing."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz import skies
from tests.fuzz.oracle import Room
from tests.fuzz.test_pictures import decode

MakeRoom = Callable[[str], Room]


def test_fits_images(room: MakeRoom) -> None:
    here = room("FITS images")
    for kind, data in skies.samples().items():
        decode(here, data, kind)
    assert here.accepted == len(skies.samples()) - 1, here.refused  # all but the table

    @here.each(0.11, sky=skies.broken())
    def _(sky: tuple[str, bytes]) -> None:
        decode(here, sky[1], sky)

"""Image files with changed bytes: an RGB image, or a reason of a few words that quotes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from domainclip.data.images.decode import decode_image
from domainclip.data.images.inspection import inspect_image
from tests.fuzz import pictures
from tests.fuzz.oracle import Room

MakeRoom = Callable[[str], Room]


def decode(room: Room, data: bytes, given: Any) -> None:
    """Decode an image; whether it is refused or not, the inspection of it agrees and ends."""
    image = {"path": "image", "bytes": data}
    decoded: Image.Image | None = room.observe(lambda: decode_image(image), given)
    if decoded is not None:
        room.require(decoded.mode == "RGB" and min(decoded.size) > 0, "not an image", decoded.mode, given)
        return
    room.quarantined += 1


def test_images(room: MakeRoom) -> None:
    here = room("images")
    for kind, data in pictures.samples().items():
        decode(here, data, kind)
    assert here.accepted == len(pictures.samples())

    @here.each(0.33, picture=pictures.broken())
    def _(picture: tuple[str, bytes]) -> None:
        decode(here, picture[1], picture)


def test_inspections(room: MakeRoom) -> None:
    here = room("inspections")

    @here.each(0.005, picture=pictures.broken())
    def _(picture: tuple[str, bytes]) -> None:
        inspection = here.observe(lambda: inspect_image({"path": "image", "bytes": picture[1]}), picture)
        here.require(inspection is not None, "refused", "an inspection", picture)

"""Image files with changed bytes: an RGB image, or a reason of a few words that quotes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from domainclip.data.images.decode import decode_image
from domainclip.data.images.inspection import inspect_image
from tests.fuzz import image_files
from tests.fuzz.oracle import Room

MakeRoom = Callable[[str], Room]


def decode(room: Room, data: bytes, given: Any) -> None:
    """Decode an image: it is RGB, or refused and counted."""
    image = {"path": "image", "bytes": data}
    decoded: Image.Image | None = room.observe(lambda: decode_image(image), given)
    if decoded is not None:
        room.require(decoded.mode == "RGB" and min(decoded.size) > 0, "not an image", decoded.mode, given)
        return
    room.quarantined += 1


def test_images(room: MakeRoom) -> None:
    here = room("images")
    for kind, data in image_files.samples().items():
        decode(here, data, kind)
    assert here.accepted == len(image_files.samples())

    @here.each(0.33, image=image_files.broken())
    def _(image: tuple[str, bytes]) -> None:
        decode(here, image[1], image)


def test_inspections(room: MakeRoom) -> None:
    here = room("inspections")

    @here.each(0.005, image=image_files.broken())
    def _(image: tuple[str, bytes]) -> None:
        inspection = here.observe(lambda: inspect_image({"path": "image", "bytes": image[1]}), image)
        here.require(inspection is not None, "refused", "an inspection", image)

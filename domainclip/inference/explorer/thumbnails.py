"""Images of the items as JPEG, made when the page shows them; the last ones stay in memory."""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image

from domainclip.data.images.decode import decode_image
from domainclip.errors import UnreadableImage
from domainclip.inference.explorer.explored import Explored

SIDES = (224, 1024)  # the longer side in pixels: on a card, and alone
_REMEMBERED = 1024


class Thumbnails:
    """The images of a set whose card allows that they are shown."""

    def __init__(self, explored: Explored) -> None:
        self.explored = explored
        self.jpeg = lru_cache(_REMEMBERED)(self._jpeg)

    def _jpeg(self, row: int, side: int) -> bytes | None:
        """The image of an item; None where it must not be shown, or cannot be read any more."""
        if not self.explored.shows_content or not 0 <= row < self.explored.size or side not in SIDES:
            return None
        try:
            image = decode_image(self.explored.data.items[row]["image"])
        except UnreadableImage:
            return None
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()

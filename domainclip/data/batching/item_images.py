"""The images of one item, each decoded at most once, whatever asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from domainclip.data.images.decode import decode_image
from domainclip.errors import UnreadableImage


class ItemImages:
    """The image of a row and its further views, numbered from 0.

    `smallest_side`: JPEG files may be decoded to a fraction of their size with sides at least so long.
    """

    def __init__(self, row: Mapping[str, Any], smallest_side: int | None = None) -> None:
        self.cells: list[Mapping[str, Any]] = [row["image"], *row["views"]]
        self.smallest_side = smallest_side
        self._decoded: dict[int, Image.Image | UnreadableImage] = {}

    def __len__(self) -> int:
        return len(self.cells)

    def decode(self, view: int) -> Image.Image:
        """Return the pixels of a view.

        Raises: UnreadableImage.
        """
        if view not in self._decoded:
            try:
                self._decoded[view] = decode_image(self.cells[view], smallest_side=self.smallest_side)
            except UnreadableImage as error:
                self._decoded[view] = error
        decoded = self._decoded[view]
        if isinstance(decoded, UnreadableImage):
            raise decoded
        return decoded

    def is_readable(self, view: int) -> bool:
        """Return whether a view can be decoded."""
        try:
            self.decode(view)
        except UnreadableImage:
            return False
        return True

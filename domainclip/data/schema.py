"""The columns and splits of every corpus."""

from __future__ import annotations

# The columns of every corpus, whatever it was read from. `image` is {path, bytes}: one of the two is
# null. `views` are further pictures of the same item, alike: other projections, frames or slices of one
# study. `labels` are the classes that hold; `meta` is JSON, and holds only what the card lists.
COLUMNS = ("id", "image", "views", "texts", "language", "labels", "group", "meta")


SPLITS = ("train", "validation", "test")

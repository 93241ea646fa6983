"""The columns and splits of every corpus."""

from __future__ import annotations

# The columns of every corpus, whatever its source. `image` is {path, bytes}, one of which is null. `views`
# are further images of the same item in the same form: other projections, frames or slices of one study.
# `labels` are the classes of the item. Items of one `group` are in one split and are resampled together;
# items of one `truth` key are about the same thing, so the captions of each are right for the images of all.
# `meta` is JSON, with only the columns that the card lists.
COLUMNS = ("id", "image", "views", "texts", "language", "labels", "group", "truth", "meta")

# Keys of `meta` with where the image comes from and how it was taken, by columns.source and acquisition.
SOURCE = "source of the image"
ACQUISITION = "acquisition of the image"

SPLITS = ("train", "validation", "test")

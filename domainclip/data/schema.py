"""The columns and splits of every corpus."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a second of imports, which a wrong path or column need not wait for
    from datasets import Features

# The columns of every corpus, whatever its source. `image` is {path, bytes}, one of which is null. `views`
# are further images of the same item in the same form: other projections, frames or slices of one study.
# `labels` are the classes of the item. Items of one `group` are in one split and are resampled together;
# items of one `truth` key are about the same thing, so the captions of each are right for the images of all.
# `meta` is JSON, with only the columns that the card lists.
COLUMNS = ("id", "image", "views", "texts", "language", "labels", "group", "truth", "meta")

# Keys of `meta` with where the image comes from and how it was taken, by columns.source and acquisition.
SOURCE = "source of the image"
ACQUISITION = "acquisition of the image"
# Keys of `meta` by columns.reference, change, candidates and written. Those that hold ids are in IDS_IN_META.
REFERENCE = "id of the reference image"
CHANGE = "change of the reference image"
CANDIDATES = "ids of the candidate images"
WRITTEN = "words in the image"
IDS_IN_META = (REFERENCE, CANDIDATES)

PREPARED_MANIFEST = "manifest.json"  # in the folder of a corpus that `data prepare` wrote

SPLITS = ("train", "validation", "test")


@cache
def features() -> Features:
    """The types of the standard columns."""
    from datasets import Features, List, Value

    image = {"path": Value("string"), "bytes": Value("binary")}
    return Features(
        {
            "id": Value("string"),
            "image": image,
            "views": List(image),
            "texts": List(Value("string")),
            "language": List(Value("string")),  # one per text, "" when unknown
            "labels": List(Value("string")),
            "group": Value("string"),
            "truth": Value("string"),
            "meta": Value("string"),
        }
    )

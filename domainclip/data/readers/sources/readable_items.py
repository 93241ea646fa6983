"""The items of a corpus whose images exist, the digests of these images, and the files they lie in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice, tee
from typing import Any

from datasets import Dataset, DatasetDict

from domainclip.data.files import locations
from domainclip.data.images import fits_settings
from domainclip.data.images.digests import EMPTY_FILE, MISSING_FILE, image_digests
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.schema import COLUMNS, SPLITS, features

_CHUNK = 64  # rows: a row may hold its images as bytes
_ROWS = 1000


def with_readable_images(splits: DatasetDict, log: ReadLog) -> tuple[DatasetDict, dict[str, list[str]]]:
    """The items whose images exist, and by id the digests of an item's image and views.

    A missing image is replaced by the next view; an item without any image is left out.
    """
    complete, digests = DatasetDict(), dict[str, list[str]]()
    for name in SPLITS:
        ids, rows, changed = splits[name]["id"][:], [], {}
        # The same rows twice: the digests read ahead of the loop, by one chunk of rows.
        ahead, behind = tee(_images_of_rows(splits[name]))
        digest_stream = image_digests(chain.from_iterable(ahead))
        for row, (id, images) in enumerate(zip(ids, behind, strict=True)):
            results = list(islice(digest_stream, len(images)))
            location = log.locations.setdefault(id, f"{name} item {row + 1}")
            existing = [i for i, digest in enumerate(results) if digest not in (MISSING_FILE, EMPTY_FILE)]
            for i in sorted({*range(len(images))} - {*existing}) if existing else [0]:
                place = f"{location} view {i}" if i else location
                log.unusable.append(UnusableItem(place, results[i], images[i]["path"] or ""))
            if existing:
                rows.append(row)
                digests[id] = [results[i] for i in existing]
            if 0 < len(existing) < len(images):
                changed[row] = [images[i] for i in existing]
        split = _with_images(splits[name], changed)
        complete[name] = split if len(rows) == len(ids) else split.select(rows).flatten_indices()
    return complete, digests


def _images_of_rows(split: Dataset) -> Iterator[list[dict[str, Any]]]:
    """The image and the views of each row."""
    for chunk in split.select_columns(["image", "views"]).iter(_CHUNK):
        yield from ([image, *views] for image, views in zip(chunk["image"], chunk["views"], strict=True))


def _with_images(split: Dataset, changed: dict[int, list[dict[str, Any]]]) -> Dataset:
    """The split with other images in some rows."""
    if not changed:
        return split
    columns = {"image": split["image"][:], "views": split["views"][:]}
    for row, (first, *others) in changed.items():
        columns["image"][row], columns["views"][row] = first, others
    for column, values in columns.items():
        split = split.remove_columns(column).add_column(column, values, feature=features()[column])
    return split.select_columns(list(COLUMNS))


def image_files(splits: Mapping[str, Dataset], unusable: Iterable[UnusableItem] = ()) -> list[str]:
    """The files that the images of all items lie in, each once; and those of the unusable items."""
    files: dict[str, None] = {}
    last = "\0"  # a shard holds many images in a row
    for items in splits.values():
        for part in items.select_columns(["image", "views"]).iter(_ROWS):
            for image, views in zip(part["image"], part["views"], strict=True):
                for cell in (image, *views):
                    path = cell["path"] or ""
                    if cell["bytes"] is not None or path.startswith(last):
                        continue
                    file, fragment = locations.split_location(path)
                    bands = fits_settings.band_files(file, fragment)
                    files |= dict.fromkeys([file, *map(str, bands)])
                    last = "\0" if bands else f"{file}#offset="
    sources = (locations.split_location(item.source)[0] for item in unusable)
    return list(files | dict.fromkeys(file for file in sources if os.path.isfile(file)))

"""Images to classify, search or embed: the items of files, folders, tables and tar shards.

Only names and places are in memory, except images that a table holds as bytes. An item that cannot be read is
never dropped: it has its fault instead of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from domainclip.data.dicom.reading import is_dicom
from domainclip.data.files import corpus_folder, locations, tables, tar, tar_samples
from domainclip.data.images.image_settings import ImageSettings, with_settings
from domainclip.data.readers.sources import columns, image_files
from domainclip.data.readers.sources.image_cells import image_from_cell
from domainclip.data.text.cells import CellFault, of_column
from domainclip.errors import DataError
from domainclip.inference.typed_files import TypedFile

_TABLES = (*tables.SUFFIXES, ".json", ".xlsx")
_OUTSIDE = "lies outside the folder of the table: move or copy it inside"
_HEAD_BYTES = 512


@dataclass(frozen=True)
class ImageSource:
    """One image, by the name that results show."""

    name: str  # as it was typed, or below what was typed
    image: dict[str, Any]  # {path, bytes}, as in the column `image` of a corpus
    fault: str = ""  # why it cannot be read, where that is known before it is decoded


@dataclass(frozen=True)
class Rendering:
    """How images of more than 8 bits are shown: as the images that the model was trained on."""

    settings: ImageSettings = field(default_factory=ImageSettings)
    dicom_window: int | str = 0

    def applied(self, source: ImageSource) -> ImageSource:
        """The image with these settings in its location; settings that were typed take precedence."""
        if source.fault:
            return source
        image = with_settings(source.image, self.settings)
        if self.dicom_window != 0 and image["path"] and image["bytes"] is None and _is_dicom(image["path"]):
            path, keys = locations.split_location(image["path"])
            keys = {"window": str(self.dicom_window), **keys}
            image = {**image, "path": locations.join_location(path, keys)}
        return replace(source, image=image)


@dataclass(frozen=True)
class SourceList:
    """The images of some files, in order, with remarks for the user."""

    sources: list[ImageSource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_sources(
    files: Sequence[TypedFile], column: str | None = None, rendering: Rendering | None = None
) -> SourceList:
    """The images of the files; `column` names the images in a table, by default a guess.

    Raises: DataError for a file that holds no images, a broken table, or a folder without any.
    """
    rendering, notes = rendering or Rendering(), list[str]()
    sources = [rendering.applied(one) for file in files for one in _of_file(file, column, notes)]
    return SourceList(sources, notes)


def _of_file(file: TypedFile, column: str | None, notes: list[str]) -> Iterator[ImageSource]:
    if file.file.is_dir():
        yield from _of_folder(file, notes)
    elif file.file.suffix.lower() == ".tar":
        for shard in [file.path] if file.file.is_file() else tar.expand_shards(file.path):
            yield from _of_tar(shard, notes)
    elif file.file.suffix.lower() in _TABLES:
        yield from _of_table(file, column, notes)
    else:
        yield ImageSource(file.name, {"path": file.path, "bytes": None})


def _of_folder(folder: TypedFile, notes: list[str]) -> Iterator[ImageSource]:
    skipped: list[Path] = []
    files = list(corpus_folder.walk_files(folder.file, skipped))
    images = image_files.select_images(files)
    if skipped:
        notes.append(f"{folder.name}: {len(skipped)} links to folders, pipes and devices are not read")
    taken = set(images)
    others = [file for file in files if file not in taken]
    if not images:
        raise DataError(f"{folder.name}: no images (.jpg, .png, .tif, .dcm, .fits …) in it{_remedy(others)}")
    if kinds := image_files.describe_others(others):
        notes.append(f"{folder.name}: files that are not images are left out: {kinds}")
    for file in images:
        below = file.relative_to(folder.file).as_posix()
        yield ImageSource(f"{folder.name.rstrip('/')}/{below}", {"path": str(file), "bytes": None})


def _remedy(others: Sequence[Path]) -> str:
    """The end of a message on a folder without images that holds tables or tar shards."""
    kinds = {file.suffix.lower() for file in others}
    named = next((suffix for suffix in (".tar", *_TABLES) if suffix in kinds), "")
    return f": name its {named} files themselves" if named else ""


def _of_tar(shard: str, notes: list[str]) -> Iterator[ImageSource]:
    try:
        index = tar.index_tar(Path(shard))
    except OSError as error:
        raise DataError(f"{shard}: {error.strerror}") from None
    for fault in index.faults:
        yield ImageSource(f"{shard}: member {fault.number}", {"path": None, "bytes": None}, fault.reason)
    without = 0
    for sample in index.samples:
        suffixes = [sample.image_suffix, *sample.view_suffixes]
        for suffix in filter(None, suffixes):
            offset, size = sample.members[suffix]
            path = locations.join_location(shard, {"offset": offset, "size": size})
            yield ImageSource(f"{shard}: {sample.key}.{suffix}", {"path": path, "bytes": None})
        without += not any(suffixes)
    if without:
        notes.append(f"{shard}: {without} samples without an image are left out")
    images = sum(count for suffix, count in index.ignored.items() if suffix in tar_samples.IMAGE_SUFFIXES)
    if ignored := sum(index.ignored.values()) - images:
        notes.append(f"{shard}: {ignored} members that are not images are left out")


def _of_table(file: TypedFile, column: str | None, notes: list[str]) -> Iterator[ImageSource]:
    table = tables.read_table(file.file, key="the name")
    root = file.file.resolve().parent
    name = columns.find_image_column(column, table.columns, file.name, "--image-column")
    if column is None:
        notes.append(f"{file.name}: images are named by the column {name}; --image-column names another one")
    for number, row in enumerate(table.rows, start=1):
        place = f"{file.name}: row {number}"
        try:
            image = of_column(image_from_cell, row, name)
        except CellFault as fault:
            yield ImageSource(place, {"path": None, "bytes": None}, str(fault))
            continue
        if image["bytes"] is not None:
            yield ImageSource(place, image)
        elif not image["path"]:
            yield ImageSource(place, image, "empty cell")
        else:
            yield _named(image["path"], root, place)


def _named(name: str, root: Path, place: str) -> ImageSource:
    try:
        path = str(corpus_folder.path_inside(root, name, place))
    except DataError:
        return ImageSource(place, {"path": None, "bytes": None}, _OUTSIDE)
    return ImageSource(name, {"path": path, "bytes": None})


def _is_dicom(path: str) -> bool:
    try:
        return is_dicom(locations.read_location(path, _HEAD_BYTES))
    except (OSError, ValueError):  # reported when it is decoded
        return False

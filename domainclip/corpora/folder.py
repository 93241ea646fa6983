"""A folder of images: a folder for each class, or a text file beside each image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from datasets import DatasetDict

from domainclip.data import files
from domainclip.data.cards import Card, Columns
from domainclip.data.quarantine import Journal
from domainclip.data.rows import Source, standardise
from domainclip.data.splits import is_split, said
from domainclip.errors import DataError, RecipeError

_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".bmp",
    ".jp2",
    ".avif",
    ".dcm",
    ".fits",
    ".fit",
    ".fz",
)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Reads [split/]class/name.jpg, with name.txt beside it where there are captions, one a line.

    The columns that a template may name are `text`, `label` (the class folder) and `name`.
    """

    encoding: str = "utf-8-sig"

    citation: ClassVar[str] = "the layout of ImageNet-like class folders and of image and .txt pairs"

    def read(self, card: Card, path: Path | str, journal: Journal) -> DatasetDict:
        """Splits of all images, in the order of their names."""
        if card.columns != Columns():
            raise RecipeError("corpus.columns: a folder has no columns: leave them out, or use a table")
        root = Path(path).resolve()
        if not root.is_dir():
            raise DataError(f"{path}: no such folder: check corpus.path")
        images = [file for file in files.walk(root) if file.suffix.lower() in _SUFFIXES]
        if not images:
            raise DataError(f"{path}: no images ({', '.join(_SUFFIXES)}) in this folder or below")
        rows = [self._source(file, root, f"file {number}") for number, file in enumerate(images, start=1)]
        labelled = [row for row in rows if row.values["label"]]
        template = card.captions.template
        if labelled and template is None and not any(row.values["text"] for row in rows):
            journal.note("captions: the names of the class folders (say more with corpus.captions.template)")
            template = "{label}"
        columns = Columns(id="", image="", texts=["text"], language="", group="", labels="label", split="")
        card = card.model_copy(update={"captions": card.captions.model_copy(update={"template": template})})
        return standardise(rows, columns, card, journal)

    def _source(self, file: Path, root: Path, place: str) -> Source:
        below = file.relative_to(root)
        folders = list(below.parts[:-1])
        split = said(folders.pop(0), place) if folders and is_split(folders[0]) else None
        path = files.inside(root, str(below), place)
        captions = files.text(file.with_suffix(".txt"), self.encoding, place)
        return Source(
            values={
                "text": [line.strip() for line in captions.splitlines() if line.strip()],
                # Underscores stand for spaces in names of folders, never in a word of a caption.
                "label": folders[0].replace("_", " ") if folders else "",
                "name": file.stem,
            },
            place=place,
            image={"path": str(path), "bytes": None},
            name=below.as_posix(),
            split=split,
        )

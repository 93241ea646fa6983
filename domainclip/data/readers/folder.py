"""A folder of images: a folder for each class, or a text file next to each image."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from domainclip.data.cards import Card
from domainclip.data.files import corpus_folder
from domainclip.data.files.column_roles import Columns
from domainclip.data.files.folder_levels import is_folder_level
from domainclip.data.images.fits_header import is_header_column
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources import image_files
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.splits import is_split, parse_split
from domainclip.errors import DataError, RecipeError

if TYPE_CHECKING:
    from datasets import DatasetDict

_COLUMNS = ("text", "label", "name")
_TextKey = tuple[Path, str]  # the folder, and the name without .txt


@dataclass(frozen=True, kw_only=True)
class Folder(CorpusReader):
    """Reads [split/]class/name.jpg, with name.txt next to it where there are captions, one a line.

    `folder_1`, `folder_2` … are the levels of its folders, as columns: of site/class/name.jpg, the source is
    folder_1 and the label folder_2.

    A template may name the columns `text`, `label` (the class folder) and `name`.
    """

    encoding: str = "utf-8-sig"  # of the .txt files; cp1252 and others as Python names them
    split_names: bool = True  # whether folders name splits; false: the card's shares divide the images

    citation: ClassVar[str] = "the layout of ImageNet-like class folders and of image and .txt pairs"

    def check_source(self, card: Card, path: Path | str) -> None:
        """Check the folder, and the columns, of which it has few."""
        _refuse_columns(card.columns)
        _require_folder(path)

    def source_files(self, card: Card, path: Path | str) -> list[Path]:
        """The folders, which change with the names in them, and the texts."""
        root = _require_folder(path)
        texts = (file for file in corpus_folder.walk_files(root) if file.suffix.lower() == ".txt")
        return [*corpus_folder.walk_folders(root), *texts]

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of all images, in the order of their names."""
        _refuse_columns(card.columns)
        root = _require_folder(path)
        skipped: list[Path] = []
        files = list(corpus_folder.walk_files(root, skipped))
        if skipped:
            log.add_note(f"{len(skipped)} links to folders, pipes and devices are not read")
        images = image_files.select_images(files)
        selected = set(images)
        if others := image_files.describe_others([file for file in files if file not in selected]):
            log.add_note(f"files that are not images are left out: {others}")
        texts = {_text_key(file, file.name[:-4]): file for file in files if file.suffix.lower() == ".txt"}
        unused = set(texts.values()) - {_text_file(file, texts) for file in images}
        if unused:
            log.add_note(f"{len(unused)} .txt files have no image of their name: they are not read")
        if not images:
            raise DataError(f"{path}: no images (.jpg, .png, .tif, .dcm, .fits …) in this folder or below")
        rows = [self._row(file, root, f"file {number}", texts) for number, file in enumerate(images, start=1)]
        labelled = [row for row in rows if row.values["label"]]
        template = card.captions.template
        of_files = card.columns
        if (
            (labelled or of_files.labels)
            and template is None
            and not of_files.texts
            and not any(row.values["text"] for row in rows)
        ):
            log.add_note(
                "captions: the names of the class folders (set corpus.captions.template to change them)"
            )
            template = "{label}"
        columns = of_files.model_copy(
            update={
                "texts": ["text"] if of_files.texts is None else of_files.texts,
                "labels": "label" if of_files.labels is None else of_files.labels,
            }
        )
        card = card.model_copy(update={"captions": card.captions.model_copy(update={"template": template})})
        return standardise(rows, columns, card, log)

    def _row(self, file: Path, root: Path, location: str, texts: Mapping[_TextKey, Path]) -> SourceRow:
        relative = file.relative_to(root)
        folders = list(relative.parts[:-1])
        split = parse_split(folders.pop(0), location) if folders and is_split(folders[0]) else None
        path = corpus_folder.path_inside(root, str(relative), location)
        text = _text_file(file, texts)
        captions = corpus_folder.read_text(text, self.encoding, location) if text else ""
        return SourceRow(
            values={
                "text": [line.strip() for line in captions.splitlines() if line.strip()],
                # Underscores in folder names are spaces, but never in a caption.
                "label": folders[0].replace("_", " ") if folders else "",
                "name": _stem(file),
            },
            location=location,
            image={"path": str(path), "bytes": None},
            name=relative.as_posix(),
            split=split if self.split_names else None,
        )


def _require_folder(path: Path | str) -> Path:
    """The absolute path of the folder.

    Raises: DataError when there is none.
    """
    root = Path(path).resolve()
    if not root.is_dir():
        raise DataError(f"{path}: no such folder: check corpus.path")
    return root


def _refuse_columns(columns: Columns) -> None:
    """Refuse columns but text, label, name, keywords of headers and levels of the folders.

    Raises: RecipeError.
    """
    named = [columns.id, columns.image, columns.language, columns.group, columns.truth, columns.split]
    labels = [columns.labels] if isinstance(columns.labels, str) else columns.labels or []
    named += [columns.reference, columns.change, columns.candidates, columns.written]
    named += [columns.source, *columns.acquisition, *columns.meta]
    if columns.languages or any(
        name and name not in _COLUMNS and not is_header_column(name) and not is_folder_level(name)
        for name in (*named, *labels, *(columns.texts or []))
    ):
        raise RecipeError(
            "corpus.columns: a folder has no columns but text, label, name and its levels, folder_1, "
            "folder_2 …: leave the others out, or use a table"
        )


def _stem(file: Path) -> str:
    return file.name[: len(file.name) - len(image_files.image_suffix(file))]  # of a.fits.gz: a


def _text_key(file: Path, stem: str) -> _TextKey:
    # The letters of the two names may have different forms.
    return file.parent, unicodedata.normalize("NFC", stem)


def _text_file(image: Path, texts: Mapping[_TextKey, Path]) -> Path | None:
    """The text of an image: of a.png, a.txt or a.png.txt."""
    keys = (_text_key(image, stem) for stem in (_stem(image), image.name))
    return next((texts[key] for key in keys if key in texts), None)

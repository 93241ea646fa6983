"""A folder of images: a folder for each class, or a text file beside each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from datasets import DatasetDict
from PIL import Image

from domainclip.data.cards import Card, Columns
from domainclip.data.files import corpus_folder, tar
from domainclip.data.images import decode
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.splits import is_split, parse_split
from domainclip.errors import DataError, RecipeError

_KNOWN = Image.registered_extensions()  # by suffix: Pillow's name of the format
_FITS = (".fits", ".fit", ".fts")
_SUFFIXES = (
    *sorted(suffix for suffix, kind in _KNOWN.items() if kind in decode.FORMATS),
    *(".mpo", ".dcm", ".dicom", *_FITS, ".fz"),
    *(f"{suffix}.gz" for suffix in _FITS),
)
# What stands beside pictures and is none goes without saying.
_BESIDE = ".txt .csv .tsv .md .rst .json .jsonl .ndjson .parquet .yaml .yml .xml .html .pdf .log .py .db .ini"
_QUIET = frozenset(_BESIDE.split())


@dataclass(frozen=True, kw_only=True)
class Folder(CorpusReader):
    """Reads [split/]class/name.jpg, with name.txt beside it where there are captions, one a line.

    The columns that a template may name are `text`, `label` (the class folder) and `name`.
    """

    encoding: str = "utf-8-sig"

    citation: ClassVar[str] = "the layout of ImageNet-like class folders and of image and .txt pairs"

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of all images, in the order of their names."""
        if card.columns != Columns():
            raise RecipeError("corpus.columns: a folder has no columns: leave them out, or use a table")
        root = Path(path).resolve()
        if not root.is_dir():
            raise DataError(f"{path}: no such folder: check corpus.path")
        held = list(corpus_folder.walk_files(root))
        pictures = [file for file in held if _suffix(file)]
        _note_left([file for file in held if not _suffix(file)], log)
        if not pictures:
            raise DataError(f"{path}: no images (.jpg, .png, .tif, .dcm, .fits …) in this folder or below")
        rows = [self._source(file, root, f"file {number}") for number, file in enumerate(pictures, start=1)]
        labelled = [row for row in rows if row.values["label"]]
        template = card.captions.template
        if labelled and template is None and not any(row.values["text"] for row in rows):
            log.add_note("captions: the names of the class folders (say more with corpus.captions.template)")
            template = "{label}"
        columns = Columns(id="", image="", texts=["text"], language="", group="", labels="label", split="")
        card = card.model_copy(update={"captions": card.captions.model_copy(update={"template": template})})
        return standardise(rows, columns, card, log)

    def _source(self, file: Path, root: Path, place: str) -> SourceRow:
        below = file.relative_to(root)
        folders = list(below.parts[:-1])
        split = parse_split(folders.pop(0), place) if folders and is_split(folders[0]) else None
        path = corpus_folder.path_inside(root, str(below), place)
        stem = file.name.removesuffix(file.name[-len(_suffix(file)) :])  # of a.fits.gz: a
        captions = corpus_folder.read_text(file.with_name(f"{stem}.txt"), self.encoding, place)
        return SourceRow(
            values={
                "text": [line.strip() for line in captions.splitlines() if line.strip()],
                # Underscores stand for spaces in names of folders, never in a word of a caption.
                "label": folders[0].replace("_", " ") if folders else "",
                "name": stem,
            },
            location=place,
            image={"path": str(path), "bytes": None},
            name=below.as_posix(),
            split=split,
        )


def _suffix(file: Path) -> str:
    """The suffix that makes a file a picture; "" for any other."""
    name = file.name.lower()
    return max((suffix for suffix in _SUFFIXES if name.endswith(suffix)), key=len, default="")


def _note_left(others: Sequence[Path], log: ReadLog) -> None:
    left: Counter[str] = Counter()
    for file in others:
        suffix = file.suffix.lower()
        if suffix not in _QUIET:  # behind the dot of an unusual name may stand a patient's
            usual = suffix[1:] in tar.REPORTABLE_SUFFIXES or suffix in _KNOWN
            left[suffix if usual else "of other kinds" if suffix else "without a suffix"] += 1
    if left:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(left.items()))
        log.add_note(f"files that are not taken for pictures are left out: {kinds}")

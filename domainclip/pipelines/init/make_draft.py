"""Which files a corpus has, and the draft that fits them."""

from __future__ import annotations

from pathlib import Path

from domainclip.data.readers.guesses.caption_columns import language_of_texts
from domainclip.data.readers.guesses.domain import guess_domain
from domainclip.data.readers.guesses.folders import FolderGuess, guess_folder
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.sources.layout import Layout, find_layout
from domainclip.errors import DataError
from domainclip.pipelines.init.draft import Ask, Draft
from domainclip.pipelines.init.draft_of_dicom import of_dicom
from domainclip.pipelines.init.draft_of_rows import of_rows, of_table


def make_draft(path: str, table: str | None, ask: Ask) -> Draft:
    """Look at the files of a corpus; `table` names reports or classes that lie elsewhere.

    Raises: DataError when the files show no reader, or nobody answers what they do not show; HubError.
    """
    layout = find_layout(path)
    if layout is None:
        raise DataError(
            f"{Path(path).name}: not a table, a folder of images or tar shards: name one of them "
            "(docs/guide/data.md lists what is read)"
        )
    if table is not None:
        layout = Layout(layout.reader, path, table=Path(table))
    if layout.reader == "prepared":
        guess = Guess("reader", "prepared", "a manifest of domainclip data prepare")
        domain = guess_domain([], [], [], "")
        return Draft(str(Path(path).resolve()), "prepared shards", "prepared", (guess,), domain)
    if layout.reader in ("hub", "webdataset"):
        return of_rows(path, layout.reader, ask)
    if layout.table is not None:
        drafted = of_table(path, layout.table, layout.reader, ask, required=table is not None)
        if drafted is not None:
            return drafted
    return of_dicom(path, Path(path)) if layout.reader == "dicom" else _of_folder(Path(path))


def _of_folder(root: Path) -> Draft:
    found: FolderGuess = guess_folder(root.resolve())
    if not found.images:
        raise DataError(f"{root}: no images (.jpg, .png, .tif, .dcm, .fits …) in this folder or below")
    if not found.usable:
        raise DataError(
            f"{root}: {found.images} images without captions or classes: write a .txt beside each image, "
            "sort them into a folder for each class, or name a table with --table TABLE.csv"
        )
    names = [*found.classes, *(part.replace("_", " ") for part in root.resolve().parts[-2:])]
    language = language_of_texts(found.texts) if found.texts else "en"
    return Draft(
        path=str(root.resolve()),
        about=f"a folder of {found.images} images",
        reader="folder",
        guesses=found.guesses,
        domain=guess_domain([], found.texts, names, found.files),
        classes=found.classes,
        languages=tuple(filter(None, [language])),
        template=found.template,
        why_reader="images and no table",
    )

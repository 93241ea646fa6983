"""The draft of a card: what the files of a corpus show, before any item is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from domainclip.data.readers.guesses import dicom_folder, source_rows
from domainclip.data.readers.guesses.caption_columns import language_of_texts
from domainclip.data.readers.guesses.class_columns import Classes
from domainclip.data.readers.guesses.domain import DomainGuess, guess_domain
from domainclip.data.readers.guesses.folders import FolderGuess, guess_folder
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.guesses.image_column import ImageColumn, find_image_column
from domainclip.data.readers.guesses.profiles import ColumnProfile, profile_columns
from domainclip.data.readers.guesses.roles import Roles, guess_roles
from domainclip.data.readers.sources.columns import guess_column, list_columns
from domainclip.data.readers.sources.layout import Layout, find_layout
from domainclip.errors import DataError

Ask = Callable[[str, Sequence[str]], str | None]  # a question and the choices; None: nobody answers
_READERS = {"hub": "a data set of the Hub, or of save_to_disk", "webdataset": "tar files"}
_SHARD_COLUMNS = ("key", "shard")
_TEXTS = 2000


@dataclass(frozen=True)
class Draft:
    """The guesses for a corpus, and what they were made from."""

    path: str  # that the recipe names
    about: str  # the files, in words
    reader: str
    guesses: tuple[Guess, ...]
    domain: DomainGuess
    classes: Counter[str] = field(default_factory=Counter)
    languages: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    template: str = ""  # of the captions, where attributes or keywords make them
    why_reader: str = ""
    text_share: float = 1.0  # the largest share of rows that a caption column fills
    readable: bool = True  # whether init reads the items itself: not those of another machine

    def value(self, key: str) -> Any:
        """The guess of a key; None without one."""
        return next((guess.value for guess in self.guesses if guess.key == key), None)

    @property
    def has_texts(self) -> bool:
        """Whether there are captions that someone wrote."""
        return bool(self.value("columns.texts"))

    @property
    def has_classes(self) -> bool:
        """Whether items have classes."""
        return bool(self.value("columns.labels"))


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
        return _of_rows(path, layout.reader, ask)
    if layout.table is not None:
        drafted = _of_table(path, layout.table, layout.reader, ask, required=table is not None)
        if drafted is not None:
            return drafted
    return _of_dicom(path, Path(path)) if layout.reader == "dicom" else _of_folder(Path(path))


def _of_table(path: str, file: Path, reader: str, ask: Ask, required: bool) -> Draft | None:
    """A draft for a table of images or DICOM files; None where the table is not about the images."""
    source = source_rows.read_table(file)
    profiles = profile_columns(source.columns, source.rows)
    root = Path(path) if Path(path).is_dir() else file.parent
    image = find_image_column(profiles, root.resolve(), file.name)
    guesses = list(source.options)
    is_dicom = (
        reader == "dicom" if image is None or not image.first else dicom_folder.is_dicom_file(image.first)
    )
    about = f"a table ({file.name}: {source.about})"
    if is_dicom:
        return _of_dicom_table(root, file, source, profiles, image, about)
    if image is None:
        if Path(path).is_dir() and not required:
            return None
        answer = ask("Which column names the images?", source.columns)
        if answer not in source.columns:
            raise DataError(
                f"{file.name}: no column names the images: add one, or, for reports of DICOM files, name the "
                f"folder of the files and --table {file.name}; {list_columns(source.columns)}"
            )
        image = ImageColumn(answer, str(root.resolve()), 0, 0)
    guesses.append(Guess("columns.image", image.name, _image_reason(image)))
    folder = None if image.folder is None else Path(image.folder)
    if folder is not None and folder != file.parent.resolve():
        inside = folder.is_relative_to(file.parent.resolve())
        start = os.path.relpath(folder, file.parent.resolve()) if inside else str(folder)
        guesses.append(Guess("options.image_folder", start, "the images lie there, not beside the table"))
    roles = _refined(guess_roles(profiles, source.rows, image.name, file.name), profiles, ask)
    draft = _draft(str(file), about, "table", guesses, roles, source, profiles)
    return replace(draft, why_reader=f"{file.name} lists the images")


def _image_reason(image: ImageColumn) -> str:
    if image.folder is None:
        return f"{image.existing} of {image.tried} cells hold an image"
    if not image.existing:
        return "its cells are named as image files, but none of the first is there"
    return f"{image.existing} of the first {image.tried} cells name files"


def _of_dicom_table(
    root: Path,
    file: Path,
    source: source_rows.SourceRows,
    profiles: Sequence[ColumnProfile],
    image: ImageColumn | None,
    about: str,
) -> Draft:
    """DICOM files whose table names them, or has a column that is an attribute of them."""
    folder = Path(image.folder) if image is not None and image.existing and image.folder else root
    facts = dicom_folder.read_facts(folder)
    inside = file.resolve().is_relative_to(folder.resolve())
    reports = os.path.relpath(file.resolve(), folder.resolve()) if inside else str(file.resolve())
    guesses = [*source.options, Guess("options.reports", reports, "the table of the files")]
    if image is not None and image.existing:
        guesses.append(Guess("columns.image", image.name, _image_reason(image)))
        name = image.name
    else:
        key = dicom_folder.guess_key(facts, profiles)
        if not key:
            raise DataError(
                f"{file.name}: no column holds names of the DICOM files, nor their AccessionNumber, "
                f"StudyInstanceUID or another id of their headers: add one; {list_columns(source.columns)}"
            )
        guesses += [*key, Guess("columns.image", "", "the files are matched with the column above")]
        name = str(key[0].value)
    roles = guess_roles(profiles, source.rows, name, file.name)
    items = dicom_folder.guess_items(facts)
    of_table = roles.value("columns.group")
    guesses += [guess for guess in items if guess.key != "columns.group" or not of_table]
    draft = _draft(
        str(folder), f"{facts.files} DICOM files, with {about}", "dicom", guesses, roles, source, profiles
    )
    domain = guess_domain(source.columns, _texts(profiles, roles), _classes(roles), "dicom")
    domain = replace(domain, chest=domain.chest and facts.is_radiography)
    return replace(draft, domain=domain, why_reader=f"DICOM files, and {file.name} about them")


def _of_rows(path: str, reader: str, ask: Ask) -> Draft:
    """A data set of the Hub or of `save_to_disk`, or tar shards."""
    source = source_rows.read_hub(path) if reader == "hub" else source_rows.read_shards(path)
    columns = [name for name in source.columns if name not in source.images]
    profiles = profile_columns(
        [c for c in columns if reader == "hub" or c not in _SHARD_COLUMNS], source.rows
    )
    guesses = list(source.options)
    image = ""
    if reader == "hub":
        image = source.images[0] if source.images else guess_column("image", source.columns, path)
        if not image:
            image = ask("Which column holds the images?", source.columns) or ""
        if image not in source.columns:
            raise DataError(f"{path}: no column holds images: {list_columns(source.columns)}")
        reason = "the data set declares it as images" if source.images else "its name"
        guesses.append(Guess("columns.image", image, reason))
    roles = guess_roles(profiles, source.rows, image, path)
    if len(source.splits) > 1:
        kept = tuple(guess for guess in roles.guesses if guess.key != "columns.split")
        named = Guess("columns.split", "", f"the source has splits of its own: {', '.join(source.splits)}")
        roles = replace(roles, guesses=(*kept, named))
    about = f"{'a data set' if reader == 'hub' else 'tar shards'} ({source.about})"
    local = Path(path).exists()
    start = str(Path(path).resolve()) if local else path
    draft = _draft(start, about, reader, guesses, roles, source, profiles)
    return replace(draft, readable=local, why_reader=_READERS[reader])


def _draft(
    path: str,
    about: str,
    reader: str,
    guesses: Sequence[Guess],
    roles: Roles,
    source: source_rows.SourceRows,
    profiles: Sequence[ColumnProfile],
) -> Draft:
    languages = sorted(set(filter(None, roles.languages.values())))
    return Draft(
        path=str(Path(path).resolve()) if Path(path).exists() else path,
        about=about,
        reader=reader,
        guesses=(*guesses, *roles.guesses),
        domain=guess_domain(source.columns, _texts(profiles, roles), _classes(roles), ""),
        classes=roles.classes.counts or Counter(),
        languages=tuple(languages),
        columns=tuple(source.columns),
        text_share=max(
            (p.share for p in profiles if p.name in (roles.value("columns.texts") or [])), default=1.0
        ),
    )


def _texts(profiles: Sequence[ColumnProfile], roles: Roles) -> Iterable[str]:
    captions = roles.value("columns.texts") or []
    return islice((text for p in profiles if p.name in captions for text in p.counts), _TEXTS)


def _classes(roles: Roles) -> Iterable[str]:
    return islice(roles.classes.counts or (), 100)


def _refined(roles: Roles, profiles: Sequence[ColumnProfile], ask: Ask) -> Roles:
    """The roles with an answer, where neither captions nor classes were found."""
    if roles.value("columns.texts") or roles.value("columns.labels"):
        return roles
    names = [profile.name for profile in profiles]
    answer = ask("Which column holds the captions, or the classes?", names)
    profile = next((p for p in profiles if p.name == answer), None)
    if profile is None:
        raise DataError(
            "no column holds captions or classes: a model is adapted to images with texts; add such a "
            f"column, or images in a folder for each class; {list_columns(names)}"
        )
    few = profile.distinct * 3 <= profile.filled
    key, value = ("columns.labels", profile.name) if few else ("columns.texts", [profile.name])
    guess = Guess(key, value, "your answer")
    classes = Classes((guess,), profile.counts) if few else roles.classes
    return replace(roles, guesses=(*roles.guesses, guess), classes=classes)


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


def _of_dicom(path: str, root: Path) -> Draft:
    """DICOM files without a table: class folders, texts beside the files, structured reports, attributes."""
    root = root if root.is_dir() else root.parent
    found, facts = guess_folder(root.resolve()), dicom_folder.read_facts(root.resolve())
    patients = facts.values("PatientID")
    # An archive has a folder for each patient or study, which is no class.
    if found.classes and len(found.classes) < max(2, len(patients)) and not found.texts:
        domain = guess_domain([], [], found.classes, "dicom")
        about = f"a folder of {found.images} DICOM files"
        draft = Draft(str(root.resolve()), about, "folder", found.guesses, domain, found.classes, ("en",))
        return replace(draft, why_reader="DICOM files in a folder for each class")
    captions, template = dicom_folder.guess_captions(facts)
    if not captions:
        raise DataError(
            f"{root}: {facts.files} DICOM files without reports: name their table with --table TABLE.csv, or "
            "write a .txt beside each file"
        )
    guesses = [*dicom_folder.guess_items(facts), *captions, Guess("columns.image", "", "no table")]
    words = [
        value for word in ("BodyPartExamined", "StudyDescription") for value in facts.values(word).elements()
    ]
    domain = guess_domain([], words, found.texts, "dicom")
    labels = next((guess.value for guess in captions if guess.key == "columns.labels"), None)
    return Draft(
        path=str(root.resolve()),
        about=f"a folder of {facts.files} DICOM files",
        reader="dicom",
        guesses=tuple(guesses),
        domain=replace(domain, chest=domain.chest and facts.is_radiography),
        classes=facts.values(labels) if labels else Counter(),
        languages=(language_of_texts(found.texts) or "en",) if found.texts else ("en",),
        template=template,
        why_reader="DICOM files by their content, and no table",
    )

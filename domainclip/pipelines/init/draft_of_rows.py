"""Drafts for tables, data sets and tar shards: sources of rows with columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from domainclip.data.readers.guesses import dicom_folder, source_rows
from domainclip.data.readers.guesses.class_columns import Classes
from domainclip.data.readers.guesses.folders import is_fits_file
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.guesses.image_column import ImageColumn, find_image_column
from domainclip.data.readers.guesses.profiles import ColumnProfile, profile_columns
from domainclip.data.readers.guesses.roles import Roles, guess_roles
from domainclip.data.readers.sources.columns import guess_column, list_columns
from domainclip.errors import DataError
from domainclip.pipelines.init.draft import Ask, Draft, draft_of_rows, image_reason
from domainclip.pipelines.init.draft_of_dicom import of_dicom_table

_READERS = {"hub": "a data set of the Hub, or of save_to_disk", "webdataset": "tar files"}
_SHARD_COLUMNS = ("key", "shard")


def of_table(path: str, file: Path, reader: str, ask: Ask, required: bool) -> Draft | None:
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
        return of_dicom_table(root, file, source, profiles, image, about)
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
    guesses.append(Guess("columns.image", image.name, image_reason(image)))
    folder = None if image.folder is None else Path(image.folder)
    if folder is not None and folder != file.parent.resolve():
        inside = folder.is_relative_to(file.parent.resolve())
        start = os.path.relpath(folder, file.parent.resolve()) if inside else str(folder)
        guesses.append(Guess("options.image_folder", start, "the images lie there, not beside the table"))
    roles = _refined(guess_roles(profiles, source.rows, image.name, file.name), profiles, ask)
    fits = bool(image.first) and is_fits_file(Path(image.first))
    draft = draft_of_rows(
        str(file), about, "table", guesses, roles, source, profiles, files="fits" if fits else ""
    )
    return replace(draft, why_reader=f"{file.name} lists the images")


def of_rows(path: str, reader: str, ask: Ask) -> Draft:
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
    elif source.splits == ("train",) and reader == "webdataset":
        guesses.append(Guess("options.split_names", False, f"all shards name the split {source.splits[0]}"))
    about = f"{'a data set' if reader == 'hub' else 'tar shards'} ({source.about})"
    local = Path(path).exists()
    start = str(Path(path).resolve()) if local else path
    draft = draft_of_rows(start, about, reader, guesses, roles, source, profiles)
    return replace(draft, readable=local, why_reader=_READERS[reader])


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

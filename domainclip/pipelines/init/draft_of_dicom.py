"""Drafts for DICOM files, with a table of reports or without."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from domainclip.data.readers.guesses import dicom_folder, source_rows
from domainclip.data.readers.guesses.caption_columns import language_of_texts
from domainclip.data.readers.guesses.domain import guess_domain
from domainclip.data.readers.guesses.folders import guess_folder
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.guesses.image_column import ImageColumn
from domainclip.data.readers.guesses.profiles import ColumnProfile
from domainclip.data.readers.guesses.roles import guess_roles
from domainclip.data.readers.sources.columns import list_columns
from domainclip.errors import DataError
from domainclip.pipelines.init.draft import Draft, caption_texts, class_names, draft_of_rows, image_reason


def of_dicom_table(
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
        guesses.append(Guess("columns.image", image.name, image_reason(image)))
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
    draft = draft_of_rows(
        str(folder), f"{facts.files} DICOM files, with {about}", "dicom", guesses, roles, source, profiles
    )
    domain = guess_domain(source.columns, caption_texts(profiles, roles), class_names(roles), "dicom")
    domain = replace(domain, chest=domain.chest and facts.is_radiography)
    return replace(draft, domain=domain, why_reader=f"DICOM files, and {file.name} about them")


def of_dicom(path: str, root: Path) -> Draft:
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

"""A folder of DICOM files with their reports: in a table, or as text files beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datasets import DatasetDict
from pydicom.datadict import DicomDictionary, tag_for_keyword

from domainclip.data import columns, dicom, files, tables
from domainclip.data.cards import Card, Columns, corpus_root
from domainclip.data.quarantine import Bad, Journal
from domainclip.data.rows import Source, standardise, text_of
from domainclip.data.unreadable import UnreadableImage
from domainclip.errors import DataError, RecipeError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Dicom:
    """Reads DICOM files, known by their content, not by their names.

    The reports are a table that names the files in its image column, or one whose `key` column holds an
    attribute of the files (`attribute`), or a .txt beside each file. Attributes of the files, by keyword
    (PatientSex, ViewPosition …), can be used like columns; those that the card does not name never leave
    this reader. Groups are patients (PatientID, or else the study) unless the card says otherwise.
    """

    reports: str | None = None  # the table, inside the corpus folder; null: metadata.* or reports.*
    key: str | None = None  # its column that is matched with …
    attribute: str | None = None  # … this attribute; null: the file's name, with or without suffix
    encoding: str = "utf-8-sig"
    separator: str | None = None
    label_separator: str | None = None

    citation: ClassVar[str] = "DICOM PS3.3 and PS3.10"

    def read(self, card: Card, path: Path | str, journal: Journal) -> DatasetDict:
        """Splits of the images, in the order of the table, or of the names of the files."""
        root = corpus_root(path).resolve()
        if not root.exists():
            raise DataError(f"{path}: no such file or folder: check corpus.path")
        table = self._table(Path(path), root)
        own = table.columns if table else ["text"]
        keywords = [name for name in columns.named(card) if name not in own and tag_for_keyword(name)]
        available = [*own, *dict.fromkeys([*keywords, "PatientID"])]
        source = table.file.name if table else str(path)
        found = columns.resolve(card, available, source, journal)
        used = {name for name in (*keywords, found.group, self._attribute()) if name and name not in own}
        rows = self._rows(table, found, root, sorted(used), journal)
        return standardise(list(rows), found, card, journal, self.label_separator)

    def _table(self, path: Path, root: Path) -> tables.Table | None:
        if self.reports:
            file: Path | None = files.inside(root, self.reports, "corpus.options.reports")
        else:
            file = tables.find(path, ("metadata", "reports"))
        return None if file is None else tables.read(file, self.encoding, self.separator)

    def _rows(
        self, table: tables.Table | None, found: Columns, root: Path, keywords: list[str], journal: Journal
    ) -> Iterator[Source]:
        if table is not None and self.key is None:
            column = columns.require_image(found, table.columns, table.file.name)
            for number, row in enumerate(table.rows, start=1):
                name = text_of(row.get(column))
                place = f"row {number}"
                file = files.inside(root, name or "?", f"{place}, column {column}")
                try:
                    yield _source(file, name, place, row, keywords)
                except UnreadableImage as error:
                    journal.bad.append(Bad(place, error.reason, str(file)))
            return
        reports = self._by_key(table) if table is not None else None
        others: Counter[str] = Counter()
        for number, file in enumerate(_dicom_files(root), start=1):
            place, name = f"file {number}", file.relative_to(root).as_posix()
            try:
                source = _source(files.inside(root, name, place), name, place, {}, keywords)
            except UnreadableImage as error:
                # A folder of studies holds reports and plans too: they are no images, but no faults either.
                if error.reason.startswith("not an image"):
                    others[error.reason.removeprefix("not an image ")] += 1
                else:
                    journal.bad.append(Bad(place, error.reason, str(file)))
                continue
            yield self._with_report(source, file, reports)
        if others:
            kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
            journal.note(f"DICOM files that are not images are left out: {kinds}")

    def _by_key(self, table: tables.Table) -> dict[str, dict[str, Any]]:
        if self.key not in table.columns:
            near = did_you_mean(str(self.key), table.columns)
            raise DataError(f'{table.file.name}: no column "{self.key}" (corpus.options.key): {near}')
        return {text_of(row.get(self.key)): row for row in table.rows}

    def _with_report(self, source: Source, file: Path, reports: dict[str, dict[str, Any]] | None) -> Source:
        if reports is None:
            beside = [file.with_suffix(".txt"), file.with_name(file.name + ".txt")]
            text = next(filter(None, (files.text(one, self.encoding, source.place) for one in beside)), "")
            report: dict[str, Any] = {"text": " ".join(text.split())}
        else:
            keys = [source.values[self.attribute]] if self.attribute else [source.name, file.name, file.stem]
            report = next((reports[key] for key in keys if key in reports), {})
        return Source({**source.values, **report}, source.place, source.image, source.name)

    def _attribute(self) -> str | None:
        if self.attribute and tag_for_keyword(self.attribute) is None:
            near = did_you_mean(self.attribute, (entry[4] for entry in DicomDictionary.values()))
            raise RecipeError(f'corpus.options.attribute: no DICOM keyword "{self.attribute}": {near}')
        return self.attribute


def _dicom_files(root: Path) -> Iterator[Path]:
    for file in files.walk(root):
        try:
            with file.open("rb") as stream:
                begins = dicom.is_dicom(stream.read(132))
        except OSError:  # it is told of when its header cannot be read
            begins = True
        if begins:
            yield file


def _source(file: Path, name: str, place: str, row: dict[str, Any], keywords: list[str]) -> Source:
    # A file that is not there is counted later, with those of every other reader.
    values = dicom.header(file, keywords) if file.is_file() else {}
    return Source({**values, **row}, place, {"path": str(file), "bytes": None}, name or place)

"""A folder of DICOM files with their reports: in a table, in adjacent text files, or as DICOM SR."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydicom.datadict import DicomDictionary, tag_for_keyword

from domainclip.data.cards import Card, corpus_root
from domainclip.data.dicom import decoders, reading, windowing
from domainclip.data.dicom.frames import FramePolicy
from domainclip.data.files import corpus_folder, locations, tables
from domainclip.data.files.column_roles import Columns
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.readers.sources import (
    columns,
    dicom_folder,
    dicom_reports,
    dicom_structured_reports,
    dicom_studies,
)
from domainclip.data.readers.sources.dicom_studies import DicomFile, GroupLevel
from domainclip.data.readers.sources.image_cells import image_from_cell
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.text.cells import CellFault, of_column
from domainclip.errors import DataError, RecipeError, UnreadableImage, did_you_mean

if TYPE_CHECKING:
    from datasets import DatasetDict

_INTERNAL = (*dicom_studies.KEYWORDS, *windowing.WINDOW_KEYWORDS, "TransferSyntaxUID", "BitsStored")


@dataclass(frozen=True, kw_only=True)
class Dicom(CorpusReader):
    """Reads DICOM files, recognised by their content, not by their names.

    The reports are a table that names the files in its image column, or one whose `key` column holds an
    attribute of the files (`attribute`), or a .txt next to each file, or structured reports (SR) of the same
    study. Attributes of the files, by keyword (PatientSex, ViewPosition …), can be used like columns; those
    that the card does not name are dropped here. Groups are patients (PatientID, or else the study) unless
    the card names another column.
    """

    # The table, in the corpus folder, in the working folder or anywhere; null: metadata.* or reports.*
    reports: str | None = None
    key: str | None = None  # its column that is matched with …
    attribute: str | None = None  # … this attribute; null: the file's name, with or without suffix
    encoding: str = "utf-8-sig"  # of the table or texts; cp1252 and others as Python names them
    separator: str | None = None  # of the cells of a table; null: guessed from the header
    quoting: bool | None = None  # whether quotes enclose cells; null: guessed
    label_separator: str | None = None  # "|" when a cell may hold several classes, as in a|b
    frames: FramePolicy = "first"  # of a multi-frame file; all: the frames are views of one item
    study: GroupLevel | None = None  # files of one study, or series, are views of one item
    window: int | str = 0  # the window of a file: its index, its explanation, or a CT preset

    citation: ClassVar[str] = "DICOM PS3.3 and PS3.10"

    def source_files(self, card: Card, path: Path | str) -> list[Path] | None:
        """The table alone, where it names the files; else all files and folders; those of the decoders."""
        root = corpus_root(path).resolve()
        if not root.is_dir():
            return None
        table = self._table_file(Path(path), root)
        installed = decoders.package_files()
        if table is not None and self.key is None:
            return [*installed, root, table]  # in the folder may appear a table that goes first
        files = [*corpus_folder.walk_folders(root), *corpus_folder.walk_files(root)]
        return [*installed, *([] if table is None else [table]), *files]

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of the items, in the order of the table, or of the names of the files."""
        root = corpus_root(path).resolve()
        if not root.exists():
            raise DataError(f"{path}: no such file or folder: check corpus.path")
        table = self._table(Path(path), root)
        table_columns = table.columns if table else ["text"]
        keywords = [
            name
            for name in columns.named_columns(card)
            if name not in table_columns and tag_for_keyword(name)
        ]
        available = [*table_columns, *dict.fromkeys([*keywords, "PatientID"])]
        source = table.file.name if table else str(path)
        roles = columns.resolve_columns(card, available, source, log)
        used = {
            name for name in (*keywords, roles.group, self._attribute()) if name and name not in table_columns
        }
        keywords = sorted(used)
        for note in table.notes if table else ():
            log.add_note(note)
        if table is not None and self.key is None:
            image = columns.require_image_column(roles, table_columns, source)
            files = list(self._named_files(table, image, root, keywords, log))
        else:
            files = self._all_files(table, root, keywords, _multi_valued(roles), log)
        if table is None and card.captions.policy != "section":  # whose headings are on separate lines
            files = [
                file.with_report({"text": " ".join(file.source.values["text"].split())}) for file in files
            ]
        _refuse_undecodable(files, card, log)
        self._check_window(files, log)
        items = dicom_studies.group_files(files, self.study, roles.texts or [])
        with tables.named_in_errors(table.file.name if table else str(path)):
            return standardise(items, roles, card, log, self.label_separator)

    def _table_file(self, path: Path, root: Path) -> Path | None:
        if self.reports:
            return corpus_folder.find_table(root, self.reports)
        return tables.find_table(root if path.name.upper() == "DICOMDIR" else path, ("metadata", "reports"))

    def _table(self, path: Path, root: Path) -> tables.Table | None:
        file = self._table_file(path, root)
        if file is None:
            return None
        key = "corpus.options.reports" if self.reports else "corpus.path"
        return tables.read_table(file, self.encoding, self.separator, self.quoting, key)

    def _named_files(
        self, table: tables.Table, column: str, root: Path, keywords: list[str], log: ReadLog
    ) -> Iterator[DicomFile]:
        """The files named by the rows of a table."""
        for number, row in enumerate(table.rows, start=1):
            location = f"row {number}"
            try:
                name = of_column(image_from_cell, row, column)["path"] or ""
            except CellFault as fault:
                log.unusable.append(UnusableItem(location, str(fault)))
                continue
            with tables.named_in_errors(table.file.name):
                file = corpus_folder.path_inside(root, name or "?", f"{location}, column {column}")
            try:
                yield self._read_file(file, name or location, location, row, keywords)
            except UnreadableImage as error:
                log.unusable.append(UnusableItem(location, error.reason, str(file)))

    def _all_files(
        self,
        table: tables.Table | None,
        root: Path,
        keywords: list[str],
        multi_valued: list[str],
        log: ReadLog,
    ) -> list[DicomFile]:
        """The image files of the folder, each with its report."""
        if table is not None:
            self._refuse_unknown_key(table)
        files: list[DicomFile] = []
        broken: list[str] = []
        others: list[tuple[str, str, Path]] = []
        for number, file in enumerate(dicom_folder.walk_dicom(root, log), start=1):
            location, name = f"file {number}", file.relative_to(root).as_posix()
            try:
                if not file.exists():  # a link to nowhere
                    raise UnreadableImage(name, "missing file")
                dicom_file = self._read_file(
                    corpus_folder.path_inside(root, name, location), name, location, {}, keywords
                )
            except UnreadableImage as error:
                # A folder of studies also holds reports and plans: neither images nor faults.
                if error.reason.startswith("not an image"):
                    others.append((error.reason.removeprefix("not an image "), location, file))
                else:
                    log.unusable.append(UnusableItem(location, error.reason, str(file)))
                    broken.append(name)
                continue
            files.append(
                dicom_file
                if table is not None
                else dicom_file.with_report(self._adjacent_report(dicom_file, file))
            )
        directories = [file for kind, _, file in others if kind == "(DICOMDIR)"]
        dicom_folder.count_missing_references(directories, root, log)
        if table is None:
            return _with_structured(files, others, log)
        _note_ignored(Counter(kind for kind, _, _ in others), log)
        if self.attribute is None:
            return dicom_reports.match_by_name(files, broken, table, str(self.key), multi_valued, log)
        return dicom_reports.match_by_attribute(
            files, self.attribute, table, str(self.key), multi_valued, log
        )

    def _read_file(
        self, file: Path, name: str, location: str, row: dict[str, Any], keywords: list[str]
    ) -> DicomFile:
        source = SourceRow(row, location, {"path": str(file), "bytes": None}, name)
        real = Path(locations.split_location(str(file))[0])
        if not real.is_file():  # missing files are counted later, for all readers
            return DicomFile(source, {})
        requested = [*keywords, *_INTERNAL, *filter(None, [self.attribute])]
        attributes = reading.read_header(real, [*dict.fromkeys(requested)])
        values = {**{word: attributes[word] for word in keywords}, **row}
        source = SourceRow(values, location, source.image, name)
        return DicomFile(
            dicom_studies.select_frames(source, attributes, self.frames, self.window), attributes
        )

    def _refuse_unknown_key(self, table: tables.Table) -> None:
        if self.key not in table.columns:
            near = did_you_mean(str(self.key), table.columns)
            raise DataError(f'{table.file.name}: no column "{self.key}" (corpus.options.key): {near}')

    def _adjacent_report(self, dicom_file: DicomFile, file: Path) -> dict[str, Any]:
        candidates = [file.with_suffix(".txt"), file.with_name(file.name + ".txt")]
        texts = (
            corpus_folder.read_text(text, self.encoding, dicom_file.source.location) for text in candidates
        )
        return {"text": next(filter(None, texts), "").strip()}

    def _attribute(self) -> str | None:
        if self.attribute and tag_for_keyword(self.attribute) is None:
            near = did_you_mean(self.attribute, (entry[4] for entry in DicomDictionary.values()))
            raise RecipeError(f'corpus.options.attribute: no DICOM keyword "{self.attribute}": {near}')
        return self.attribute

    def _check_window(self, files: Sequence[DicomFile], log: ReadLog) -> None:
        """Log how many files lack the configured window; their first one is used."""
        present = [file.attributes for file in files if file.attributes]
        lacking = sum(not windowing.has_window(attributes, self.window) for attributes in present)
        if not lacking:
            return
        if lacking == len(present):
            near = "" if isinstance(self.window, int) else f": {did_you_mean(self.window, windowing.PRESETS)}"
            raise RecipeError(
                f"corpus.options.window: none of {lacking} files has window {self.window}"
                f"{near or ', counted from 0'}"
            )
        log.add_note(
            f"{lacking} of {len(present)} files have no window {self.window} (corpus.options.window): "
            "their first one is used"
        )


def _multi_valued(roles: Columns) -> list[str]:
    """The columns that may have several values per item: captions and classes."""
    return [*(roles.texts or []), *([roles.labels] if isinstance(roles.labels, str) else [])]


def _with_structured(
    files: list[DicomFile], others: Sequence[tuple[str, str, Path]], log: ReadLog
) -> list[DicomFile]:
    """The files; those without a text get the text of the structured reports of their study."""
    studies = {file.attributes.get("StudyInstanceUID") for file in files}
    reports: dict[str, list[str]] = {}
    ignored: Counter[str] = Counter()
    for kind, location, file in others:
        try:
            study, text = dicom_structured_reports.read_report_text(file) if kind == "(SR)" else ("", "")
        except UnreadableImage as error:
            log.unusable.append(UnusableItem(location, error.reason, str(file)))
            continue
        if text and study in studies:
            reports.setdefault(study, []).append(text)
        else:
            ignored[kind] += 1
    _note_ignored(ignored, log)
    if reports:
        count = sum(map(len, reports.values()))
        log.add_note(f"{count} structured reports (SR) are the text of the images of their studies")
    return [
        file
        if file.source.values.get("text")
        else file.with_report(
            {"text": "\n".join(reports.get(file.attributes.get("StudyInstanceUID", ""), []))}
        )
        for file in files
    ]


def _note_ignored(ignored: Counter[str], log: ReadLog) -> None:
    if ignored:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(ignored.items()))
        log.add_note(f"DICOM files that are not images are left out: {kinds}")


def _refuse_undecodable(files: Sequence[DicomFile], card: Card, log: ReadLog) -> None:
    """Stop before training when more files than the card allows need a decoder that is not installed."""
    counts = Counter(decoders.syntax_key(file.attributes) for file in files if file.attributes)
    missing = [row for row in decoders.decoder_rows(counts) if not row.decoder]
    if not missing:
        return
    lost, total = sum(row.files for row in missing), counts.total()
    message = f"{lost} of {total} DICOM files cannot be decoded here: " + "; ".join(
        f"{row.files} {row.syntax}: {row.install}" for row in missing
    )
    if lost > card.max_unusable * total:
        raise DataError(f"corpus {card.name}: {message}")
    log.add_note(message)

"""A folder of DICOM files with their reports: in a table, in text files beside them, or as DICOM SR."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datasets import DatasetDict
from pydicom.datadict import DicomDictionary, tag_for_keyword

from domainclip.data.cards import Card, Columns, corpus_root
from domainclip.data.dicom import decoders, reading, windowing
from domainclip.data.dicom.frames import SIZE_KEYWORDS, FramePolicy, check_frame_count
from domainclip.data.files import corpus_folder, locations, tables
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.readers.sources import columns, dicom_reports, dicom_structured_reports, dicom_studies
from domainclip.data.readers.sources.dicom_studies import DicomFile, GroupLevel
from domainclip.data.row_captions import cell_text
from domainclip.data.rows import SourceRow, standardise
from domainclip.errors import DataError, RecipeError, UnreadableImage, did_you_mean

_SUFFIXES = (".dcm", ".dicom")
_STORED = (*SIZE_KEYWORDS, "TransferSyntaxUID", "BitsAllocated", "BitsStored")
_INTERNAL = (*dicom_studies.KEYWORDS, *windowing.WINDOW_KEYWORDS, *_STORED)


@dataclass(frozen=True, kw_only=True)
class Dicom(CorpusReader):
    """Reads DICOM files, known by their content, not by their names.

    The reports are a table that names the files in its image column, or one whose `key` column holds an
    attribute of the files (`attribute`), or a .txt beside each file, or structured reports (SR) of the same
    study. Attributes of the files, by keyword (PatientSex, ViewPosition …), can be used like columns; those
    that the card does not name never leave this reader. Groups are patients (PatientID, or else the study)
    unless the card says otherwise.
    """

    reports: str | None = None  # the table, inside the corpus folder; null: metadata.* or reports.*
    key: str | None = None  # its column that is matched with …
    attribute: str | None = None  # … this attribute; null: the file's name, with or without suffix
    encoding: str = "utf-8-sig"
    separator: str | None = None
    label_separator: str | None = None
    frames: FramePolicy = "first"  # of a file with several; all: they are views of one item
    study: GroupLevel | None = None  # files of one study, or series, are views of one item
    window: int | str = 0  # which of a file's windows: its index, its explanation, or a CT preset

    citation: ClassVar[str] = "DICOM PS3.3 and PS3.10"

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of the items, in the order of the table, or of the names of the files."""
        root = corpus_root(path).resolve()
        if not root.exists():
            raise DataError(f"{path}: no such file or folder: check corpus.path")
        table = self._table(Path(path), root)
        own = table.columns if table else ["text"]
        keywords = [name for name in columns.named_columns(card) if name not in own and tag_for_keyword(name)]
        available = [*own, *dict.fromkeys([*keywords, "PatientID"])]
        source = table.file.name if table else str(path)
        found = columns.resolve_columns(card, available, source, log)
        used = {name for name in (*keywords, found.group, self._attribute()) if name and name not in own}
        keywords = sorted(used)
        if table is not None and self.key is None:
            image = columns.require_image_column(found, own, source)
            held = list(self._named(table, image, root, keywords, log))
        else:
            held = self._walked(table, root, keywords, _gathered(found), log)
        if table is None and card.captions.policy != "section":  # whose headings stand on lines of their own
            held = [file.with_report({"text": " ".join(file.source.values["text"].split())}) for file in held]
        _refuse_undecodable(held, card, log)
        self._check_window(held, log)
        items = dicom_studies.group_files(held, self.study, found.texts or [])
        return standardise(items, found, card, log, self.label_separator)

    def _table(self, path: Path, root: Path) -> tables.Table | None:
        if self.reports:
            file: Path | None = corpus_folder.path_inside(root, self.reports, "corpus.options.reports")
        else:
            file = tables.find_table(path, ("metadata", "reports"))
        return None if file is None else tables.read_table(file, self.encoding, self.separator)

    def _named(
        self, table: tables.Table, column: str, root: Path, keywords: list[str], log: ReadLog
    ) -> Iterator[DicomFile]:
        """The files that the rows of a table name."""
        for number, row in enumerate(table.rows, start=1):
            name, place = cell_text(row.get(column)), f"row {number}"
            file = corpus_folder.path_inside(root, name or "?", f"{place}, column {column}")
            try:
                yield self._opened(file, name or place, place, row, keywords)
            except UnreadableImage as error:
                log.unusable.append(UnusableItem(place, error.reason, str(file)))

    def _walked(
        self,
        table: tables.Table | None,
        root: Path,
        keywords: list[str],
        gathered: list[str],
        log: ReadLog,
    ) -> list[DicomFile]:
        """The image files of the folder, each with its report."""
        if table is not None:
            self._refuse_unknown_key(table)
        held: list[DicomFile] = []
        broken: list[str] = []
        others: list[tuple[str, str, Path]] = []
        for number, file in enumerate(_dicom_files(root), start=1):
            place, name = f"file {number}", file.relative_to(root).as_posix()
            try:
                one = self._opened(corpus_folder.path_inside(root, name, place), name, place, {}, keywords)
            except UnreadableImage as error:
                # A folder of studies holds reports and plans too: they are no images, but no faults either.
                if error.reason.startswith("not an image"):
                    others.append((error.reason.removeprefix("not an image "), place, file))
                else:
                    log.unusable.append(UnusableItem(place, error.reason, str(file)))
                    broken.append(name)
                continue
            held.append(one if table is not None else one.with_report(self._beside(one, file)))
        if table is None:
            return _with_structured(held, others, log)
        _note_left(Counter(kind for kind, _, _ in others), log)
        if self.attribute is None:
            return dicom_reports.match_by_name(held, broken, table, str(self.key), gathered, log)
        return dicom_reports.match_by_attribute(held, self.attribute, table, str(self.key), gathered, log)

    def _opened(
        self, file: Path, name: str, place: str, row: dict[str, Any], keywords: list[str]
    ) -> DicomFile:
        source = SourceRow(row, place, {"path": str(file), "bytes": None}, name)
        real = Path(locations.split_location(str(file))[0])
        if not real.is_file():  # it is counted later, with those of every other reader
            return DicomFile(source, {})
        asked = [*keywords, *_INTERNAL, *filter(None, [self.attribute])]
        attributes = reading.read_header(real, [*dict.fromkeys(asked)])
        check_frame_count(attributes, real.stat().st_size, name)
        values = {**{word: attributes[word] for word in keywords}, **row}
        source = SourceRow(values, place, source.image, name)
        return DicomFile(
            dicom_studies.select_frames(source, attributes, self.frames, self.window), attributes
        )

    def _refuse_unknown_key(self, table: tables.Table) -> None:
        if self.key not in table.columns:
            near = did_you_mean(str(self.key), table.columns)
            raise DataError(f'{table.file.name}: no column "{self.key}" (corpus.options.key): {near}')

    def _beside(self, one: DicomFile, file: Path) -> dict[str, Any]:
        beside = [file.with_suffix(".txt"), file.with_name(file.name + ".txt")]
        found = (corpus_folder.read_text(text, self.encoding, one.source.location) for text in beside)
        return {"text": next(filter(None, found), "").strip()}

    def _attribute(self) -> str | None:
        if self.attribute and tag_for_keyword(self.attribute) is None:
            near = did_you_mean(self.attribute, (entry[4] for entry in DicomDictionary.values()))
            raise RecipeError(f'corpus.options.attribute: no DICOM keyword "{self.attribute}": {near}')
        return self.attribute

    def _check_window(self, held: Sequence[DicomFile], log: ReadLog) -> None:
        """Says how many files lack the window that is asked for; their first one is shown."""
        seen = [file.attributes for file in held if file.attributes]
        lacking = sum(not windowing.has_window(attributes, self.window) for attributes in seen)
        if not lacking:
            return
        if lacking == len(seen):
            near = "" if isinstance(self.window, int) else f": {did_you_mean(self.window, windowing.PRESETS)}"
            raise RecipeError(
                f"corpus.options.window: none of {lacking} files has window {self.window}"
                f"{near or ', counted from 0'}"
            )
        log.add_note(
            f"{lacking} of {len(seen)} files have no window {self.window} (corpus.options.window): "
            "their first one is shown"
        )


def _gathered(found: Columns) -> list[str]:
    """The columns of which an item may have several values: captions and classes."""
    return [*(found.texts or []), *([found.labels] if isinstance(found.labels, str) else [])]


def _dicom_files(root: Path) -> Iterator[Path]:
    for file in corpus_folder.walk_files(root):
        try:
            with file.open("rb") as stream:
                begins = reading.is_dicom(stream.read(132))
        except OSError:  # it is told of when its header cannot be read
            begins = True
        if begins or file.suffix.lower() in _SUFFIXES:  # what only has the name is counted as broken
            yield file


def _with_structured(
    held: list[DicomFile], others: Sequence[tuple[str, str, Path]], log: ReadLog
) -> list[DicomFile]:
    """The files; those without a text get that of their study's structured reports."""
    here = {file.attributes.get("StudyInstanceUID") for file in held}
    reports: dict[str, list[str]] = {}
    left: Counter[str] = Counter()
    for kind, place, file in others:
        try:
            study, text = dicom_structured_reports.read_report_text(file) if kind == "(SR)" else ("", "")
        except UnreadableImage as error:
            log.unusable.append(UnusableItem(place, error.reason, str(file)))
            continue
        if text and study in here:
            reports.setdefault(study, []).append(text)
        else:
            left[kind] += 1
    _note_left(left, log)
    if reports:
        said = sum(map(len, reports.values()))
        log.add_note(f"{said} structured reports (SR) are the text of the images of their studies")
    return [
        file
        if file.source.values.get("text")
        else file.with_report(
            {"text": "\n".join(reports.get(file.attributes.get("StudyInstanceUID", ""), []))}
        )
        for file in held
    ]


def _note_left(left: Counter[str], log: ReadLog) -> None:
    if left:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(left.items()))
        log.add_note(f"DICOM files that are not images are left out: {kinds}")


def _refuse_undecodable(held: Sequence[DicomFile], card: Card, log: ReadLog) -> None:
    """Stops before training when more files than the card allows need a decoder that is not there."""
    seen = Counter(decoders.syntax_key(file.attributes) for file in held if file.attributes)
    missing = [row for row in decoders.decoder_rows(seen) if not row.decoder]
    if not missing:
        return
    lost, total = sum(row.files for row in missing), seen.total()
    said = f"{lost} of {total} DICOM files cannot be decoded here: " + "; ".join(
        f"{row.files} {row.syntax}: {row.install}" for row in missing
    )
    if lost > card.max_unusable * total:
        raise DataError(f"corpus {card.name}: {said}")
    log.add_note(said)

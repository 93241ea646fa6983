"""The files of a folder of DICOM files: images to read, damaged files to count, and others to note.

Files of an archive often have no suffix, so that a damaged one looks like any other file. One that is empty,
or that is neither text nor of another known kind, is taken for a damaged DICOM file and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from domainclip.data.dicom import attributes, reading
from domainclip.data.files import corpus_folder, file_kinds
from domainclip.data.quarantine import ReadLog, UnusableItem

_SUFFIXES = (".dcm", ".dicom", ".ima")  # a file with one of them is counted even if it is a text
_HEAD_BYTES = 512
_RECORDS = "DirectoryRecordSequence"


def walk_dicom(root: Path, log: ReadLog) -> Iterator[Path]:
    """Every file that is, or seems to be, a DICOM file, in sorted order; other files are noted by kind."""
    others: Counter[str] = Counter()
    skipped: list[Path] = []
    for file in corpus_folder.walk_files(root, skipped):
        kind = _other_kind(file)
        if kind is None:
            yield file
        elif kind:
            others[kind] += 1
    if skipped:
        log.add_note(f"{len(skipped)} links to folders, pipes and devices are not read")
    if others:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
        log.add_note(f"files that are not DICOM files are left out: {kinds}")


def _other_kind(file: Path) -> str | None:
    """The kind of a file that is not DICOM, "" for a text or table; None for a DICOM or a damaged file."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:  # reported when its header cannot be read
        return None
    suffix = file.suffix.lower()
    if reading.is_dicom(head) or suffix in _SUFFIXES:
        return None
    if file_kinds.is_common(file):
        return ""
    if file_kinds.is_known(file):
        return suffix
    kind = file_kinds.kind_of_content(head)
    return None if not kind else f"{kind} without a known suffix"


def count_missing_references(directories: Sequence[Path], root: Path, log: ReadLog) -> None:
    """Count the images that a DICOMDIR lists and that are not there, where others of their study are.

    A study without any file was left elsewhere, and is noted.
    """
    names = {file.relative_to(root).as_posix().casefold() for file in corpus_folder.walk_files(root)}
    absent = 0
    for directory in directories:
        for study in _studies(directory):
            missing = [(number, file) for number, file in study if not _exists(file.relative_to(root), names)]
            if len(missing) == len(study):
                absent += len(missing)
                continue
            log.unusable += [
                UnusableItem(f"DICOMDIR record {number}", "missing file", str(file))
                for number, file in missing
            ]
    if absent:
        log.add_note(
            f"{absent} images that a DICOMDIR lists are not in the folder, nor others of their studies"
        )


def _exists(path: Path, names: Collection[str]) -> bool:
    """Whether a file exists, in whatever case, and with or without the suffix .dcm."""
    name = path.as_posix().casefold()
    return name in names or f"{name}.dcm" in names


def _studies(directory: Path) -> list[list[tuple[int, Path]]]:
    """The images of each study of a DICOMDIR: the number of the record, and the file."""
    dataset = reading.read_dicom(directory, str(directory), [_RECORDS])
    studies: list[list[tuple[int, Path]]] = [[]]
    for number, record in enumerate(attributes.items(dataset, _RECORDS), start=1):
        kind = "".join(attributes.text_values(record, "DirectoryRecordType")).upper()
        parts = attributes.text_values(record, "ReferencedFileID")
        if kind == "STUDY":
            studies.append([])
        elif kind == "IMAGE" and parts and not {"..", ""} & set(parts):
            studies[-1].append((number, directory.parent.joinpath(*(part.lstrip("/\\") for part in parts))))
    return [study for study in studies if study]

"""A folder of DICOM files: its patients and studies, and how a table of reports is matched with the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domainclip.data.dicom import reading
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.guesses.profiles import ColumnProfile
from domainclip.data.readers.sources import dicom_folder
from domainclip.errors import UnreadableImage

_FILES = 300  # whose headers are read
# By how exactly they name an image.
_KEYS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "StudyID", "PatientID")
_WORDS = ("Modality", "BodyPartExamined", "ViewPosition", "StudyDescription", "SeriesDescription")
_KEYWORDS = (*_KEYS, *_WORDS, "NumberOfFrames", "PatientSex", "PatientAge")
_MIN_MATCHED = 0.3  # of the files


@dataclass(frozen=True)
class DicomFacts:
    """The headers of some files of a folder, by keyword; names and dates of persons are not read."""

    files: int
    headers: tuple[Mapping[str, str], ...]
    names: tuple[str, ...]  # of the files with these headers, relative to the folder
    texts: int = 0  # of these files that have a .txt beside them
    reports: int = 0  # structured reports among them

    def values(self, keyword: str) -> Counter[str]:
        """The values of an attribute; files without one are not counted."""
        return Counter(filter(None, (header.get(keyword, "") for header in self.headers)))

    @property
    def is_radiography(self) -> bool:
        """Whether all files are radiographs."""
        return self.values("Modality").keys() <= {"CR", "DX"}


def read_facts(root: Path) -> DicomFacts:
    """Read the headers of files at equal distances in the folder."""
    files = list(dicom_folder.walk_dicom(root, ReadLog()))
    headers, names, texts, reports = [], [], 0, 0
    for file in files[:: max(1, len(files) // _FILES)]:
        try:
            header = reading.read_header(file, list(_KEYWORDS))
        except UnreadableImage as error:
            reports += error.reason == "not an image (SR)"
            continue
        headers.append(header)
        names.append(file.relative_to(root).as_posix())
        texts += file.with_suffix(".txt").is_file() or file.with_name(f"{file.name}.txt").is_file()
    return DicomFacts(len(files), tuple(headers), tuple(names), texts, reports)


def guess_items(facts: DicomFacts) -> list[Guess]:
    """What an item is (a file or a study), its frames, and the group."""
    count, guesses = len(facts.headers), list[Guess]()
    studies, patients = facts.values("StudyInstanceUID"), facts.values("PatientID")
    if len(studies) < studies.total():
        guesses.append(
            Guess("options.study", "study", f"{len(studies)} studies in {count} headers: an item is a study")
        )
    frames = [
        value for value in facts.values("NumberOfFrames").elements() if value.isdecimal() and int(value) > 1
    ]
    if frames:
        guesses.append(Guess("options.frames", "key", f"{len(frames)} of {count} files have several frames"))
    if patients.total() > 0.9 * count and (len(patients) > 1 or len(studies) < 2):
        guesses.append(
            Guess(
                "columns.group",
                "PatientID",
                f"{len(patients)} patients in {count} headers: one is in one split only",
            )
        )
    elif len(studies) > 1:
        reason = f"PatientID has {len(patients)} values in {count} headers, StudyInstanceUID {len(studies)}"
        guesses.append(Guess("columns.group", "StudyInstanceUID", reason))
    return guesses


def guess_key(facts: DicomFacts, profiles: Sequence[ColumnProfile]) -> list[Guess]:
    """The column of a table that is matched with an attribute of the files, or with their names."""
    count = max(1, len(facts.headers))
    best: tuple[int, int, list[Guess]] | None = None
    for rank, keyword in enumerate(_KEYS):
        of_files = facts.values(keyword)
        for profile in profiles:
            matched = sum(n for value, n in of_files.items() if value in profile.counts)
            if matched >= _MIN_MATCHED * count and (best is None or (-matched, rank) < best[:2]):
                reason = f"its cells are the {keyword} of {matched} of {count} files"
                key = Guess("options.key", profile.name, reason)
                best = (-matched, rank, [key, Guess("options.attribute", keyword, reason)])
    for profile in profiles:
        forms = (_forms(name) for name in facts.names)
        matched = sum(any(form in profile.counts for form in of_file) for of_file in forms)
        if matched >= _MIN_MATCHED * count and (best is None or -matched < best[0]):
            reason = f"its cells are the names of {matched} of {count} files"
            best = (-matched, 0, [Guess("options.key", profile.name, reason)])
    return best[2] if best else []


def _forms(name: str) -> tuple[str, ...]:
    path = Path(name)
    return (name, str(path.with_suffix("")), path.name, path.stem)


def guess_captions(facts: DicomFacts) -> tuple[list[Guess], str]:
    """Captions where there is no table: texts beside the files or structured reports, else a template.

    The template, "" for texts, names attributes that most files have.
    """
    count = len(facts.headers)
    if facts.texts * 2 > count:
        return [Guess("columns.texts", ["text"], f"{facts.texts} of {count} files have a .txt")], ""
    if facts.reports:
        return [Guess("columns.texts", ["text"], f"{facts.reports} structured reports (SR)")], ""
    present = [word for word in _WORDS if facts.values(word).total() > 0.5 * count]
    if not present:
        return [], ""
    clauses = [f"{{{word}}}" for word in present]
    guesses = [Guess("columns.texts", [], "no table, no .txt, no report (SR)")]
    for word in ("BodyPartExamined", "Modality"):
        values = facts.values(word)
        if len(values) > 1 and values.total() > 0.5 * count:
            guesses.append(Guess("columns.labels", word, f"{len(values)} distinct values in {count} headers"))
            break
    return guesses, ", ".join(clauses)


def is_dicom_file(path: str) -> bool:
    """Whether a file is DICOM, by its content."""
    with suppress(OSError), Path(path).open("rb") as stream:
        return reading.is_dicom(stream.read(512))
    return False

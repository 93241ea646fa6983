"""Files as items: which frames of a file are its pictures, and which files make one item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from domainclip.data.dicom import frames
from domainclip.data.dicom.windowing import WindowChoice
from domainclip.data.files import locations
from domainclip.data.row_captions import cell_text
from domainclip.data.rows import SourceRow

GroupLevel = Literal["series", "study"]
_LEVELS = {"series": "SeriesInstanceUID", "study": "StudyInstanceUID"}
# What decides on frames and order, by keyword. None of it becomes a column unless the card names it.
KEYWORDS = (
    "NumberOfFrames",
    "RepresentativeFrameNumber",
    "ViewPosition",
    "SeriesNumber",
    "InstanceNumber",
    *_LEVELS.values(),
)
# The view that an item shows first: of a chest the frontal one, of a breast the one from above.
_FIRST = ("PA", "AP", "CC")


@dataclass(frozen=True)
class DicomFile:
    """One file with what its report says."""

    source: SourceRow
    attributes: Mapping[str, str]  # KEYWORDS and more; empty for a file that is not there

    def with_report(self, report: Mapping[str, Any]) -> DicomFile:
        """The same file with what a report says of it, column by column."""
        return replace(self, source=replace(self.source, values={**self.source.values, **report}))


def select_frames(
    source: SourceRow, attributes: Mapping[str, str], policy: frames.FramePolicy, window: WindowChoice
) -> SourceRow:
    """The source with the frames that the policy shows: the first as its image, the others as views.

    What its path says itself, as in `heart.dcm#frame=12`, goes before policy and window.
    """
    path, said = locations.split_location(str(source.image["path"]))
    count = _whole(attributes.get("NumberOfFrames")) or 1
    chosen = frames.select_frames(policy, count, _whole(attributes.get("RepresentativeFrameNumber")))
    shown = [said["frame"]] if "frame" in said else [str(at) for at in chosen]
    pictures = [_picture(path, frame, said.get("window", str(window))) for frame in shown]
    return replace(source, image=pictures[0], views=pictures[1:])


def group_files(
    files: Sequence[DicomFile], level: GroupLevel | None, text_columns: Sequence[str]
) -> Iterator[SourceRow]:
    """One source an item. Files of one study, or series, become one, in the order of the first of each.

    Inside: the frontal view first, then by SeriesNumber and InstanceNumber. Captions of all its files count;
    every other column is that of the first file that has it.
    """
    groups: dict[str, list[DicomFile]] = {}
    for number, file in enumerate(files):
        uid = file.attributes.get(_LEVELS[level], "") if level else ""
        groups.setdefault(uid or f"file {number}", []).append(file)
    for group in groups.values():
        yield _merged([file.source for file in sorted(group, key=_order)], text_columns)


def _merged(sources: Sequence[SourceRow], text_columns: Sequence[str]) -> SourceRow:
    if len(sources) == 1:
        return sources[0]
    values: dict[str, Any] = {}
    for name in dict.fromkeys(name for source in sources for name in source.values):
        held = [source.values.get(name) for source in sources]
        texts = list(dict.fromkeys(text for text in _texts(held) if text))
        values[name] = texts if name in text_columns else next(iter(texts), "")
    pictures = [picture for source in sources for picture in (source.image, *source.views)]
    return replace(sources[0], values=values, image=pictures[0], views=pictures[1:])


def _texts(cells: Iterable[Any]) -> Iterator[str]:
    for cell in cells:
        yield from map(cell_text, cell if isinstance(cell, (list, tuple)) else [cell])


def _order(file: DicomFile) -> tuple[int, int, int, str]:
    view = file.attributes.get("ViewPosition", "").upper()
    series, instance = (_whole(file.attributes.get(word)) or 0 for word in ("SeriesNumber", "InstanceNumber"))
    return _FIRST.index(view) if view in _FIRST else len(_FIRST), series, instance, file.source.name


def _picture(path: str, frame: str, window: str) -> dict[str, Any]:
    said = {"frame": frame, "window": window}  # the first of each goes without saying
    return {
        "path": locations.join_location(path, {key: one for key, one in said.items() if one != "0"}),
        "bytes": None,
    }


def _whole(value: str | None) -> int | None:
    return int(value) if value and value.isdecimal() else None

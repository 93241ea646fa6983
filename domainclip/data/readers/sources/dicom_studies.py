"""DICOM files as items: the frames of a file that are its images, and the files that make one item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from domainclip.data.dicom import frames
from domainclip.data.dicom.attributes import parse_number
from domainclip.data.dicom.windowing import WindowChoice
from domainclip.data.files import locations
from domainclip.data.rows import SourceRow
from domainclip.data.text.cells import distinct_cells

GroupLevel = Literal["series", "study"]
_LEVELS = {"series": "SeriesInstanceUID", "study": "StudyInstanceUID"}
# The attributes that determine frames and order, by keyword; columns only where the card names them.
KEYWORDS = (
    "NumberOfFrames",
    "RepresentativeFrameNumber",
    "ViewPosition",
    "SeriesNumber",
    "InstanceNumber",
    *_LEVELS.values(),
)
# The first view of an item: of a chest the frontal one, of a breast the one from above.
_FIRST = ("PA", "AP", "CC")


@dataclass(frozen=True)
class DicomFile:
    """One file with the columns of its report."""

    source: SourceRow
    attributes: Mapping[str, str]  # KEYWORDS and more; empty for a missing file

    def with_report(self, report: Mapping[str, Any]) -> DicomFile:
        """The same file with the columns of a report."""
        return replace(self, source=replace(self.source, values={**self.source.values, **report}))

    def in_row(self, number: int) -> DicomFile:
        """The same file, which messages name by its row of the table of reports, too."""
        location = f"row {number} ({self.source.location})"
        return replace(self, source=replace(self.source, location=location))


def select_frames(
    source: SourceRow, attributes: Mapping[str, str], policy: frames.FramePolicy, window: WindowChoice
) -> SourceRow:
    """The source with the frames that the policy shows: the first as its image, the others as views.

    Options in the path, as in `heart.dcm#frame=12`, take precedence over policy and window.
    """
    path, options = locations.split_location(str(source.image["path"]))
    count = int(_number(attributes.get("NumberOfFrames")) or 1)
    representative = _number(attributes.get("RepresentativeFrameNumber"))
    chosen = frames.select_frames(policy, count, None if representative is None else int(representative))
    shown = [options["frame"]] if "frame" in options else [str(at) for at in chosen]
    images = [_image(path, frame, options.get("window", str(window))) for frame in shown]
    return replace(source, image=images[0], views=images[1:])


def group_files(
    files: Sequence[DicomFile], level: GroupLevel | None, text_columns: Sequence[str]
) -> Iterator[SourceRow]:
    """One row per item. Files of one study, or series, become one item, in the order of the first of each.

    In an item: the frontal view first, then by SeriesNumber and InstanceNumber. Captions come from all its
    files; every other column is that of the first file that has a value.
    """
    groups: dict[str, list[DicomFile]] = {}
    for number, file in enumerate(files):
        uid = file.attributes.get(_LEVELS[level], "") if level else ""
        groups.setdefault(uid or f"file {number}", []).append(file)
    for group in groups.values():
        yield _merge([file.source for file in sorted(group, key=_order)], text_columns)


def _merge(sources: Sequence[SourceRow], text_columns: Sequence[str]) -> SourceRow:
    if len(sources) == 1:
        return sources[0]
    values: dict[str, Any] = {}
    for name in dict.fromkeys(name for source in sources for name in source.values):
        cells = [source.values.get(name) for source in sources]
        distinct = distinct_cells(cells)
        values[name] = distinct if name in text_columns else next(iter(distinct), "")
    images = [image for source in sources for image in (source.image, *source.views)]
    return replace(sources[0], values=values, image=images[0], views=images[1:])


def _order(file: DicomFile) -> tuple[int, float, float, str]:
    view = file.attributes.get("ViewPosition", "").upper()
    series, instance = (
        _number(file.attributes.get(word)) or 0 for word in ("SeriesNumber", "InstanceNumber")
    )
    return _FIRST.index(view) if view in _FIRST else len(_FIRST), series, instance, file.source.name


def _image(path: str, frame: str, window: str) -> dict[str, Any]:
    options = {"frame": frame, "window": window}  # 0, the default, is omitted
    return {
        "path": locations.join_location(path, {key: value for key, value in options.items() if value != "0"}),
        "bytes": None,
    }


def _number(value: str | None) -> float | None:
    return parse_number(value or "")

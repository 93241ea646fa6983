"""Checks of images: unreadable, blank, small, rotated; missing decoders; text burned into the pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from domainclip.data.batching.item_columns import derived_column
from domainclip.data.checks.findings import MAX_LOCATIONS, Finding, Level
from domainclip.data.corpus import Corpus
from domainclip.data.dicom import decoders, doubts, reading
from domainclip.data.files import locations
from domainclip.data.files.mapped_tables import MappedTexts, look_up
from domainclip.data.images import inspection
from domainclip.data.images.alignment import detail_level
from domainclip.data.images.corpus_images import CorpusImages, Position, positions_in
from domainclip.data.images.perceptual_hashes import THUMBNAIL_SIDE
from domainclip.data.quarantine import UnusableItem, count_reasons, raise_max_unusable
from domainclip.data.schema import SPLITS
from domainclip.distributed.phases import phase

_MAX_ENLARGED = 0.05  # share of images enlarged by more than twice, above which the finding is a warning
_HEAD_BYTES = 132  # enough to recognise a DICOM file
_ROWS, _PART = 2048, 32  # rows that are read at once, and files that a thread opens one after another


@dataclass(frozen=True)
class InspectedCorpus:
    """The inspected images of all splits and views; methods take the index of an image."""

    corpus: Corpus
    positions: Sequence[Position]
    images: CorpusImages
    digests: Sequence[str]
    inspections: np.ndarray  # (n,) inspection.INSPECTION
    complete: bool  # all images of the corpus
    ids: Mapping[str, Sequence[str]]  # by split, of items
    groups: Mapping[str, Sequence[str]]  # by split, of items

    def split(self, index: int) -> str:
        """The split of an image."""
        return self.positions[index].split

    def item(self, index: int) -> str:
        """The id of an image's item."""
        return self.ids[self.positions[index].split][self.positions[index].row]

    def group(self, index: int) -> str:
        """The group of an image's item."""
        return self.groups[self.positions[index].split][self.positions[index].row]

    def location(self, index: int) -> str:
        """The location of an image in the source: "row 3", "row 3 view 1"."""
        id, view = self.item(index), self.positions[index].view
        return self.corpus.locations.get(id, f"item {id}") + (f" view {view}" if view else "")

    def count_text(self) -> str:
        """The number of images, for messages: "12 images", "12 inspected images"."""
        return f"{len(self.positions)} {'images' if self.complete else 'inspected images'}"


@phase("inspecting images")
def inspect_corpus(corpus: Corpus, sample: int | None, workers: int = 0) -> InspectedCorpus:
    """Inspect all images (`sample` None), or `sample` of them, spread evenly over the corpus.

    If all inspections are in the cache, all are used.
    """
    ids, groups = (
        {name: derived_column(corpus.splits[name], [column], str) for name in SPLITS}
        for column in ("id", "group")
    )
    complete = inspects_all(corpus, sample)
    positions = positions_in(ids, corpus.view_digests, None if complete else sample)
    digests = list(_digests_at(corpus, positions, ids, complete))
    images = CorpusImages(corpus.splits, positions)
    return InspectedCorpus(
        corpus,
        positions,
        images,
        digests,
        inspection.inspect_images(images, digests, workers),
        complete,
        ids,
        groups,
    )


def inspects_all(corpus: Corpus, sample: int | None) -> bool:
    """Whether all images of a corpus are inspected, and not `sample` of them alone."""
    if sample is None or count_images(corpus) <= sample:
        return True
    return inspection.is_inspection_cached(image_digests(corpus))


def count_images(corpus: Corpus) -> int:
    """The images of a corpus, views included."""
    return sum(map(len, corpus.splits.values())) + sum(map(len, corpus.view_digests.values()))


def image_digests(corpus: Corpus) -> Iterator[str]:
    """The digest of every image, views included, in order."""
    return (digest for _, _, digests in digests_of_items(corpus) for digest in digests)


def digests_of_items(corpus: Corpus) -> Iterator[tuple[str, str, list[str]]]:
    """Split, id and the digests of the images of every item."""
    first = _first_digests(corpus)
    for name in SPLITS:
        for id in derived_column(corpus.splits[name], ["id"], str):
            yield name, id, [next(first), *_view_digests(corpus, id)]


def _digests_at(
    corpus: Corpus, positions: Sequence[Position], ids: Mapping[str, Sequence[str]], complete: bool
) -> Iterator[str]:
    """The digest of each image."""
    if complete:
        return image_digests(corpus)
    items = ((ids[at.split][at.row], at.view) for at in positions)
    return ([corpus.digests.get(id, id), *_view_digests(corpus, id)][view] for id, view in items)


def _first_digests(corpus: Corpus) -> Iterator[str]:
    """The digest of the image of every item, in order; of one without, its id."""
    ids = (id for name in SPLITS for id in derived_column(corpus.splits[name], ["id"], str))
    if isinstance(corpus.digests, MappedTexts):
        return look_up(corpus.digests, ids)
    return (corpus.digests.get(id, id) for id in ids)


def _view_digests(corpus: Corpus, id: str) -> Sequence[str]:
    return corpus.view_digests.get(id, ()) if len(corpus.view_digests) else ()


def unreadable_images(inspected: InspectedCorpus) -> Iterator[Finding]:
    """Images that cannot be decoded."""
    card = inspected.corpus.card
    reasons = [reason.decode() for reason in inspected.inspections["reason"]]
    unreadable = [
        UnusableItem(inspected.location(index), reason) for index, reason in enumerate(reasons) if reason
    ]
    if not unreadable:
        return
    first = ", ".join(f"{item.location} ({item.reason})" for item in unreadable[:MAX_LOCATIONS])
    too_many = len(unreadable) > card.max_unusable * len(reasons)
    remedy = f"; {raise_max_unusable(len(unreadable), len(reasons))}" if too_many else ""
    yield Finding(
        "error" if too_many else "warning",
        f"{len(unreadable)} of {inspected.count_text()} cannot be read "
        f"({len(unreadable) / len(reasons):.1%}, limit {card.max_unusable:.1%}): "
        f"{count_reasons(unreadable)}; first: {first}{remedy}",
        "unreadable_images",
        len(unreadable),
        tuple(item.location for item in unreadable),
    )


def blank_images(inspected: InspectedCorpus) -> Iterator[Finding]:
    """Images of a single grey level, and images with too little detail to be compared with others."""
    inspections = inspected.inspections
    blank = np.flatnonzero(inspections["blank"])
    if len(blank):
        where = tuple(inspected.location(index) for index in blank.tolist())
        text = (
            f"{len(blank)} of {inspected.count_text()} are blank; first: {', '.join(where[:MAX_LOCATIONS])}; "
            "leave them out, or set corpus.checks.blank_images=info"
        )
        yield Finding("warning", text, "blank_images", len(blank), where)
    usable = (inspections["reason"] == b"") & ~inspections["blank"]
    small = usable & (np.minimum(inspections["width"], inspections["height"]) < THUMBNAIL_SIDE)
    plain = usable & ~small & (detail_level(inspections["thumbnail"]) < 1)
    if small.any() or plain.any():
        yield Finding(
            "info",
            f"{int(small.sum())} images with a side below {THUMBNAIL_SIDE} pixels and "
            f"{int(plain.sum())} without any detail are compared byte for byte only",
            "not_compared",
            int(small.sum() + plain.sum()),
        )


def image_sizes(inspected: InspectedCorpus, side: int | None) -> Iterator[Finding]:
    """Sizes and stored modes of the images, and those that are enlarged to the base's `side`, in pixels."""
    readable = inspected.inspections[inspected.inspections["reason"] == b""]
    if not len(readable):
        return
    short = np.minimum(readable["width"], readable["height"])
    modes = Counter(mode.decode() or "other" for mode in readable["mode"])
    stored = ", ".join(f"{number} {mode}" for mode, number in modes.most_common())
    text = (
        f"short sides of {short.min()} to {short.max()} pixels, half of them at most "
        f"{int(np.median(short))}; stored as {stored}"
    )
    if rotated := int(readable["rotated"].sum()):
        text += f"; {rotated} rotated upright by EXIF"
    if animated := int(readable["animated"].sum()):
        text += f"; {animated} animated, of which the first frame is used"
    yield Finding("info", text, "image_sizes", len(readable))
    if side is None:
        return
    enlarged, doubled = int((short < side).sum()), int((short * 2 < side).sum())
    if enlarged:
        level: Level = "warning" if doubled > _MAX_ENLARGED * len(readable) else "info"
        text = (
            f"{enlarged} of {inspected.count_text()} are enlarged to {side} pixels, {doubled} of them more "
        )
        yield Finding(level, f"{text}than twice", "small_images", enlarged)


def missing_decoders(files: Sequence[str]) -> Iterator[Finding]:
    """DICOM transfer syntaxes that no installed library decodes, with the command that installs one."""
    for row in decoders.decoder_table(files):
        if not row.decoder:
            text = f"no decoder for {row.syntax}: {row.files} files; {row.install}"
            yield Finding("warning", text, "missing_decoder", row.files)


def unused_attributes(files: Sequence[str]) -> Iterator[Finding]:
    """Attributes of DICOM headers that are not allowed, or missing: the image is shown without them."""
    counts = doubts.count_doubts(files)
    if counts:
        named = ", ".join(f"{number} {doubt}" for doubt, number in counts.most_common())
        text = (
            f"DICOM attributes that are not used, of {len(files)} files: {named}; the images are shown "
            "without them: look at these images with domainclip data preview"
        )
        yield Finding("warning", text, "unused_attributes", max(counts.values()))


def burned_in_text(corpus: Corpus, files: Sequence[str]) -> Iterator[Finding]:
    """Text burned into the pixels, according to the card and to the DICOM files."""
    declared = corpus.card.privacy.burned_in_text
    tags = reading.count_burned_in(files)
    tag_counts = ", ".join(f"{number} {value}" for value, number in tags.items() if number)
    text = f"burned-in text: {declared} according to the card"
    text += f"; BurnedInAnnotation: {tag_counts}" if tag_counts else ""
    contradiction = declared == "no" and tags.get("YES", 0) > 0
    if contradiction:
        text += "; inspect them, and set privacy.burned_in_text to yes or unknown in the card"
    yield Finding("warning" if contradiction else "info", text, "burned_in_text", tags.get("YES", 0))


def dicom_files(corpus: Corpus) -> set[str]:
    """The DICOM files of a corpus, also those inside tars, recognised by their content."""
    found: set[str] = set()
    with ThreadPoolExecutor(16) as pool:  # almost all of the time is waiting for a disk or a file server
        for name in SPLITS:
            # Arrow columns, of which only paths are converted: a row may contain whole images.
            rows = corpus.splits[name].select_columns(["image", "views"]).with_format("arrow")
            for batch in rows.iter(_ROWS):
                columns = (batch["image"].combine_chunks(), batch["views"].combine_chunks().flatten())
                paths = [path for images in columns for path in _file_paths(images)]
                files = list(dict.fromkeys(map(locations.resolve_location, paths)))
                parts = [files[start : start + _PART] for start in range(0, len(files), _PART)]
                found.update(*pool.map(_dicom_among, parts))
    return found


def _file_paths(images: pa.StructArray) -> list[str]:
    """The paths of images that are not given as bytes."""
    has_bytes = images.field("bytes").is_valid()
    pairs = zip(images.field("path").to_pylist(), has_bytes.to_pylist(), strict=True)
    return [path for path, in_memory in pairs if path and not in_memory]


def _dicom_among(files: Sequence[str]) -> list[str]:
    """The DICOM files among some; those that cannot be read are none."""
    heads = zip(files, locations.read_heads(files, _HEAD_BYTES), strict=True)
    return [file for file, head in heads if head is not None and reading.is_dicom(head)]

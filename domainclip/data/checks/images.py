"""Pictures as they are: unreadable, blank, small, turned; decoders that are missing; text burned in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from domainclip.data.checks.findings import MAX_PLACES, Finding, Level
from domainclip.data.corpus import Corpus
from domainclip.data.dicom import decoders as dicom_decoders
from domainclip.data.dicom import reading
from domainclip.data.files import locations
from domainclip.data.images import inspection
from domainclip.data.images.alignment import detail_level
from domainclip.data.images.perceptual_hashes import THUMBNAIL_SIDE
from domainclip.data.quarantine import UnusableItem, count_reasons
from domainclip.data.schema import SPLITS

_MAX_ENLARGED = 0.05  # of the pictures enlarged by more than twice: worth a warning


class CorpusImages:
    """Pictures of a corpus, each read from its row when it is asked for: a row may hold a file whole."""

    def __init__(self, corpus: Corpus, at: Sequence[tuple[str, int, int]]) -> None:
        self._rows = {name: corpus.splits[name].select_columns(["image", "views"]) for name in SPLITS}
        self._at = at

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, place: int) -> dict[str, Any]:
        split, row, view = self._at[place]
        found: dict[str, Any] = self._rows[split][row]
        image: dict[str, Any] = found["views"][view - 1] if view else found["image"]
        return image


@dataclass(frozen=True)
class InspectedCorpus:
    """The pictures that were looked at, of all splits and views."""

    corpus: Corpus
    at: Sequence[tuple[str, int, int]]  # split, row, view
    images: CorpusImages
    digests: Sequence[str]
    looks: np.ndarray
    whole: bool  # all pictures of the corpus
    ids: dict[str, list[str]]
    groups: dict[str, list[str]]

    def split(self, row: int) -> str:
        """The split that a picture is in."""
        return self.at[row][0]

    def item(self, row: int) -> str:
        """The id of a picture's item."""
        return self.ids[self.at[row][0]][self.at[row][1]]

    def group(self, row: int) -> str:
        """The group of a picture's item."""
        return self.groups[self.at[row][0]][self.at[row][1]]

    def place(self, row: int) -> str:
        """Where a picture's item stands in the source: "row 3", "row 3 view 1"."""
        id, view = self.item(row), self.at[row][2]
        return self.corpus.locations.get(id, f"item {id}") + (f" view {view}" if view else "")

    def said(self) -> str:
        """How many pictures there are, or were looked at."""
        return f"{len(self.at)} pictures" + ("" if self.whole else " looked at")


def inspect_corpus(corpus: Corpus, sample: int | None, workers: int = 0) -> InspectedCorpus:
    """Looks at all pictures, or at `sample` of them, spread evenly over the corpus.

    What the cache holds already costs nothing, and is taken whole.
    """
    at: list[tuple[str, int, int]] = []
    digests: list[str] = []
    ids = {name: corpus.splits[name]["id"][:] for name in SPLITS}
    for name in SPLITS:
        for row, id in enumerate(ids[name]):
            for view, digest in enumerate([corpus.digests.get(id, id), *corpus.view_digests.get(id, [])]):
                at.append((name, row, view))
                digests.append(digest)
    whole = sample is None or len(at) <= sample or inspection.cached_inspection(digests)
    if sample is not None and not whole:
        chosen = [i * len(at) // sample for i in range(sample)]
        at, digests = [at[i] for i in chosen], [digests[i] for i in chosen]
    images = CorpusImages(corpus, at)
    groups = {name: corpus.splits[name]["group"][:] for name in SPLITS}
    return InspectedCorpus(
        corpus, at, images, digests, inspection.inspect_images(images, digests, workers), whole, ids, groups
    )


def unreadable_images(seen: InspectedCorpus) -> Iterator[Finding]:
    """Pictures that no decoder reads."""
    card = seen.corpus.card
    reasons = [reason.decode() for reason in seen.looks["reason"]]
    bad = [UnusableItem(seen.place(row), reason) for row, reason in enumerate(reasons) if reason]
    if not bad:
        return
    first = ", ".join(f"{item.location} ({item.reason})" for item in bad[:MAX_PLACES])
    yield Finding(
        "error" if len(bad) > card.max_unusable * len(reasons) else "warning",
        f"{len(bad)} of {seen.said()} cannot be read ({len(bad) / len(reasons):.1%}, limit "
        f"{card.max_unusable:.1%}): {count_reasons(bad)}; first: {first}; mend them or raise "
        "corpus.max_unusable",
        "unreadable_pictures",
        len(bad),
        tuple(item.location for item in bad[:MAX_PLACES]),
    )


def blank_images(seen: InspectedCorpus) -> Iterator[Finding]:
    """Pictures in which nothing is to be seen, and those with too little in them to be compared."""
    rows = np.flatnonzero(seen.looks["blank"])
    if len(rows):
        where = tuple(seen.place(row) for row in rows[:MAX_PLACES])
        text = f"{len(rows)} of {seen.said()} are blank; first: {', '.join(where)}"
        yield Finding("warning", text, "blank_pictures", len(rows), where)
    fine = (seen.looks["reason"] == b"") & ~seen.looks["blank"]
    small = fine & (np.minimum(seen.looks["width"], seen.looks["height"]) < THUMBNAIL_SIDE)
    plain = fine & ~small & (detail_level(seen.looks["thumbnail"]) < 1)
    if small.any() or plain.any():
        yield Finding(
            "info",
            f"{int(small.sum())} pictures with a side below {THUMBNAIL_SIDE} pixels and "
            f"{int(plain.sum())} without any detail are compared byte for byte only",
            "not_compared",
            int(small.sum() + plain.sum()),
        )


def image_sizes(seen: InspectedCorpus, side: int | None) -> Iterator[Finding]:
    """Pictures that the base sees enlarged, those turned by EXIF, and the modes of the files."""
    good = seen.looks[seen.looks["reason"] == b""]
    if not len(good):
        return
    short = np.minimum(good["width"], good["height"])
    said = (
        f"short sides of {short.min()} to {short.max()} pixels, half of them at most {int(np.median(short))}"
    )
    modes = Counter(mode.decode() or "other" for mode in good["mode"])
    stored = ", ".join(f"{number} {mode}" for mode, number in modes.most_common())
    turned = f"; {int(good['rotated'].sum())} turned upright by EXIF" if good["rotated"].any() else ""
    moving = int(good["animated"].sum())
    turned += f"; {moving} animated, shown by their first frame" if moving else ""
    yield Finding("info", f"{said}; stored as {stored}{turned}", "picture_sizes", len(good))
    if side is None:
        return
    enlarged, soft = int((short < side).sum()), int((short * 2 < side).sum())
    if enlarged:
        level: Level = "warning" if soft > _MAX_ENLARGED * len(good) else "info"
        text = f"{enlarged} of {seen.said()} are enlarged to {side} pixels, {soft} of them more than twice"
        yield Finding(level, text, "small_pictures", enlarged)


def missing_decoders(files: Sequence[str]) -> Iterator[Finding]:
    """DICOM transfer syntaxes that nothing installed can read, with the line that installs it."""
    for row in dicom_decoders.decoder_table(files):
        if not row.decoder:
            text = f"no decoder for {row.syntax}: {row.files} files; {row.install}"
            yield Finding("warning", text, "missing_decoder", row.files)


def burned_in_text(corpus: Corpus, files: Sequence[str]) -> Iterator[Finding]:
    """What the card and the files say of text that is part of the pixels."""
    said = corpus.card.privacy.burned_in_text
    tags = reading.count_burned_in(files)
    held = ", ".join(f"{number} {value}" for value, number in tags.items() if number)
    text = f"burned-in text: the card says {said}" + (f"; BurnedInAnnotation: {held}" if held else "")
    clash = said == "no" and tags.get("YES", 0) > 0
    if clash:
        text += "; look at them, and say yes or unknown in the card"
    yield Finding("warning" if clash else "info", text, "burned_in_text", tags.get("YES", 0))


def dicom_files(corpus: Corpus) -> set[str]:
    """The DICOM files of a corpus, those inside tars as well, known by their content."""
    named: dict[str, None] = {}
    for name in SPLITS:
        # Columns of Arrow, of which paths alone are taken: a row may hold its pictures whole.
        for some in corpus.splits[name].select_columns(["image", "views"]).with_format("arrow").iter(1024):
            for pictures in (some["image"].combine_chunks(), some["views"].combine_chunks().flatten()):
                named |= dict.fromkeys(locations.resolve_location(path) for path in _file_paths(pictures))
    with ThreadPoolExecutor(16) as pool:  # waiting for a disk or a file server is all the work there is
        return {file for file, told in zip(named, pool.map(_is_dicom, named), strict=True) if told}


def _file_paths(pictures: pa.StructArray) -> list[str]:
    """Of those that are not held as bytes."""
    held = pictures.field("bytes").is_valid()
    pairs = zip(pictures.field("path").to_pylist(), held.to_pylist(), strict=True)
    return [path for path, here in pairs if path and not here]


def _is_dicom(path: str) -> bool:
    try:
        return reading.is_dicom(locations.read_location(path, 132))
    except OSError:
        return False

"""A folder of images without a table: texts beside them, folders as classes, keywords of FITS headers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from domainclip.data.files import corpus_folder, locations
from domainclip.data.images.fits_header import PREFIX, HeaderColumns
from domainclip.data.images.fits_settings import HEAD_BYTES, is_fits
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.sources import image_files
from domainclip.data.splits import is_split, parse_split
from domainclip.data.text.class_names import kind

_MIN_EACH = 3  # images of a class, on average
_MAX_CLASSES = 1000
_TEXTS = 200  # that are read
_HEADERS = 50  # of FITS files that are read
_ID = re.compile(r"(?=.*\d)[\d._-]+|[0-9a-f]{8,}|\d+(?:\.\d+){3,}", re.IGNORECASE)
_CAPTION_KEYWORDS = ("OBJECT", "TARGNAME", "OBJNAME", "FILTER", "TELESCOP", "INSTRUME")
_CLASS_KEYWORDS = ("OBJTYPE", "OBJ_TYPE", "OBJCLASS", "CLASS", "TYPE")


@dataclass(frozen=True)
class FolderGuess:
    """What a folder of images shows."""

    images: int
    guesses: tuple[Guess, ...] = ()
    texts: tuple[str, ...] = ()  # some captions
    classes: Counter[str] = field(default_factory=Counter)  # images of each class
    files: Literal["fits", ""] = ""
    template: str = ""  # of the captions, where keywords of headers make them

    @property
    def usable(self) -> bool:
        """Whether there are captions or classes to train on."""
        return bool(self.texts or self.classes or self.template)


def guess_folder(root: Path) -> FolderGuess:
    """The guesses for a folder of images, read as `reader: folder` reads it."""
    files = list(corpus_folder.walk_files(root))
    images = image_files.select_images(files)
    if not images:
        return FolderGuess(0)
    names = [image.relative_to(root).as_posix() for image in images]
    guesses: list[Guess] = []
    has_splits = all(is_split(name.partition("/")[0]) for name in names if "/" in name) and "/" in names[0]
    if has_splits:
        sizes = Counter(name.partition("/")[0] for name in names)
        listed = ", ".join(f"{n} {name}" for name, n in sorted(sizes.items()))
        if len(sizes) > 1 or parse_split(next(iter(sizes)), "") != "train":
            guesses.append(Guess("splits", "folders", f"the outermost folders name splits ({listed})"))
        else:
            guesses.append(
                Guess("options.split_names", False, f"all images are in the folder {listed.split()[1]}")
            )
    classes = _guess_classes(names, has_splits, guesses)
    texts, with_text = _texts(images)
    if texts:
        guesses.insert(
            0, Guess("columns.texts", ["text"], f"{with_text} of {len(images)} images have a .txt", texts[:3])
        )
    fits = [image for image in images if is_fits_file(image)]
    if len(fits) * 2 < len(images):
        return FolderGuess(len(images), tuple(guesses), texts, classes)
    return _with_headers(len(images), fits, guesses, texts, classes)


def _guess_classes(names: Sequence[str], has_splits: bool, guesses: list[Guess]) -> Counter[str]:
    """The images of each class, by the first level of folders whose names may be classes."""
    paths = [PurePosixPath(name).parts[:-1][has_splits:] for name in names]
    depth = min(map(len, paths), default=0)
    levels = [Counter(path[level] for path in paths) for level in range(depth)]
    for level, counts in enumerate(levels):
        if len(counts) < 2:
            continue  # a folder around all others
        again = levels[level + 1] if level + 1 < depth else Counter[str]()
        if _recur(paths, level) and _are_classes(again, len(names)):
            guesses.append(
                Guess(
                    "columns.source",
                    f"folder_{level + 1}",
                    f"{len(counts)} folders that hold the same folders",
                )
            )
            guesses.append(_labels(level + 1, again))
            return again
        if not _are_classes(counts, len(names)):
            return Counter()
        guesses.append(_labels(level, counts))
        return counts
    return Counter()


def _labels(level: int, counts: Counter[str]) -> Guess:
    reason = f"{len(counts)} folders with {min(counts.values())} to {max(counts.values())} images"
    # The first level is the column `label`, in which underscores are spaces.
    column = "label" if level == 0 else f"folder_{level + 1}"
    return Guess("columns.labels", column, reason, tuple(name for name, _ in counts.most_common(3)))


def _recur(paths: Sequence[tuple[str, ...]], level: int) -> bool:
    """Whether the folders of the next level are the same ones in most folders of this level."""
    around: dict[str, set[str]] = {}
    for path in paths:
        if len(path) > level + 1:
            around.setdefault(path[level + 1], set()).add(path[level])
    return bool(around) and sum(len(outer) > 1 for outer in around.values()) * 2 > len(around)


def _are_classes(counts: Counter[str], images: int) -> bool:
    ids = sum(bool(_ID.fullmatch(name)) or kind(name) == "wrapper" for name in counts)
    return 2 <= len(counts) <= _MAX_CLASSES and images >= _MIN_EACH * len(counts) and ids * 2 < len(counts)


def _texts(images: Sequence[Path]) -> tuple[tuple[str, ...], int]:
    """Some of the texts beside the images, and how many images have one."""
    texts, count = list[str](), 0
    for image in images:
        stem = image.name.removesuffix(image_files.image_suffix(image)) or image.stem
        beside = (image.with_name(f"{stem}.txt"), image.with_name(f"{image.name}.txt"))
        file = next((path for path in beside if path.is_file()), None)
        count += file is not None
        if file is not None and len(texts) < _TEXTS:
            with suppress(OSError, UnicodeDecodeError):
                texts += [
                    line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()
                ]
    return (tuple(texts), count) if count * 2 > len(images) else ((), count)


def is_fits_file(file: Path) -> bool:
    """Whether a file is named as a FITS file and begins like one."""
    if not image_files.image_suffix(file).startswith((".fi", ".ft", ".fz")):
        return False
    with suppress(OSError):
        return is_fits(locations.read_location(str(file), HEAD_BYTES))
    return False


def _with_headers(
    images: int, fits: Sequence[Path], guesses: list[Guess], texts: tuple[str, ...], classes: Counter[str]
) -> FolderGuess:
    """The guesses, with keywords of FITS headers as groups, and as classes and captions without others."""
    keywords = (*_CAPTION_KEYWORDS, *_CLASS_KEYWORDS)
    columns = HeaderColumns([f"{PREFIX}{keyword}" for keyword in keywords])
    step = max(1, len(fits) // _HEADERS)
    values = [columns.read({"path": str(file), "bytes": None}) for file in fits[::step]]
    present = {column: Counter(filter(None, (row[column] for row in values))) for column in columns.columns}
    common = {column: counts for column, counts in present.items() if counts.total() > 0.8 * len(values)}
    if not texts:  # a header names the class more surely than a folder does
        column = next(
            (f"{PREFIX}{k}" for k in _CLASS_KEYWORDS if len(common.get(f"{PREFIX}{k}", ())) > 1), ""
        )
        if column:
            guesses[:] = [guess for guess in guesses if guess.key != "columns.labels"]
            guesses.append(
                Guess(
                    "columns.labels",
                    column,
                    f"{len(common[column])} distinct values in {len(values)} headers",
                )
            )
            classes = common[column]
    objects = next((f"{PREFIX}{k}" for k in _CAPTION_KEYWORDS[:3] if f"{PREFIX}{k}" in common), "")
    if objects:
        reason = (
            f"{len(common[objects])} distinct values in {len(values)} headers: an object is in one split only"
        )
        guesses.append(Guess("columns.group", objects, reason))
    template = ""
    if not texts and objects:
        clauses = [objects, *(f"{PREFIX}{k}" for k in ("FILTER", "TELESCOP") if f"{PREFIX}{k}" in common)]
        template = ", ".join(f"{{{clause}}}" for clause in clauses)
        if classes:
            template = f"{{label}}. {template}"
    return FolderGuess(images, tuple(guesses), texts, classes, "fits", template)

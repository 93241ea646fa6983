"""General images without texts, for objectives that hold the model near the base on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from domainclip import seeding
from domainclip.components import WeightedObjectives
from domainclip.config.recipe import Recipe
from domainclip.data.corpus import Corpus
from domainclip.data.files.corpus_folder import walk_files
from domainclip.data.images.dead_leaves import dead_leaves
from domainclip.data.images.digests import EMPTY_FILE, MISSING_FILE, image_digests
from domainclip.data.readers.sources.image_files import select_images
from domainclip.data.rows import Item, to_dataset
from domainclip.errors import DataError
from domainclip.pipelines.mixed_corpora import measured_digests, refuse_measured

_KEY = "anchor_images.path"


@dataclass(frozen=True)
class AnchorImageSet:
    """The images of a run, in the standard columns; their captions are empty, and are not encoded."""

    items: Dataset
    digests: tuple[str, ...]  # of each image
    note: str  # what they are, for the user


def load_anchor_images(
    recipe: Recipe, objectives: WeightedObjectives, corpus: Corpus, retention: Corpus | None
) -> AnchorImageSet | None:
    """The anchor images; None where no objective asks for them.

    Raises: DataError for a folder with fewer images than a step shows, or with images that are measured.
    """
    if "anchor_image" not in objectives.needs:
        return None
    settings, seed = recipe.anchor_images, recipe.train.seed
    if settings.path is None:
        cells: list[dict[str, Any]] = [
            {"path": None, "bytes": dead_leaves(i, seed)} for i in range(settings.count)
        ]
        digests, source = tuple(image_digests(cells)), "generated, since anchor_images.path is null"
    else:
        cells, digests, source = _of_folder(Path(settings.path), settings.count, settings.per_step)
    refuse_measured(_KEY, measured_digests(corpus, retention), ([digest] for digest in digests))
    items = [
        Item(f"anchor image {i}", cell, [""], [""], [], str(i), str(i), {}, "train", f"anchor image {i}")
        for i, cell in enumerate(cells)
    ]
    return AnchorImageSet(to_dataset(items), digests, f"anchor images: {len(items)}, {source}")


def _of_folder(folder: Path, count: int, needed: int) -> tuple[list[dict[str, Any]], tuple[str, ...], str]:
    """At most `count` images below a folder, with their digests: which ones depends on their names alone."""
    files = select_images(list(walk_files(folder)))
    names = [file.relative_to(folder).as_posix() for file in files]
    cells: list[dict[str, Any]] = [
        {"path": str(files[row]), "bytes": None} for row in seeding.sample(names, count, "anchor images")
    ]
    digests = list(image_digests(cells))
    usable = [i for i, digest in enumerate(digests) if digest not in (MISSING_FILE, EMPTY_FILE)]
    if len(usable) < needed:
        raise DataError(
            f"{_KEY}: {len(usable)} images in it, and a step shows {needed}: name a folder with more, or "
            "lower anchor_images.per_step"
        )
    left_out = (
        f", {len(cells) - len(usable)} missing or empty files left out" if len(usable) < len(cells) else ""
    )
    source = f"of {len(files)} in the folder{left_out}"
    return [cells[i] for i in usable], tuple(digests[i] for i in usable), source

"""Galleries of retrieval: the images and captions of one language, and which of them match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.captions import Caption
from domainclip.evaluation.metrics.captions import captions as set_captions
from domainclip.seeding import sample, stable


@dataclass(frozen=True)
class Gallery:
    """The captions and images of one language. n items, m distinct captions, t truths, q captions in all."""

    language: str
    rows: np.ndarray  # (n,) positions of the items in the set
    texts: list[str]  # (m,)
    truth: np.ndarray  # (n,) index of the truth key, or of the item itself
    truth_names: np.ndarray  # (t,)
    relevant: csr_matrix  # (t, m) whether a caption is relevant for the images of a truth key
    pairs: np.ndarray  # (q, 2) item and caption, as indices into rows and texts

    @property
    def by_image(self) -> csr_matrix:
        """(n, m) the relevant captions of each image."""
        return self.relevant[self.truth]

    @property
    def by_text(self) -> csr_matrix:
        """(m, n) the relevant images of each caption."""
        return self.relevant.T.tocsr()[:, self.truth].tocsr()

    def shuffled(self, seed: int) -> csr_matrix:
        """(n, m) as `by_image`, but every truth key has the captions of another: the control."""
        truths = np.unique(self.truth)
        order = sorted(
            truths, key=lambda i: (stable(seed, str(self.truth_names[i]), "shuffled"), self.truth_names[i])
        )
        donor = np.arange(len(self.truth_names))
        donor[order] = np.roll(order, 1)
        return self.relevant[donor][self.truth]


def build_galleries(
    data: EvaluationSet, pairwise: bool = False, max_images: int | None = None, seed: int = 0
) -> Iterator[Gallery]:
    """One gallery per language, of at most `max_images` images, sampled by their ids.

    Pairwise: only the first caption of an item, and it alone is relevant, even if others have equal text.
    """
    captions = set_captions(data)
    for language in sorted({caption.language for caption in captions}):
        in_language = [caption for caption in captions if caption.language == language]
        in_language = first_captions(in_language) if pairwise else in_language
        sampled = _sample(in_language, list(data.items["id"]), max_images, seed)
        yield make_gallery(data, language, sampled, pairwise)


def first_captions(captions: Sequence[Caption]) -> list[Caption]:
    """The first caption of each item, in the order of the items."""
    return list({caption.row: caption for caption in reversed(captions)}.values())[::-1]


def _sample(captions: list[Caption], ids: list[str], max_images: int | None, seed: int) -> list[Caption]:
    rows = sorted({caption.row for caption in captions})
    if max_images is None or len(rows) <= max_images:
        return captions
    sampled = {rows[i] for i in sample([ids[row] for row in rows], max_images, "gallery", seed)}
    return [caption for caption in captions if caption.row in sampled]


def make_gallery(data: EvaluationSet, language: str, captions: Sequence[Caption], pairwise: bool) -> Gallery:
    """The gallery of some captions and their images; `pairwise` as in `build_galleries`."""
    owners = data.items["id"] if pairwise else data.items["truth"]
    truth_names, truth = np.unique(np.asarray(list(owners), dtype=str), return_inverse=True)
    keys = [f"{caption.row:012d}" if pairwise else normalise(caption.text) for caption in captions]
    representatives: dict[str, str] = {}
    for key, caption in zip(keys, captions, strict=True):
        # Texts that are equal once normalised share one representative.
        representatives[key] = min(caption.text, representatives.get(key, caption.text))
    columns = {key: i for i, key in enumerate(sorted(representatives))}
    rows, item = np.unique([caption.row for caption in captions], return_inverse=True)
    pairs = np.stack([item, [columns[key] for key in keys]], axis=1)
    entries = (np.ones(len(pairs), dtype=bool), (truth[rows][pairs[:, 0]], pairs[:, 1]))
    relevant = csr_matrix(entries, shape=(len(truth_names), len(columns)))
    return Gallery(
        language, rows, [representatives[key] for key in columns], truth[rows], truth_names, relevant, pairs
    )

"""What is searched: the images and captions of one language, and which of them belong together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet
from domainclip.seeding import sample, stable

Caption = tuple[int, str, str]  # row, language, text


@dataclass(frozen=True)
class Gallery:
    """The captions and images of one language. n items, m distinct captions, o owners, q captions in all."""

    language: str
    rows: np.ndarray  # (n,) where the items stand in the set
    texts: list[str]  # (m,)
    owner: np.ndarray  # (n,) the group, or the item itself
    names: np.ndarray  # (o,) of the owners
    right: csr_matrix  # (o, m) whether a caption is right for the images of an owner
    pairs: np.ndarray  # (q, 2) item and caption, as positions in rows and texts

    @property
    def by_image(self) -> csr_matrix:
        """(n, m) the right captions of each image."""
        return self.right[self.owner]

    @property
    def by_text(self) -> csr_matrix:
        """(m, n) the right images of each caption."""
        return self.right.T.tocsr()[:, self.owner].tocsr()

    def shuffled(self, seed: int) -> csr_matrix:
        """(n, m) as `by_image`, but every owner has the captions of another: the control."""
        present = np.unique(self.owner)
        order = sorted(
            present, key=lambda one: (stable(seed, str(self.names[one]), "shuffled"), self.names[one])
        )
        other = np.arange(len(self.names))
        other[order] = np.roll(order, 1)
        return self.right[other][self.owner]


def galleries(
    data: EvaluationSet, group_truth: bool, pairwise: bool, most: int | None, seed: int
) -> Iterator[Gallery]:
    """One gallery a language, of `most` items drawn by their ids where there are more.

    Pairwise: only the first caption of an item, and it alone is right, whatever else reads the same.
    """
    owners = data.items["group"] if group_truth and not pairwise else data.items["id"]
    names, owner = np.unique(np.asarray(list(owners), dtype=str), return_inverse=True)
    captions = _captions(data)
    for language in sorted({spoken for _, spoken, _ in captions}):
        own = [one for one in captions if one[1] == language]
        if pairwise:
            own = list({one[0]: one for one in reversed(own)}.values())[::-1]
        yield _gallery(language, names, owner, _drawn(own, list(data.items["id"]), most, seed), pairwise)


def _captions(data: EvaluationSet) -> list[Caption]:
    """Every caption that says something."""
    rows = enumerate(zip(data.items["texts"], data.items["language"], strict=True))
    return [
        (row, language, text)
        for row, (texts, languages) in rows
        for text, language in zip(texts, languages, strict=True)
        if normalise(text)
    ]


def _drawn(captions: list[Caption], ids: list[str], most: int | None, seed: int) -> list[Caption]:
    rows = sorted({row for row, _, _ in captions})
    if most is None or len(rows) <= most:
        return captions
    kept = {rows[place] for place in sample([ids[row] for row in rows], most, "gallery", seed)}
    return [one for one in captions if one[0] in kept]


def _gallery(
    language: str, names: np.ndarray, owner: np.ndarray, captions: list[Caption], pairwise: bool
) -> Gallery:
    keys = [f"{row:012d}" if pairwise else normalise(text) for row, _, text in captions]
    said: dict[str, str] = {}
    for key, (_, _, text) in zip(keys, captions, strict=True):
        said[key] = min(text, said.get(key, text))  # one wording stands for all that read the same
    place = {key: i for i, key in enumerate(sorted(said))}
    rows, item = np.unique([row for row, _, _ in captions], return_inverse=True)
    pairs = np.stack([item, [place[key] for key in keys]], axis=1)
    marks = (np.ones(len(pairs), dtype=bool), (owner[rows][pairs[:, 0]], pairs[:, 1]))
    right = csr_matrix(marks, shape=(len(names), len(place)))
    return Gallery(language, rows, [said[key] for key in place], owner[rows], names, right, pairs)

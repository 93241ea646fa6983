"""A subset that preserves the cross-covariance of images and texts of the whole corpus.

Legend: n items, m of them chosen, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Curation
from domainclip.seeding import stable

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.interfaces import Encoder


@dataclass(frozen=True, kw_only=True)
class Subset(Curation):
    """The items whose mean of x yᵀ stays nearest to that of all: the cross-covariance is preserved.

    ClipCov proves that such subsets generalise best [arXiv:2403.12267]. Here they are chosen greedily, one
    item at a time, so that ‖1/m Σ_S x_j y_jᵀ − 1/n Σ x_i y_iᵀ‖ falls fastest (kernel herding with the kernel
    (x_i·x_j)(y_i·y_j)); the paper's greedy method also uses latent classes. With `by_label` the share is
    kept in each label, so that rare classes stay. Costs one pass of the base and n m d multiplications.
    Items left out stay available to other recipes, and the run reports how many items are selected.
    """

    citation: ClassVar[str] = "arXiv:2403.12267"
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    fraction: Annotated[float, Field(gt=0, le=1)]
    by_label: bool = True

    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """The chosen items, in their old order."""
        assert base is not None  # `needs` names it
        image = base.images(items)
        text = base.texts([texts[0] if texts else "" for texts in items["texts"][:]])
        rows_of: dict[tuple[str, ...], list[int]] = {}
        for row, labels in enumerate(items["labels"][:]):
            rows_of.setdefault(tuple(sorted(labels)) if self.by_label else (), []).append(row)
        chosen: list[int] = []
        for rows in rows_of.values():
            count = max(1, round(self.fraction * len(rows)))
            chosen += [rows[at] for at in kernel_herding(image[rows], text[rows], count)]
        return items.select(sorted(chosen), keep_in_memory=True)


def kernel_herding(image: np.ndarray, text: np.ndarray, count: int) -> list[int]:
    """`count` rows of (n, d) and (n, d) whose mean outer product follows that of all, in order of choice."""
    whole = (image.T @ text / len(image)).astype(np.float64)
    target = np.einsum("nd,de,ne->n", image, whole, text, optimize=True)
    kernel_sum = np.zeros(len(image))  # Σ over the chosen rows of the kernel with each row
    available = np.ones(len(image), bool)
    # Ties between equal rows are broken by a stable number, not by their order in the file.
    ties = np.array([stable("herded", row) for row in range(len(image))])
    chosen: list[int] = []
    self_kernel = np.square(image).sum(1) * np.square(text).sum(1)
    for step in range(1, count + 1):
        # ‖C_S∪{i} − C‖² up to terms equal for all i: self_kernel/step² + 2 kernel_sum/step² − 2 target/step.
        score = (self_kernel + 2 * kernel_sum) / step**2 - 2 * target / step
        score[~available] = np.inf
        best = np.flatnonzero(score <= score.min() + 1e-12)
        row = int(best[np.argmin(ties[best])])
        chosen.append(row)
        available[row] = False
        kernel_sum += (image @ image[row]) * (text @ text[row])
    return chosen

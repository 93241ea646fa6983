"""A subset that preserves the cross-covariance of images and texts of the whole corpus.

Legend: n items, m of them chosen, d width, b items of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip import disk_cache
from domainclip.data.interfaces import Curation
from domainclip.seeding import stable

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.interfaces import Encoder

EXACT_ROWS = 8192  # items of a label, up to which each step compares all of them
_BLOCK = 2048  # candidates of a step above that
_VERSION = 1  # raise it when the choice among many items changes


@dataclass(frozen=True, kw_only=True)
class Subset(Curation):
    """The items whose mean of x yᵀ stays nearest to that of all: the cross-covariance is preserved.

    ClipCov proves that such subsets generalise best [arXiv:2403.12267]. Here they are chosen greedily, one
    item at a time, so that ‖1/m Σ_S x_j y_jᵀ − 1/n Σ x_i y_iᵀ‖ falls fastest (kernel herding with the kernel
    (x_i·x_j)(y_i·y_j)); the paper's greedy method also uses latent classes. With `by_label` the share is
    kept in each label, so that rare classes stay. Costs one pass of the base and n m d multiplications; of
    more than 8,192 items, each step chooses among the rest of a random block of 2,048 [stochastic greedy,
    arXiv:1409.7938], which costs 4,096 n d. Items left out stay available to other recipes, and the run
    reports how many items are selected.
    """

    citation: ClassVar[str] = "arXiv:2403.12267"
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    fraction: Annotated[float, Field(gt=0, le=1)]  # share of the items that stays
    by_label: bool = True  # whether each class keeps this share

    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """The chosen items, in their old order."""
        assert base is not None  # `needs` names it
        image = base.images(items)
        text = base.texts([texts[0] if texts else "" for texts in items["texts"][:]])
        from domainclip.distributed import collectives  # torch

        chosen = collectives.on_first_process(lambda: self._choose(items["labels"][:], image, text))
        return items.select(chosen, keep_in_memory=True)

    def _choose(self, labels: list[list[str]], image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """(m,) int64, the sorted rows of the chosen items; those of many are read from the disk cache."""
        if len(image) <= EXACT_ROWS:
            return self._herd(labels, image, text)
        contents = [disk_cache.content(array) for array in (image, text)]
        name = disk_cache.key("subset", _VERSION, self.fraction, self.by_label and labels, *contents)
        about = {"what": f"the subset of {len(image)} items"}
        return disk_cache.computed("corpora", name, lambda: self._herd(labels, image, text), about)

    def _herd(self, labels: list[list[str]], image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """(m,) int64, the sorted rows of the chosen items."""
        rows_of: dict[tuple[str, ...], list[int]] = {}
        for row, names in enumerate(labels):
            rows_of.setdefault(tuple(sorted(names)) if self.by_label else (), []).append(row)
        chosen: list[int] = []
        for rows in rows_of.values():
            count = max(1, round(self.fraction * len(rows)))
            herding = kernel_herding if len(rows) <= EXACT_ROWS else block_herding
            everything = len(rows) == len(image)
            of_label = (image, text) if everything else (image[rows], text[rows])
            chosen += [rows[at] for at in herding(*of_label, count)]
        return np.array(sorted(chosen), np.int64)


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


def block_herding(image: np.ndarray, text: np.ndarray, count: int, block: int = _BLOCK) -> list[int]:
    """As `kernel_herding`, with a random block of rows as the candidates of each step.

    The blocks divide all rows, and each gives its share. The mean of all rows is followed, not that of a
    block: what a block lacks or exceeds, the next one corrects. Time grows with n, not with its square.
    """
    n = len(image)
    whole = image.T @ text / n
    chosen_sum = np.zeros_like(whole, np.float64)  # Σ over the chosen rows of x yᵀ
    order = np.random.Generator(np.random.Philox(key=stable("herded blocks", n))).permutation(n)
    chosen: list[int] = []
    for start in range(0, n, block):
        rows = order[start : start + block]
        x, y = image[rows], text[rows]
        target = ((x @ whole) * y).sum(1, dtype=np.float64)
        kernel_sum = ((x @ chosen_sum.astype(image.dtype)) * y).sum(1, dtype=np.float64)
        kernel = (x @ x.T) * (y @ y.T)
        until = round(count * (start + len(rows)) / n)
        local = _herd_block(kernel, kernel_sum, target, range(len(chosen) + 1, until + 1))
        chosen_sum += x[local].T @ y[local]
        chosen += rows[local].tolist()
    return chosen


def _herd_block(kernel: np.ndarray, kernel_sum: np.ndarray, target: np.ndarray, steps: range) -> list[int]:
    """The rows of a block that `steps` choose; `kernel` is (b, b), `kernel_sum` and `target` are (b,)."""
    doubled = kernel.diagonal() + 2 * kernel_sum
    chosen: list[int] = []
    for step in steps:
        row = int(np.argmin(doubled - 2 * step * target))  # the score of `kernel_herding` times step²
        chosen.append(row)
        doubled += 2 * kernel[row]
        doubled[row] = np.inf
    return chosen

"""Base and adapted model on the same items, and what may be said about their difference.

Legend: n items, d width.

No figure depends on the order of the rows, the batch size or the number of processes: a set is put in
order of its ids, and the towers always compute the same chunks of it, whichever process has its turn.
(A matrix product may round differently when its shape changes, and one bit can turn a rank.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from domainclip import statistics
from domainclip.contracts import Encoder, EvaluationSet, Metric, Probe, Results
from domainclip.data.images import decode
from domainclip.distributed import gather_objects, rank, world
from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.statistics import Figure

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from domainclip.towers import Towers

_CHUNK = 32  # rows that go through a tower together, always
_RARELY = 0.05  # share of undefined resamples above which a figure gets a warning
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "no difference shown", "too few groups to tell"


@dataclass(frozen=True)
class Row:
    """One figure of the report. A name with a slash, `accuracy/cat`, is a part of the one before it."""

    probe: str
    dataset: str
    metric: str
    higher_is_better: bool
    unit: str
    chance: float | None
    primary: bool
    n: int
    groups: int
    base: Figure
    adapted: Figure | None
    difference: Figure | None
    verdict: str | None  # one of the four words above; None when a single model was measured
    ids: Sequence[str]
    owners: Sequence[str]  # the group of each id
    base_scores: np.ndarray
    adapted_scores: np.ndarray | None

    @property
    def whole(self) -> str:
        """The figure that this is, or is a part of."""
        return self.metric.partition("/")[0]

    @property
    def part(self) -> str:
        """The class or language that a part is about; empty for a whole figure."""
        return self.metric.partition("/")[2]


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; the same on every process."""

    rows: list[Row]
    protocol: list[dict[str, Any]]  # one entry a probe and set, JSON
    warnings: list[str]
    valid: bool
    resamples: int
    seed: int


class TowersEncoder:
    """Towers that are measured. Embeddings are kept; make a new encoder when weights have changed.

    Encoders that share a `kept` dictionary share the embeddings of a tower whose weights are the same.
    """

    def __init__(self, towers: Towers, kept: dict[Any, np.ndarray] | None = None) -> None:
        self.towers = towers
        self.scale = float(towers.scale)
        self.bias = None if towers.bias is None else float(towers.bias)
        self.preparation: str = towers.preprocess.fingerprint()
        self.image_key = (towers.fingerprint("image"), self.preparation)
        self.text_key = towers.fingerprint("text")
        self.kept: dict[Any, np.ndarray] = {} if kept is None else kept

    def images(self, items: Dataset) -> np.ndarray:
        """(n, d) float32 of unit length.

        Raises: DataError when an image cannot be read.
        """
        if (self.image_key, items._fingerprint) not in self.kept:
            lost = len(items) - len(encode_images([self], items))
            if lost:
                raise DataError(f"{lost} of {len(items)} images cannot be read: leave them out first")
        return self.kept[self.image_key, items._fingerprint]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) float32 of unit length; equal texts are encoded once."""
        key = (self.text_key, tuple(texts))
        if key not in self.kept:
            # Texts of like length stand together, for a chunk is padded to its longest.
            distinct = sorted(set(texts), key=lambda text: (len(text), text))
            found = _shared(
                (chunk, self._encode(self.towers.tokenise(chunk), "text")) for chunk in _mine(distinct)
            )
            vectors = {text: row for chunk, rows in found for text, row in zip(chunk, rows, strict=True)}
            self.kept[key] = np.stack([vectors[text] for text in texts])
        return self.kept[key]

    def image_rows(self, prepared: list[dict[str, np.ndarray]]) -> np.ndarray:
        """(len(prepared), d) embeddings of one chunk of prepared images."""
        import torch

        names = prepared[0]
        stacked = {name: torch.from_numpy(np.stack([one[name] for one in prepared])) for name in names}
        return self._encode(stacked, "image")

    def _encode(self, batch: dict[str, Tensor], side: str) -> np.ndarray:
        import torch

        learning = self.towers.training
        self.towers.eval()
        device = next(self.towers.parameters()).device
        encode = self.towers.encode_image if side == "image" else self.towers.encode_text
        with torch.inference_mode():
            rows: np.ndarray = encode({name: value.to(device) for name, value in batch.items()}).cpu().numpy()
        self.towers.train(learning)
        if not np.isfinite(rows).all():
            raise ModelError(f"{self.towers.base}: an embedding is not a finite number: the {side} tower is broken")
        return rows


def encode_images(encoders: Sequence[TowersEncoder], items: Dataset, batch_size: int = 64) -> Dataset:
    """The items whose image can be read; their embeddings are now kept by all encoders.

    Each picture is decoded once and prepared once for encoders that prepare alike. `batch_size` says how
    many are held at once, and changes no figure.
    """
    towers = {encoder.image_key: encoder for encoder in encoders}
    recipes = {encoder.preparation: encoder.towers.preprocess for encoder in encoders}

    def prepare(row: int) -> dict[str, dict[str, np.ndarray]] | None:
        try:
            picture = decode(items[row]["image"])
        except DataError:
            return None
        return {key: recipe(picture) for key, recipe in recipes.items()}

    def encoded() -> Iterable[tuple[list[int], dict[Any, np.ndarray]]]:
        chunks, held = list(_mine(range(len(items)))), max(1, batch_size // _CHUNK)
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(chunks), held):
                block = chunks[start : start + held]
                ready = dict(zip(chain(*block), pool.map(prepare, chain(*block)), strict=True))
                for chunk in block:
                    good = {row: one for row in chunk if (one := ready[row]) is not None}
                    if good:
                        yield (
                            list(good),
                            {
                                key: encoder.image_rows([one[encoder.preparation] for one in good.values()])
                                for key, encoder in towers.items()
                            },
                        )
    return items

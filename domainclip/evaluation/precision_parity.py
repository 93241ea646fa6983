"""How far embeddings of a lower precision lie from those in fp32, on a sample of a set."""

from __future__ import annotations

from dataclasses import dataclass

from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.precision import largest_cosine_distance
from domainclip.seeding import sample

_ITEMS = 64  # a second or two


@dataclass(frozen=True)
class PrecisionParity:
    """The largest cosine distance between an embedding in one precision and the same in fp32."""

    precision: str
    images: int
    image_distance: float
    texts: int
    text_distance: float

    def __str__(self) -> str:
        return (
            f"evaluate.precision: {self.precision}: the cosine distance from fp32 is at most "
            f"{self.image_distance:.1e} in {self.images} images and {self.text_distance:.1e} in {self.texts} "
            "texts"
        )


def precision_parity(
    model: DualEncoder, cache: EmbeddingCache, data: EvaluationSet
) -> PrecisionParity | None:
    """Compare the precision of `cache` with fp32 on items of a set; None where it is fp32.

    All processes call it.
    """
    if cache.precision == "fp32":
        return None
    rows = sorted(sample(data.items["id"][:], _ITEMS, "precision", 0))
    items = data.items.select(rows, keep_in_memory=True)
    encoders = [
        CachedEncoder(model, EmbeddingCache(precision=cache.precision)),
        CachedEncoder(model, EmbeddingCache()),
    ]
    items = encode_images(encoders, items)
    texts = sorted({text for own in items["texts"][:] for text in own[:1]} | set(data.classes))
    own, exact = encoders
    return PrecisionParity(
        cache.precision,
        len(items),
        largest_cosine_distance(own.images(items), exact.images(items)) if len(items) else 0.0,
        len(texts),
        largest_cosine_distance(own.texts(texts), exact.texts(texts)) if texts else 0.0,
    )

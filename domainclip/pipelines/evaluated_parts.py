"""`eval --part`: the jobs of an array encode the images of the measured sets, each its blocks of them.

The blocks lie in the embedding cache, on a disk that the jobs share; `eval` without --part reads them,
encodes those that are missing, and measures.
"""

from __future__ import annotations

from collections.abc import Sequence

from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.encoder import CachedEncoder, blocks, encode_block
from domainclip.evaluation.probe_runs import sort_items
from domainclip.pipelines.parts import Part


def encode_part(encoders: Sequence[CachedEncoder], sets: Sequence[EvaluationSet], part: Part) -> str:
    """Encode the blocks of one part for all models; a line about them."""
    ordered = [sort_items(data) for data in sets]
    pieces = [(items, block) for items in ordered for block in blocks(items)]
    own = [piece for number, piece in enumerate(pieces) if part.has(number)]
    for items, block in own:
        encode_block(encoders, items, block)
    count, total = sum(len(block) for _, block in own), sum(map(len, ordered))
    return f"part {part}: {count} of {total} images are encoded, {len(own)} of {len(pieces)} blocks"

"""Training pairs that are chosen anew every so many steps, by the similarity of their captions to a task.

Legend: n items, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from domainclip.data.batching.batch import Batch
from domainclip.data.batching.loader import batches
from domainclip.data.interfaces import TrainingSelection
from domainclip.distributed import collectives
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training import fsdp
from domainclip.training.setup import StageInputs
from domainclip.training.state import TrainingState
from domainclip.training.validation import restored_modes

_BLOCK = 4096  # captions compared at a time


def stage_batches(
    inputs: StageInputs, state: TrainingState, model: DualEncoder, batch_size: int
) -> Iterator[Batch]:
    """The batches of a stage from the step of the state on, of all pairs or of those that are chosen.

    A choice is made with the weights of its step, when its first batch is asked for, and lies in the state: a
    run that is resumed between two choices continues with the saved one.
    """
    rule, workers = inputs.setup.selection, inputs.setup.settings.workers
    if rule is None:
        return batches(inputs.pairs, state.step, inputs.steps.end, batch_size, workers=workers)
    return _chosen_batches(inputs, rule, state, model, batch_size)


def _chosen_batches(
    inputs: StageInputs, rule: TrainingSelection, state: TrainingState, model: DualEncoder, batch_size: int
) -> Iterator[Batch]:
    start, end, workers = state.step, inputs.steps.end, inputs.setup.settings.workers
    while start < end:
        begin = start - (start - inputs.steps.begin) % rule.every
        if start == begin or state.selected is None:
            state.selected = torch.from_numpy(_choose(inputs, rule, model, batch_size))
        pairs = inputs.pairs.selection(state.selected.numpy(), begin)
        until = min(begin + rule.every, end)
        yield from batches(pairs, start, until, batch_size, workers=workers)
        start = until


def _choose(inputs: StageInputs, rule: TrainingSelection, model: DualEncoder, least: int) -> np.ndarray:
    """(k,) int64, the rows that the model as it is now chooses, the same on all processes."""
    captions: list[list[str]] = inputs.pairs.items["texts"][:]
    with fsdp.temporarily_gathered(model) as whole, restored_modes(whole):
        encoder = CachedEncoder(whole, EmbeddingCache())
        similarity = caption_similarity(encoder, captions, inputs.setup.selection_texts)
    rows: np.ndarray = collectives.gather_objects(rule.choose(similarity, least))[0]
    return rows


def caption_similarity(
    encoder: CachedEncoder, captions: Sequence[Sequence[str]], texts: Sequence[str]
) -> np.ndarray:
    """(n,) the highest cosine of a caption of each item and one of the texts; -1 without a caption."""
    own = [(row, text) for row, of_item in enumerate(captions) for text in of_item]
    similarity = np.full(len(captions), -1.0)
    if not own:
        return similarity
    distinct = sorted({text for _, text in own})
    vectors, targets = encoder.texts(distinct), encoder.texts(texts)
    blocks = [(vectors[at : at + _BLOCK] @ targets.T).max(axis=1) for at in range(0, len(distinct), _BLOCK)]
    # As close as single precision tells: a cosine that differs in its last bit decides nothing.
    best = dict(zip(distinct, np.round(np.concatenate(blocks).astype(np.float64), 6), strict=True))
    np.maximum.at(similarity, [row for row, _ in own], [best[text] for _, text in own])
    return similarity

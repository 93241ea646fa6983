"""Hop 2, of a strategy that reads no caption and no label: its training items, with pseudo-labels."""

from __future__ import annotations

from dataclasses import replace

from accelerate import PartialState

from domainclip.config.recipe import Recipe
from domainclip.data.corpus import Corpus
from domainclip.distributed.phases import phase
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines.curate import CuratedItems
from domainclip.strategies.base import Strategy


def relabel_items(
    recipe: Recipe, strategy: Strategy, corpus: Corpus, train_items: CuratedItems, base: DualEncoder
) -> tuple[Corpus, CuratedItems]:
    """The training items as the strategy shows them, in a corpus and alone; unchanged for most strategies.

    Raises: RecipeError for a corpus whose classes do not exclude each other, a stream, or a curation that
    orders the batches; DataError for fewer than two classes, or when nothing could be learned.
    """
    if not strategy.relabels:
        return corpus, train_items
    name = next(iter(recipe.strategy))
    if corpus.card.multi_label:
        raise RecipeError(
            f"strategy.{name}: needs classes that exclude each other, and the card sets multi_label: choose "
            "another strategy"
        )
    if corpus.stream is not None or train_items.strata is not None:
        what = "a stream" if corpus.stream is not None else "a curation that orders the batches"
        raise RecipeError(f"strategy.{name}: does not work with {what}: leave one of the two out")
    if len(corpus.classes) < 2:
        raise DataError(
            f"strategy.{name}: names classes, and the corpus has {len(corpus.classes)}: write them in the "
            "card, under classes"
        )
    shown = _relabelled(strategy, name, corpus, train_items, CachedEncoder(base, _cache(recipe)))
    return corpus.with_train_items(shown.items), shown


def _cache(recipe: Recipe) -> EmbeddingCache:
    return EmbeddingCache.make(recipe.evaluate.cache_embeddings)


@phase("computing pseudo-labels")
def _relabelled(
    strategy: Strategy, name: str, corpus: Corpus, train_items: CuratedItems, encoder: CachedEncoder
) -> CuratedItems:
    encoder.model.to(PartialState().device)
    items = encode_images([encoder], train_items.items)
    shown = strategy.relabelled(items, encoder, corpus.classes)
    warning = (
        f"strategy {name}: {len(shown)} of {len(train_items.items)} training items have a pseudo-label "
        "and are shown; no caption and no label of theirs is read"
    )
    return replace(train_items, items=shown, warnings=(*train_items.warnings, warning))

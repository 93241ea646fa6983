"""From loaded inputs to a complete training setup."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from domainclip.data.batching.caption_sampling import TokenLimit
from domainclip.data.batching.pairs import Pairs
from domainclip.data.batching.streamed_pairs import StreamedPairs
from domainclip.data.corpus import Corpus
from domainclip.data.text import caption_substitutes
from domainclip.errors import DataError, RecipeError
from domainclip.models import saving
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines.inputs import Inputs
from domainclip.strategies.base import InputRequirements, Stage, max_learning_rates
from domainclip.training import anchor_texts, feature_cache, objective_inputs
from domainclip.training.setup import Precomputed, TrainingSetup


def sentences(ready: Inputs) -> Precomputed:
    """What the base says before anything has changed: of general sentences, if an objective asks, and of what
    stands for pictures, if the strategy looks at none.
    """
    seed = ready.recipe.train.seed
    image = in_place_of_pictures(ready.requirements, ready.base, ready.corpus, seed)
    if "anchor_text" not in ready.terms.needs:
        return Precomputed(image_features=image)
    base = ready.original or ready.base
    texts = anchor_texts.make_sentences(base.text_tokenizer.hf_tokenizer, ready.recipe.anchor_texts, seed)
    return Precomputed(
        image_features=image, anchor_texts=texts, anchor_embeddings=feature_cache.embed_texts(base, texts)
    )


def make_job(
    ready: Inputs, stages: Sequence[Stage], kept: Precomputed, identity: dict[str, Any] | None = None
) -> TrainingSetup:
    """What the loop works on, every tower still run for every pair.

    Raises: RecipeError when nothing learns; DataError when there is nothing to choose α on.
    """
    settings = ready.recipe.train
    factors = max_learning_rates(stages)
    if not any(factor > 0 for factor in factors.values()):
        raise RecipeError(
            f"strategy.{next(iter(ready.recipe.strategy))}: with these options no weight learns"
        )
    if ready.recipe.weight_interpolation is not None and not len(ready.corpus.splits["validation"]):
        raise DataError(
            f"corpus {ready.corpus.card.name}: the validation split is empty: weight_interpolation "
            "chooses on it; "
            "leave weight_interpolation out"
        )
    if name := saving.weights_not_saved(ready.base):
        raise RecipeError(
            f"strategy.{next(iter(ready.recipe.strategy))}: the base is an adapter, which cannot hold what "
            f'"{name}" learns: merge it into plain weights with domainclip merge, and take those as the base'
        )
    objective_inputs.check_objectives(ready.terms, ready.base, ready.corpus.stream is not None)
    objective_inputs.refuse_pictures(ready.terms, ready.base, looks=kept.image_features is None)
    items, stream, how = ready.corpus.splits["train"], ready.corpus.stream, ready.corpus.card.captions
    make = partial(
        Pairs,
        preprocess=ready.base.image_preprocessor,
        augmentation=settings.augmentation,
        captions=how,
        token_limit=TokenLimit(ready.base.text_tokenizer.count, ready.base.max_tokens)
        if how.overlong == "window"
        else None,
        views=ready.corpus.card.views,
        frames=ready.base.frames,
        pixels=kept.image_features is None,
        extra_spec=objective_inputs.pair_extras(ready.terms, ready.corpus),
    )
    seed = settings.seed
    pairs = make(items, seed=seed) if stream is None else StreamedPairs(stream, make, items, seed)
    pairs.strata = None if ready.curated is None else ready.curated.strata
    setup = TrainingSetup(
        ready.recipe,
        ready.base,
        tuple(stages),
        factors,
        ready.terms,
        pairs,
        kept,
        ready.rate,
        identity or {},
        digests=digests(ready.corpus, ready.base.frames),
    )
    return objective_inputs.count_extra_texts(setup)


def learning(setup: TrainingSetup) -> str:
    """`lora: 98,305 of 22,500,000 weights learn (0.4 %)`."""
    sizes = {name: weight.numel() for name, weight in setup.model.weights().items()}
    some, everything = sum(n for name, n in sizes.items() if setup.factors[name] > 0), sum(sizes.values())
    (strategy,) = setup.recipe.strategy
    return f"{strategy}: {some:,} of {everything:,} weights learn ({some / everything:.1%})"


def in_place_of_pictures(
    requirements: InputRequirements, base: DualEncoder, corpus: Corpus, seed: int
) -> np.ndarray | None:
    """(n, d) embeddings of captions by the base, for a strategy that uses no images; None for all others.

    Raises: RecipeError for a stream, of which few captions are known.
    """
    if requirements.image_source == "images":
        return None
    if corpus.stream is not None:
        raise RecipeError(
            "strategy.prompt_learning.train_on: text needs all captions at once, and a stream shows a few: "
            "leave it out, or store the corpus with domainclip data prepare and train on that"
        )
    return feature_cache.embed_texts(
        base, caption_substitutes.substitute_captions(corpus.splits["train"], seed)
    ).numpy()


def digests(corpus: Corpus, shown: int) -> dict[str, str]:
    """By id: of the picture that is shown, or of all where several are."""
    if shown == 1:
        return corpus.digests
    return {id: " ".join([own, *corpus.view_digests.get(id, ())]) for id, own in corpus.digests.items()}

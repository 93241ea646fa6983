"""Hop 5: everything that training needs, complete before its first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from domainclip import seeding
from domainclip.data.batching.caption_sampling import TokenLimit
from domainclip.data.batching.mixed_pairs import MixedPairs
from domainclip.data.batching.order import RepeatedRows
from domainclip.data.batching.pairs import Pairs
from domainclip.data.batching.streamed_pairs import StreamedPairs
from domainclip.data.corpus import Corpus
from domainclip.data.text import caption_substitutes
from domainclip.data.text.anchor_texts import make_sentences
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.protocol import Protocol
from domainclip.models.saving import weights_not_saved
from domainclip.pipelines.inputs import Inputs
from domainclip.pipelines.run_folder import begin_run
from domainclip.pipelines.starting_point import StartingPoint
from domainclip.strategies.base import max_learning_rates
from domainclip.training import feature_cache, objective_inputs
from domainclip.training.anchor_images import AnchorImageSource
from domainclip.training.run_context import RunContext
from domainclip.training.setup import Precomputed, TrainingSetup
from domainclip.training.teachers import precompute_teachers
from domainclip.training.validation import ValidationSet, make_validation_set


def plan_training(inputs: Inputs, protocol: Protocol, start: StartingPoint, run: RunContext) -> TrainingSetup:
    """Build the setup; then write recipe and training record, from which on the run can be resumed.

    Adapters, and whatever else a strategy adds, start from the seed. Outputs of teachers are computed last.

    Raises: RecipeError when nothing would learn; RecipeError or DataError when an objective, the validation
    or the weight interpolation lacks something; ModelError for a teacher that cannot be loaded.
    """
    inputs.model.to(run.accelerator.device)
    validation = make_validation_set(
        inputs.recipe, inputs.corpus, protocol.selection, inputs.objectives, protocol.probes, inputs.base
    )
    torch.manual_seed(inputs.recipe.train.seed)
    setup = make_setup(inputs, start, validation)
    begin_run(run.folder, inputs.recipe, inputs.training_record, inputs.corpus)
    return precompute_teachers(setup)


def make_setup(
    inputs: Inputs, start: StartingPoint | None = None, validation: ValidationSet | None = None
) -> TrainingSetup:
    """The setup without the outputs of teachers; the strategy prepares the model in place.

    Raises: RecipeError when nothing would learn; RecipeError or DataError when an objective or the weight
    interpolation lacks something.
    """
    recipe, model, corpus = inputs.recipe, inputs.model, inputs.corpus
    precomputed = _precompute(inputs)
    stages = inputs.components.strategy.stages(model)
    factors = max_learning_rates(stages)
    strategy = next(iter(recipe.strategy))
    trains = inputs.components.strategy.trains_weights
    if trains and not any(factor > 0 for factor in factors.values()):
        raise RecipeError(f"strategy.{strategy}: with these options no weight learns")
    if recipe.weight_interpolation is not None and not len(corpus.splits["validation"]):
        raise DataError(
            f"corpus {corpus.card.name}: the validation split is empty: weight_interpolation "
            "chooses on it; leave weight_interpolation out"
        )
    if name := weights_not_saved(model):
        raise RecipeError(
            f'strategy.{strategy}: "{name}" is trained, and the adapter that is saved does not hold it: '
            "freeze it, or train without an adapter"
        )
    uses_images = precomputed.image_features is None
    objective_inputs.check_objectives(inputs.objectives, model, corpus.stream is not None)
    objective_inputs.check_image_views(inputs.objectives, model, uses_images)
    frozen = objective_inputs.frozen_towers(factors)
    reach = inputs.objectives.check_reach(strategy, frozen) if trains else []
    unreached = [line for line in reach if line not in inputs.warnings]
    pairs = make_pairs(inputs, pixels=uses_images)
    notes = objective_inputs.count_extra_texts(
        pairs, {name: term.extra_texts_remedy for name, term in inputs.objectives.by_name.items()}
    )
    return TrainingSetup(
        settings=recipe.train,
        strategy=strategy,
        model=model,
        stages=tuple(stages) if trains else (),
        factors=factors,
        objectives=inputs.objectives,
        peak_rate=inputs.learning_rate,
        pairs=pairs,
        digests=_digests([corpus, *(each.corpus for each in inputs.mixed)], model.frames),
        precomputed=precomputed,
        anchor_settings=recipe.anchor_texts,
        anchor_images=_anchor_images(inputs),
        notes=(*notes, *unreached, *filter(None, [inputs.anchor_captions.note]), *_image_notes(inputs)),
        validation=validation,
        selection=inputs.train_items.selection,
        selection_texts=_selection_texts(inputs),
        identity={} if start is None else start.identity,
        interpolates=recipe.weight_interpolation is not None,
        checkpoint=None if start is None else start.checkpoint,
    )


def make_pairs(inputs: Inputs, pixels: bool = True) -> Pairs:
    """The training pairs as the recipe shows them; without `pixels`, no image is read.

    Raises: DataError when the corpus lacks what an objective needs.
    """
    settings, model, corpus = inputs.recipe.train, inputs.model, inputs.corpus
    captions = corpus.card.captions
    token_limit = TokenLimit(model.text_tokenizer.count, model.max_tokens)
    make = partial(
        Pairs,
        preprocess=model.image_preprocessor,
        augmentation=settings.augmentation,
        captions=captions,
        token_limit=token_limit if captions.overlong == "window" else None,
        views=corpus.card.views,
        frames=model.frames,
        matched_by=corpus.card.columns.matched_by,
        pixels=pixels,
        extra_spec=objective_inputs.pair_extras(
            inputs.objectives, corpus, [each.corpus for each in inputs.mixed]
        ),
        smallest_side=2 * max(model.image_preprocessor.size) if settings.decode == "fast" else None,
    )
    items, stream, seed = inputs.train_items.items, corpus.stream, settings.seed
    pairs = make(items, seed=seed) if stream is None else StreamedPairs(stream, make, items, seed)
    pairs.strata = inputs.train_items.strata
    if inputs.train_items.repeats is not None:
        pairs.repeated = RepeatedRows(inputs.train_items.repeats)
    return _mixed(inputs, pairs, make)


def _mixed(inputs: Inputs, pairs: Pairs, make: Callable[..., Pairs]) -> Pairs:
    """The pairs with those of train.mix, each source as its own card shows it.

    Raises: RecipeError for a curation that orders the batches, or a strategy that uses no images.
    """
    if not inputs.mixed:
        return pairs
    chosen = pairs.strata is not None or inputs.train_items.selection is not None
    if chosen or not pairs.pixels:
        clash = "a curation that orders the batches" if chosen else "a strategy that uses no images"
        raise RecipeError(f"train.mix: does not work with {clash}: leave one of the two out")
    limit = TokenLimit(inputs.model.text_tokenizer.count, inputs.model.max_tokens)
    sources = [
        make(
            each.items,
            seed=seeding.stable(pairs.seed, each.name, "mix"),
            captions=each.corpus.card.captions,
            token_limit=limit if each.corpus.card.captions.overlong == "window" else None,
            views=each.corpus.card.views,
            matched_by=each.corpus.card.columns.matched_by,
            extra_spec=objective_inputs.mixed_extras(pairs.extra_spec, each.corpus),
        )
        for each in inputs.mixed
    ]
    return MixedPairs([pairs, *sources], [each.share for each in inputs.mixed])


def _selection_texts(inputs: Inputs) -> tuple[str, ...]:
    """The texts that a curation compares captions with while training.

    Raises: DataError without any.
    """
    selection = inputs.train_items.selection
    if selection is None:
        return ()
    prompts = {name: prompts.positive for name, prompts in inputs.corpus.classes.items()}
    return tuple(selection.metadata_texts(prompts))


def _image_notes(inputs: Inputs) -> list[str]:
    return [] if inputs.anchor_images is None else [inputs.anchor_images.note]


def _anchor_images(inputs: Inputs) -> AnchorImageSource | None:
    if inputs.anchor_images is None:
        return None
    pairs = Pairs(inputs.anchor_images.items, inputs.model.image_preprocessor)
    return AnchorImageSource(pairs, inputs.anchor_images.digests, inputs.recipe.anchor_images.per_step)


def _precompute(inputs: Inputs) -> Precomputed:
    """Embeddings by the base before it changes: of captions that stand for images, and of anchor texts."""
    seed = inputs.recipe.train.seed
    image_features = _image_substitutes(inputs, seed)
    if "anchor_text" not in inputs.objectives.needs:
        return Precomputed(image_features=image_features)
    tokenizer, captions = inputs.base.text_tokenizer.hf_tokenizer, inputs.anchor_captions.texts
    texts = make_sentences(tokenizer, inputs.recipe.anchor_texts, seed, captions)
    return Precomputed(
        image_features=image_features,
        anchor_texts=texts,
        anchor_embeddings=feature_cache.embed_texts(inputs.base, texts),
    )


def _image_substitutes(inputs: Inputs, seed: int) -> np.ndarray | None:
    """(n, d) embeddings of captions, for a strategy that uses no images; None for all others.

    Raises: RecipeError for a stream, of which few captions are known.
    """
    if inputs.requirements.image_source == "images":
        return None
    if inputs.corpus.stream is not None:
        raise RecipeError(
            "strategy.prompt_learning.train_on: text needs all captions at once, and a stream shows a few: "
            "leave it out, or store the corpus with domainclip data prepare and train on that"
        )
    captions = caption_substitutes.substitute_captions(inputs.train_items.items, seed)
    return feature_cache.embed_texts(inputs.model, captions).numpy()


def _digests(corpora: Sequence[Corpus], frames: int) -> Mapping[str, str]:
    """By id: the digest of the image, or of all images where several are shown."""
    if frames == 1 and len(corpora) == 1:
        return corpora[0].digests
    return {
        id: image if frames == 1 else " ".join([image, *corpus.view_digests.get(id, ())])
        for corpus in corpora
        for id, image in corpus.digests.items()
    }

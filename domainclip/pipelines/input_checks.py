"""The checks of hop 2: what a recipe asks for against what its base and corpus have."""

from __future__ import annotations

from collections.abc import Sequence

from domainclip import registry
from domainclip.components import Components, WeightedObjectives
from domainclip.config.recipe import Recipe
from domainclip.data.batching import caption_sampling
from domainclip.data.batching.item_columns import derived_column
from domainclip.data.batching.matches import why_no_negatives
from domainclip.data.cards import Card
from domainclip.data.checks.findings import Finding
from domainclip.data.checks.run_checks import SAMPLE_IMAGES, corpus_findings
from domainclip.data.checks.stored_findings import stored_findings
from domainclip.data.corpus import Corpus
from domainclip.data.process_pool import available_cores
from domainclip.distributed.collectives import first_process
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.embed_images import embed_images
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines.source_fit import check_source_removal
from domainclip.pipelines.support_checks import check_no_training, check_support


def check_examples(recipe: Recipe, card: Card) -> None:
    """Images may stand in a report only when someone has inspected them, and the card says so.

    Raises: RecipeError.
    """
    privacy = card.privacy
    if recipe.report.examples and not card.content_may_show:
        raise RecipeError(
            f"report.examples: card {card.name} says identifiers {privacy.identifiers}, burned-in text "
            f"{privacy.burned_in_text}: inspect the images and set both keys under privacy, or leave "
            "examples out"
        )


def check_model(recipe: Recipe, base: DualEncoder, model: DualEncoder) -> None:
    """Between the base and a model that begins with a new tower, weights cannot be interpolated.

    Raises: RecipeError.
    """
    if model.scorer is not None:
        raise RecipeError(
            f"base: {recipe.base.path} has a class scorer of its frozen weights, which would not fit others: "
            "name the base of that run"
        )
    if model is not base and recipe.weight_interpolation is not None:
        raise RecipeError(
            f"weight_interpolation: strategy {next(iter(recipe.strategy))} begins with a new tower, so no "
            "line leads back to the base: leave weight_interpolation out"
        )


def check_training(
    recipe: Recipe,
    components: Components,
    model: DualEncoder,
    objectives: WeightedObjectives,
    learning_rate: float,
    corpus: Corpus,
) -> list[str]:
    """Warnings about the learning rate, the objectives and the batch size.

    Raises: DataError when there is no training pair, or no pair has a negative; RecipeError or DataError for
    a source that cannot be removed.
    """
    check_source_removal(recipe.source_removal, corpus.splits["train"], model)
    warnings: list[str] = []
    name, strategy = next(iter(recipe.strategy)), components.strategy
    check_support(name, strategy.support, corpus)
    if not strategy.trains_weights:
        check_no_training(recipe, name)
        return warnings
    if not model.can_be_trained:
        raise RecipeError(
            f"base: {recipe.base.path} is an ensemble, whose weights are not trained: name one of its members"
        )
    limit = components.strategy.max_learning_rate
    if limit is not None and learning_rate > limit:
        warnings.append(
            f"train.learning_rate: {learning_rate:g} is above {limit:g}, where strategy "
            f"{next(iter(recipe.strategy))} usually destroys what the base knows"
        )
    replaced = objectives.losses_replaced
    if replaced and model.objective not in replaced.values():
        warnings.append(
            f"objectives: {', '.join(replaced)}, but family {model.family} was trained with "
            f"{model.objective}: its scale and bias may not fit"
        )
    pairs = len(corpus.stream or corpus.splits["train"])
    if pairs and pairs < recipe.train.batch_size:
        warnings.append(
            f"train.batch_size: {recipe.train.batch_size} is more than {pairs} pairs; taking {pairs}"
        )
    if not pairs:
        raise DataError(f"corpus {recipe.corpus.card or recipe.corpus.path}: no training pair is left")
    return warnings + check_negatives(objectives, corpus)


def check_negatives(objectives: WeightedObjectives, corpus: Corpus) -> list[str]:
    """A warning when no pair in the sample of a stream is a negative of another.

    Raises: DataError when that is so for the whole corpus: the loss and its gradient would be the same
    whatever the model says.
    """
    items = corpus.splits["train"]
    pools = caption_sampling.caption_pools(items, corpus.card.captions)
    groups = derived_column(items, [corpus.card.columns.matched_by], str)
    labels: Sequence[list[str]] = derived_column(items, ["labels"], list)
    for name, negatives in objectives.negatives.items():
        texts = (pool.texts for pool in pools)
        reason = why_no_negatives(texts, groups, labels if negatives == "other_labels" else None)
        if not reason:
            continue
        remedy = "check corpus.columns (texts, labels, group) and the training split, or leave it out"
        if corpus.stream is None or len(corpus.stream) <= len(items):
            raise DataError(
                f"objectives.{name}: {reason}, so no pair has a negative and nothing can be learned: {remedy}"
            )
        return [
            f"objectives.{name}: in a sample of {len(items)} of {len(corpus.stream)} pairs, {reason}: "
            f"batches without a negative teach nothing; {remedy}"
        ]
    return []


@first_process
def check_corpus(recipe: Recipe, corpus: Corpus, model: DualEncoder, max_tokens: int) -> list[Finding]:
    """The findings of all checks of the corpus, under a model that reads `max_tokens` of a caption."""
    workers = available_cores() if recipe.train.workers == "auto" else recipe.train.workers
    batch_size, augmentation = recipe.train.batch_size, recipe.train.augmentation
    side = min(model.image_preprocessor.size)

    def compute() -> list[Finding]:
        return corpus_findings(
            corpus,
            model.text_tokenizer.count,
            batch_size,
            max_tokens=max_tokens,
            augmentation=augmentation,
            side=side,
            workers=workers,
            embed=embed_images(model),
        )

    if not corpus.entry:  # a small corpus: the fingerprint of the model would cost more than its checks
        return compute()
    fingerprints = (model.text_tokenizer.fingerprint(), model.fingerprint("image"))
    settings = (batch_size, max_tokens, augmentation, side, *fingerprints)
    return stored_findings(corpus, SAMPLE_IMAGES, settings, compute)


def check_evaluation_split(recipe: Recipe, corpus: Corpus) -> list[str]:
    """Warnings about the split that is measured.

    Raises: DataError when it is empty.
    """
    split = recipe.evaluate.split
    if not len(corpus.splits[split]):
        raise DataError(f"corpus {corpus.card.name}: the {split} split is empty: nothing to measure")
    ((name, options),) = recipe.strategy.items()
    if (
        registry.build("strategies", name, options, f"strategy.{name}").support is not None
        and split == "validation"
    ):
        return [
            "evaluate.split: the class scorer was chosen on the validation split, so metrics on it "
            "are too high"
        ]
    if recipe.weight_interpolation is not None and split == "validation":
        return ["evaluate.split: α was selected on the validation split, so metrics on it are too high"]
    return []

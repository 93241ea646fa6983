"""A run before its first step: parts, base, corpus and job, each checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from domainclip import components
from domainclip.components import Components, WeightedObjectives
from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card, load_card
from domainclip.data.checks.findings import Finding, leak_messages, refuse_errors
from domainclip.data.checks.run_checks import corpus_findings
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.distributed import collectives
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation import embed_images
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines.curate import CuratedItems, curate
from domainclip.registry import build
from domainclip.strategies.base import InputRequirements, Strategy
from domainclip.training import optimizer, teachers
from domainclip.training.monitoring import tensorboard


@dataclass(frozen=True)
class Inputs:
    """A run before its first step."""

    recipe: Recipe
    parts: Components
    base: (
        DualEncoder  # what is trained, the strategy not applied yet: as loaded, or what a strategy made of it
    )
    corpus: Corpus
    terms: WeightedObjectives
    requirements: InputRequirements
    rate: float
    findings: list[Finding]
    warnings: list[str]
    invalid: list[str] = field(default_factory=list)  # leaks: a finished model may still be looked at
    curated: CuratedItems | None = None  # None: the corpus as it is
    original: DualEncoder | None = None  # the base as loaded, where another one is trained


def load_inputs(recipe: Recipe, *, measuring: bool = False) -> Inputs:
    """Hops 3 to 5: parts, base, corpus, each checked.

    A leak stops a training; `measuring` goes on, and everything it finds is marked invalid.

    Raises: RecipeError, ModelError or DataError, before anything is trained.
    """
    parts = components.build_components(recipe)
    optimizer.require_optimizer(recipe.train)
    tensorboard.require_tensorboard(recipe.train)
    warnings: list[str] = []
    card = load_card(recipe.corpus.card, recipe.corpus.overrides())
    _refuse_examples(recipe, card)
    build("readers", card.reader, card.options, "corpus.options")  # a wrong option fails before a download
    base = loading.load_model(recipe.base.path, recipe.base.revision)
    base.frames = parts.strategy.requirements(base).frames
    corpus = load_corpus(card, recipe.corpus.path)
    _refuse_stream(parts, corpus)
    parts = replace(parts, strategy=parts.strategy.with_classes(list(corpus.classes)))
    chosen = curate(corpus.splits["train"], parts.curation, base, recipe.evaluate.cache_embeddings)
    corpus.splits["train"] = chosen.items
    warnings += chosen.warnings
    original = base
    if not measuring:
        base = _trained_model(recipe, parts.strategy, original)
    terms = parts.objectives or components.build_objectives({base.objective: {}})
    if not measuring:
        teachers.fetch_models(terms)
        warnings += _doubts(recipe, parts, base, terms, len(corpus.stream or corpus.splits["train"]))
    requirements = parts.strategy.requirements(base)
    findings = collectives.on_first_process(partial(_findings, recipe, base, corpus, requirements.max_tokens))
    invalid = leak_messages(findings) if measuring else []
    refuse_errors([finding for finding in findings if finding.text not in invalid])
    warnings += [finding.text for finding in findings if finding.level == "warning"]
    rate = _rate(recipe, parts)
    return Inputs(
        recipe,
        parts,
        base,
        corpus,
        terms,
        requirements,
        rate,
        findings,
        warnings,
        invalid,
        chosen,
        original,
    )


def _trained_model(recipe: Recipe, strategy: Strategy, base: DualEncoder) -> DualEncoder:
    model = strategy.build_model(base)
    if model is not base and recipe.weight_interpolation is not None:
        raise RecipeError(
            f"weight_interpolation: strategy {next(iter(recipe.strategy))} begins with a new tower, so no "
            "line leads "
            "back to the base: leave weight_interpolation out"
        )
    return model


def _findings(recipe: Recipe, base: DualEncoder, corpus: Corpus, max_tokens: int) -> list[Finding]:
    return corpus_findings(
        corpus,
        base.text_tokenizer.count,
        recipe.train.batch_size,
        max_tokens=max_tokens,
        augmentation=recipe.train.augmentation,
        side=min(base.image_preprocessor.size),
        workers=recipe.train.workers,
        embed=embed_images.embed_images(base),
    )


def _refuse_examples(recipe: Recipe, card: Card) -> None:
    """Pictures may stand in a report only when someone has looked, and said so in the card."""
    privacy = card.privacy
    safe = privacy.burned_in_text == "no" and privacy.identifiers in ("none", "de-identified")
    if recipe.report.examples and not safe:
        raise RecipeError(
            f"report.examples: card {card.name} says identifiers {privacy.identifiers}, burned-in text "
            f"{privacy.burned_in_text}: look at the pictures and say so under privacy, or leave examples out"
        )


def _refuse_stream(parts: Components, corpus: Corpus) -> None:
    """What needs all pairs at once is no work for a stream."""
    if corpus.stream is not None and parts.curation:
        raise RecipeError(
            f"curation.{next(iter(parts.curation))}: needs all training pairs at once, and a stream shows a "
            "few: leave it out, or store the corpus with domainclip data prepare and train on that"
        )


def _rate(recipe: Recipe, parts: Components) -> float:
    return recipe.train.learning_rate or parts.strategy.default_learning_rate


def _doubts(
    recipe: Recipe, parts: Components, base: DualEncoder, terms: WeightedObjectives, pairs: int
) -> list[str]:
    doubts = []
    name = next(iter(recipe.strategy))
    ceiling = parts.strategy.max_learning_rate
    rate = _rate(recipe, parts)
    if ceiling is not None and rate > ceiling:
        doubts.append(
            f"train.learning_rate: {rate:g} is above {ceiling:g}, where strategy {name} usually destroys "
            "what the base knows"
        )
    used = terms.losses_replaced
    if used and base.objective not in used.values():
        doubts.append(
            f"objectives: {', '.join(used)}, but family {base.family} was trained with {base.objective}: "
            "its scale and bias may not fit"
        )
    if pairs and pairs < recipe.train.batch_size:
        doubts.append(
            f"train.batch_size: {recipe.train.batch_size} is more than {pairs} pairs; taking {pairs}"
        )
    if not pairs:
        raise DataError(f"corpus {recipe.corpus.card or recipe.corpus.path}: no training pair is left")
    return doubts


def identity(ready: Inputs) -> dict[str, Any]:
    """What a checkpoint must agree with: recipe, corpus, and the weights it starts from."""
    return {
        "recipe": ready.recipe.identity(),
        "corpus": ready.corpus.fingerprint,
        "base": ready.base.fingerprint("all"),
        "curated": None if ready.curated is None else ready.curated.digest(),
    }

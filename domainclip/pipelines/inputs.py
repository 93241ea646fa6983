"""Hop 2: load everything that a recipe names, and check it before anything is measured or trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from domainclip.components import Components, WeightedObjectives, build_components, build_objectives
from domainclip.config.recipe import Recipe
from domainclip.data.cards import load_card
from domainclip.data.checks.findings import Finding, leak_messages, refuse_errors
from domainclip.data.corpus import Corpus, build_reader, load_corpus
from domainclip.data.interfaces import Curation
from domainclip.errors import RecipeError
from domainclip.evaluation import contamination
from domainclip.evaluation.contamination import TrainingRecord
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.pipelines import input_checks
from domainclip.pipelines.curate import CuratedItems, curate
from domainclip.pipelines.retention import load_retention
from domainclip.strategies.base import InputRequirements, Strategy
from domainclip.training.monitoring.tensorboard import require_tensorboard
from domainclip.training.optimizer import require_optimizer
from domainclip.training.teachers import fetch_models

Purpose = Literal["train", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a command reads, loaded and checked."""

    recipe: Recipe
    components: Components
    base: DualEncoder  # as published, with the images per item that the strategy requires
    model: DualEncoder  # what is trained: `base` itself, unless the strategy builds another one of it
    corpus: Corpus  # its training split curated
    train_items: CuratedItems
    retention: Corpus | None  # outside the domain, to measure forgetting; None: not measured
    objectives: WeightedObjectives  # of the recipe, or the one that the family of the base is trained with
    requirements: InputRequirements
    learning_rate: float  # at its peak
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    invalid: tuple[str, ...]  # leaks between splits; always empty for training, which they stop
    training_record: TrainingRecord | None  # images behind the adapted model; None to evaluate


def load_inputs(recipe: Recipe, purpose: Purpose) -> Inputs:
    """Load and check components, base, corpus, training items and retention set, in this order.

    To evaluate, neither training items nor libraries of training are required, the strategy builds no model,
    and leaks make the results invalid, where they stop a training.

    Raises: RecipeError, ModelError or DataError.
    """
    components = build_components(recipe)
    if purpose == "train":
        require_optimizer(recipe.train)
        require_tensorboard(recipe.train)
    card = load_card(recipe.corpus.card, recipe.corpus.overrides())
    input_checks.check_examples(recipe, card)
    reader = build_reader(card)  # a wrong option fails before a download
    base = load_base(recipe, components.strategy)
    corpus = load_corpus(card, recipe.corpus.path, reader=reader)
    components = replace(components, strategy=components.strategy.with_classes(list(corpus.classes)))
    curation = _curation(components, corpus, purpose)
    train_items = curate(corpus.splits["train"], curation, base, on_disk=recipe.evaluate.cache_embeddings)
    corpus = corpus.with_train_items(train_items.items)
    model = _build_model(recipe, components.strategy, base) if purpose == "train" else base
    objectives = components.objectives or build_objectives({model.objective: {}})
    learning_rate = recipe.train.learning_rate or components.strategy.default_learning_rate
    warnings = list(train_items.warnings)
    if purpose == "train":
        fetch_models(objectives)
        warnings += input_checks.check_training(recipe, components, model, objectives, learning_rate, corpus)
    requirements = components.strategy.requirements(model)
    findings = input_checks.check_corpus(recipe, corpus, model, requirements.max_tokens)
    invalid = leak_messages(findings) if purpose == "evaluate" else []
    refuse_errors([finding for finding in findings if finding.text not in invalid])
    warnings += [finding.text for finding in findings if finding.level == "warning"]
    warnings += input_checks.check_evaluation_split(recipe, corpus)
    retention, retention_warnings = load_retention(recipe, corpus.card)
    return Inputs(
        recipe=recipe,
        components=components,
        base=base,
        model=model,
        corpus=corpus,
        train_items=train_items,
        retention=retention,
        objectives=objectives,
        requirements=requirements,
        learning_rate=learning_rate,
        findings=tuple(findings),
        warnings=(*warnings, *retention_warnings),
        invalid=tuple(invalid),
        training_record=_training_record(recipe, corpus) if purpose == "train" else None,
    )


def load_base(recipe: Recipe, strategy: Strategy, revision: str | None = None) -> DualEncoder:
    """The base as published, shown as many images per item as the strategy requires."""
    base = load_model(recipe.base.path, revision or recipe.base.revision)
    return base.with_frames(strategy.requirements(base).frames)


def _curation(components: Components, corpus: Corpus, purpose: Purpose) -> Mapping[str, Curation]:
    """The curation to apply: to evaluate, none where no training item is at hand."""
    if purpose == "evaluate":
        has_items = corpus.stream is None and len(corpus.splits["train"]) > 0
        return components.curation if has_items else {}
    input_checks.check_stream(components, corpus)
    return components.curation


def _build_model(recipe: Recipe, strategy: Strategy, base: DualEncoder) -> DualEncoder:
    model = strategy.build_model(base)
    if model is not base and recipe.weight_interpolation is not None:
        raise RecipeError(
            f"weight_interpolation: strategy {next(iter(recipe.strategy))} begins with a new tower, so no "
            "line leads "
            "back to the base: leave weight_interpolation out"
        )
    return model


def _training_record(recipe: Recipe, corpus: Corpus) -> TrainingRecord:
    return contamination.record(corpus, contamination.load(recipe.base.path))

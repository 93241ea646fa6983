"""Hop 2: load everything that a recipe names, and check it before anything is measured or trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from domainclip.components import Components, WeightedObjectives, build_components, build_objectives
from domainclip.config.recipe import Recipe
from domainclip.data.cards import load_card
from domainclip.data.checks.findings import Finding, leak_messages, refuse_errors
from domainclip.data.corpus import Corpus, build_reader, load_corpus
from domainclip.evaluation import contamination
from domainclip.evaluation.base import Probe
from domainclip.evaluation.contamination import TrainingRecord, record_corpora
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines import early_checks, input_checks
from domainclip.pipelines.anchor_captions import AnchorCaptions, load_anchor_captions
from domainclip.pipelines.anchor_images import AnchorImageSet, load_anchor_images
from domainclip.pipelines.base_model import load_base
from domainclip.pipelines.curate import CuratedItems, curate_corpus
from domainclip.pipelines.mixed_corpora import MixedCorpus, load_mixed, with_notes
from domainclip.pipelines.relabel import relabel_items
from domainclip.pipelines.retention import load_retention
from domainclip.strategies.base import InputRequirements
from domainclip.training.checkpointing import sharded_files
from domainclip.training.monitoring.trackers import require_trackers
from domainclip.training.optimizer import require_optimizer
from domainclip.training.teachers import fetch_models

Purpose = Literal["train", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class EvaluationInputs:
    """What an evaluation reads besides the models, loaded and checked."""

    recipe: Recipe
    probes: Mapping[str, Probe]
    corpus: Corpus  # its training split curated
    retention: Corpus | None  # outside the domain, to measure forgetting; None: not measured
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()  # leaks between splits; always empty for training, which they stop
    training_record: TrainingRecord | None = None  # images behind the adapted model; None to evaluate

    @property
    def guesses(self) -> Iterator[str]:
        """A line for each corpus whose columns were guessed."""
        if self.corpus.guesses:
            yield f"corpus: {self.corpus.guesses}"
        if self.retention is not None and self.retention.guesses:
            yield f"retention set: {self.retention.guesses.replace('corpus.columns', 'retention.columns')}"


@dataclass(frozen=True, kw_only=True)
class Inputs(EvaluationInputs):
    """What a training reads, loaded and checked."""

    components: Components
    base: DualEncoder  # as published, with the images per item that the strategy requires
    model: DualEncoder  # what is trained: `base` itself, unless the strategy builds another one of it
    train_items: CuratedItems
    objectives: WeightedObjectives  # of the recipe, or the one that the family of the base is trained with
    requirements: InputRequirements
    learning_rate: float  # at its peak
    mixed: tuple[MixedCorpus, ...] = ()  # the corpora of train.mix
    anchor_images: AnchorImageSet | None = None  # where an objective asks for them
    anchor_captions: AnchorCaptions = field(default_factory=AnchorCaptions)


def load_inputs(recipe: Recipe, purpose: Purpose) -> Inputs:
    """Load and check components, base, corpus, training items and retention set, in this order.

    To evaluate variants of a recipe, neither training items nor libraries of training are required, the
    strategy builds no model, and leaks make the results invalid, where they stop a training.

    Raises: RecipeError, ModelError or DataError.
    """
    components = build_components(recipe)
    warnings = _check_training(recipe, components) if purpose == "train" else []
    card = load_card(recipe.corpus.card, recipe.corpus.overrides())
    input_checks.check_examples(recipe, card)
    early_checks.check_recipe(recipe)  # a wrong option, path or column fails before a download
    reader = build_reader(card)
    base = load_base(recipe, components.strategy)
    corpus = load_corpus(card, recipe.corpus.path, reader=reader, training=not components.strategy.relabels)
    components = replace(components, strategy=components.strategy.with_classes(list(corpus.classes)))
    corpus, train_items = curate_corpus(
        corpus,
        components.curation,
        base,
        on_disk=recipe.evaluate.cache_embeddings,
        required=purpose == "train",
    )
    model = components.strategy.build_model(base) if purpose == "train" else base
    if purpose == "train":
        shown, train_items = relabel_items(recipe, components.strategy, corpus, train_items, base)
        input_checks.check_model(recipe, base, model)
    objectives = components.objectives or build_objectives({model.objective: {}})
    learning_rate = recipe.train.learning_rate or components.strategy.default_learning_rate
    warnings += train_items.warnings
    if purpose == "train":
        fetch_models(objectives)
        warnings += input_checks.check_training(recipe, components, model, objectives, learning_rate, shown)
    requirements = components.strategy.requirements(model)
    findings = input_checks.check_corpus(recipe, corpus, model, requirements.max_tokens)
    invalid = leak_messages(findings) if purpose == "evaluate" else []
    refuse_errors([finding for finding in findings if finding.text not in invalid])
    warnings += [finding.text for finding in findings if finding.level == "warning"]
    warnings += input_checks.check_evaluation_split(recipe, corpus)
    retention, retention_warnings = load_retention(recipe, corpus.card)
    inputs = Inputs(
        recipe=recipe,
        probes=components.probes,
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
    )
    return _with_further_data(inputs) if purpose == "train" else inputs


def _check_training(recipe: Recipe, components: Components) -> list[str]:
    """Refuse settings of training whose library is not installed, and objectives without effect.

    Warnings about the effect of objectives. Raises: RecipeError.
    """
    require_optimizer(recipe.train)
    require_trackers(recipe.train)
    if recipe.train.sharded_checkpoints:
        sharded_files.require_library()
    return components.check_reach(next(iter(recipe.strategy)))


def _with_further_data(inputs: Inputs) -> Inputs:
    """The inputs with what is trained on besides the corpus, and the record of all training images."""
    recipe, corpus, retention = inputs.recipe, inputs.corpus, inputs.retention
    mixed = load_mixed(recipe, corpus, retention)
    images = load_anchor_images(recipe, inputs.objectives, corpus, retention)
    corpora = [corpus, *(each.corpus for each in mixed)]
    trained = record_corpora(recipe.base.path, corpora, images.digests if images else ())
    joined = [contamination.load(name) for name in inputs.components.strategy.joined_models]
    return replace(
        inputs,
        corpus=with_notes(corpus, mixed),
        mixed=mixed,
        anchor_images=images,
        anchor_captions=load_anchor_captions(recipe, inputs.objectives, corpus, retention),
        training_record=contamination.join([known for known in (trained, *joined) if known is not None]),
    )

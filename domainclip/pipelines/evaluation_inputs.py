"""What `eval` reads: corpus and retention set before any model is loaded, and the checks with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from domainclip.components import build_curation, build_probes
from domainclip.config.recipe import Recipe
from domainclip.data.checks.findings import leak_messages, refuse_errors
from domainclip.data.corpus import Corpus
from domainclip.evaluation.base import Probe
from domainclip.models.base_loading import load_base_model
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines import input_checks
from domainclip.pipelines.curate import curate_corpus
from domainclip.pipelines.eval_request import TrainedRun
from domainclip.pipelines.inputs import EvaluationInputs
from domainclip.pipelines.measured_corpus import MeasuredCorpus, load_measured_corpus
from domainclip.pipelines.retention import load_retention


@dataclass(frozen=True)
class MeasuredInputs:
    """The inputs of an evaluation, and where their corpus comes from."""

    inputs: EvaluationInputs
    measured: MeasuredCorpus


def load_evaluation_inputs(
    recipe: Recipe,
    run: TrainedRun | None,
    changes: Sequence[str],
    *,
    own_recipe: bool,
    probes: Mapping[str, Probe] | None = None,
) -> MeasuredInputs:
    """Read the corpus, as `load_measured_corpus` does, and the retention set.

    `probes` replace those of the recipe. Nothing of the training is needed: no training items, no curation,
    no strategy, no objectives.

    Raises: RecipeError or DataError, before any model is loaded.
    """
    probes = build_probes(recipe) if probes is None else probes
    measured = load_measured_corpus(recipe, run, changes, own_recipe=own_recipe)
    card = measured.corpus.card
    if measured.external and not any(change.startswith("report") for change in changes):
        recipe = _without_unsafe_examples(recipe, measured.corpus)
    input_checks.check_examples(recipe, card)
    retention, warnings = _retention(recipe, measured)
    if not measured.external:
        warnings = (*input_checks.check_evaluation_split(recipe, measured.corpus), *warnings)
    return MeasuredInputs(
        EvaluationInputs(
            recipe=recipe, probes=probes, corpus=measured.corpus, retention=retention, warnings=warnings
        ),
        measured,
    )


def with_model_checks(loaded: MeasuredInputs, model: DualEncoder) -> EvaluationInputs:
    """The inputs with the training split curated, on which probes may fit, and the findings of all checks.

    `model` tokenizes and embeds for the checks.

    Raises: DataError for an error that is no leak: a leak makes the results invalid.
    """
    inputs, warnings = loaded.inputs, list(loaded.inputs.warnings)
    recipe = inputs.recipe
    if recipe.curation and not loaded.measured.external and len(inputs.corpus.splits["train"]):
        curation = build_curation(recipe)
        needs_base = any("base" in step.needs for step in curation.values())
        base = load_base_model(recipe.base.path, recipe.base.revision) if needs_base else None
        corpus, curated = curate_corpus(
            inputs.corpus, curation, base, on_disk=recipe.evaluate.cache_embeddings, required=False
        )
        warnings = [*curated.warnings, *warnings]
        inputs = replace(inputs, corpus=corpus)
    findings = input_checks.check_corpus(recipe, inputs.corpus, model, model.max_tokens)
    invalid = leak_messages(findings)
    refuse_errors([finding for finding in findings if finding.text not in invalid])
    warnings += [finding.text for finding in findings if finding.level == "warning"]
    return replace(inputs, findings=tuple(findings), warnings=tuple(warnings), invalid=tuple(invalid))


def _retention(recipe: Recipe, measured: MeasuredCorpus) -> tuple[Corpus | None, tuple[str, ...]]:
    """The retention set; of an external corpus, that of the recipe where it still exists.

    What the model forgot is in the report of the run: on another corpus it is no gap that needs a warning.
    """
    if not measured.external:
        return load_retention(recipe, measured.corpus.card)
    if recipe.retention is None or not Path(recipe.retention.path).exists():
        return None, ()
    return load_retention(recipe, measured.corpus.card)[0], ()


def _without_unsafe_examples(recipe: Recipe, corpus: Corpus) -> Recipe:
    if corpus.card.content_may_show:
        return recipe
    return recipe.model_copy(update={"report": recipe.report.model_copy(update={"examples": False})})

"""The model card, with losses as prominent as gains."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError

from domainclip import components, registry
from domainclip.config import strict_yaml
from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card, load_card
from domainclip.errors import RecipeError
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, WORSE, ComparisonRow
from domainclip.report import external_evaluations, phrasing, questions, usage
from domainclip.report.citations import linked_in_markdown, sources
from domainclip.report.corpus_words import Words
from domainclip.report.external_evaluations import ExternalEvaluation, ExternalMetric
from domainclip.report.front_matter import LICENSES, is_language
from domainclip.report.redaction import hub_id, public_recipe
from domainclip.report.results_file import Result, ResultsFile
from domainclip.report.results_file import load as results_of
from domainclip.report.strict_file import Interval
from domainclip.report.usage import ModelUse

# By family, where it is not transformers that has a class for the weights.
_LIBRARIES = {"open_clip": "open_clip", "clip_ensemble": "domainclip"}
_TASKS = {"zero_shot": "zero-shot-image-classification", "retrieval": "image-text-retrieval"}
_PERSONS = {
    "none": "no personal identifiers",
    "de-identified": "data of persons, de-identified",
    "identified": "data of persons, with identifiers",
    "unknown": "not stated whether it holds personal identifiers",
}


@dataclass(frozen=True)
class CardFacts:
    """The contents of a card besides the metrics."""

    recipe: Recipe
    corpus: Card
    citations: Sequence[str] = ()
    license: str = "unknown"  # of the adapted weights: an identifier of the Hub, or a name

    @classmethod
    def of(cls, run: Path) -> CardFacts:
        """Read the facts from a run folder.

        Raises: RecipeError when its recipe or the card of its corpus cannot be read.
        """
        resolved = run_recipe(run)
        built = components.build_components(resolved)
        card = load_card(resolved.corpus.card, resolved.corpus.overrides())
        terms = built.objectives or _trained_with(run)
        return cls(resolved, card, sources(resolved, built, terms), resolved.report.license)


def _trained_with(run: Path) -> components.WeightedObjectives | None:
    """The objectives by the results, where the recipe names none and the base's family decides."""
    if not (run / "results.json").is_file():
        return None
    facts = results_of(run / "results.json").run.get("facts") or {}
    known = registry.names("objectives")
    return components.build_objectives({name: {} for name in facts.get("objectives") or {} if name in known})


def write_card(run: Path, results: ResultsFile, facts: CardFacts | None = None) -> str:
    """Write README.md to the run folder; returns its text."""
    use = ModelUse.of(run / "model", family(results))
    text = render(results, facts or CardFacts.of(run), use, external_evaluations.load(run))
    (run / "README.md").write_text(text, encoding="utf-8")
    return text


def family(results: ResultsFile) -> str:
    """The model type of the adapted weights; that of the base in the results of an evaluation alone."""
    return str(results.adapted.get("family") or results.base.get("family") or "clip")


def render(
    results: ResultsFile, facts: CardFacts, use: ModelUse, external: Sequence[ExternalEvaluation] = ()
) -> str:
    """The card of an adapter, or of plain weights, as Markdown with the front matter that the Hub reads.

    `external` are the evaluations of the run on other corpora; without any, the card says so.
    """
    # All values pass through `markdown`: no template can omit it. Markup is made here, and is unchanged.
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        finalize=phrasing.markdown,
        keep_trailing_newline=True,
    )
    front = strict_yaml.dump_yaml(_front(results, facts, use))
    body = pages.get_template("card.md.j2").render(
        _sections(results, facts, use),
        phrasing=phrasing,
        external=[_external(evaluation) for evaluation in external],
    )
    return f"---\n{front}---\n\n{body}"


def run_recipe(run: Path) -> Recipe:
    """Read the recipe of a run folder, with its paths unchanged.

    Raises: RecipeError for a missing or invalid recipe.
    """
    file = run / "recipe.yaml"
    if not file.is_file():
        raise RecipeError(f"{file}: no such file: give a run folder, for example runs/art-1")
    try:
        return Recipe.model_validate(strict_yaml.read_yaml(file, "a recipe"))
    except ValidationError as error:
        raise RecipeError(f"{file}: {registry.format_validation_error(error, '')}") from None


def _front(results: ResultsFile, facts: CardFacts, use: ModelUse) -> dict[str, Any]:
    """The front matter for the Hub; it has only validated names."""
    base = hub_id(facts.recipe.base.path)
    known = facts.license in LICENSES
    data = ModelCardData(
        language=[code for code in facts.corpus.language if is_language(code)] or None,
        license=facts.license if known else "other",
        license_name=None if known else _slug(facts.license),
        library_name="peft" if use.adapter else _LIBRARIES.get(use.family, "transformers"),
        pipeline_tag="zero-shot-image-classification",
        base_model=base,
        base_model_relation=base and _relation(use),
        datasets=[public] if (public := _public_corpus(facts)) else None,
        tags=["domainclip", "clip", _slug(next(iter(facts.recipe.strategy)))],
        model_name=_slug(facts.recipe.name),
        eval_results=list(_measured(results, facts)) or None,
    )
    front: dict[str, Any] = data.to_dict()
    front.pop("model_name", None)  # not removed by the library if there are no results
    return front


def _relation(use: ModelUse) -> str:
    """How the weights follow from the base, by the Hub's terms."""
    if use.adapter:
        return "adapter"
    return "merge" if use.family == "clip_ensemble" else "finetune"


def _measured(results: ResultsFile, facts: CardFacts) -> Iterator[EvalResult]:
    general = results.corpus.get("retention") or {}
    for row in results.results:
        value = row.adapted.value if row.adapted else None
        # Null controls and descriptions are no results of the model.
        if value is None or "/" in row.metric or row.not_judged or row.verdict == NO_VERDICT:
            continue
        about = general if row.dataset == general.get("set") else results.corpus
        name = str(phrasing.plain(str(about.get("name") or facts.corpus.name)))
        yield EvalResult(
            task_type=_TASKS.get(row.probe, "zero-shot-image-classification"),
            # A repository name or a plain word, never a path.
            dataset_type=(about is results.corpus and _public_corpus(facts))
            or _slug(str(about.get("card") or name)),
            dataset_name=name,
            dataset_split=row.dataset,
            metric_type=row.metric,
            metric_name=phrasing.metric_name(row.metric),
            metric_value=round(value, 4),
        )


def _public_corpus(facts: CardFacts) -> str | None:
    return hub_id(facts.recipe.corpus.path) if facts.corpus.reader == "hub" else None


def _sections(results: ResultsFile, facts: CardFacts, use: ModelUse) -> dict[str, Any]:
    """The variables of the template."""
    rows = [_row(result) for result in results.results]
    general = str((results.corpus.get("retention") or {}).get("set", ""))
    base = hub_id(facts.recipe.base.path)
    privacy = facts.corpus.privacy
    revision = facts.recipe.base.revision or results.base.get("revision")
    return {
        "name": facts.recipe.name.replace("_", " "),
        "base": base and Markup(base),  # a validated name, without markup
        "revision": revision,
        "usage": usage.blocks(use, base, revision),
        "use": use,
        "strategy": next(iter(facts.recipe.strategy)).replace("_", " "),
        "corpus": str(results.corpus.get("name") or facts.corpus.pretty_name or facts.corpus.name),
        "corpus_card": "" if facts.corpus.name == "unnamed" else facts.corpus.name,
        "corpus_license": facts.corpus.license,
        "corpus_description": first_paragraph(facts.corpus.description),
        "splits": results.corpus.get("splits", {}),
        "valid": results.valid,
        "warnings": results.warnings,
        "lead": questions.lead(rows, _words(results, general), results.valid),
        "group_name": _words(results, general).groups,
        "claims": [
            (row.verdict, phrasing.claim(row, general, results.valid))
            for row in sorted((row for row in rows if row.primary), key=lambda row: row.dataset == general)
        ],
        "rows": [row for row in rows if not row.part],
        "worse": phrasing.changes(rows, WORSE),
        "better": phrasing.changes(rows, BETTER),
        "nothing_worse": phrasing.no_changes(rows, WORSE),
        "nothing_better": phrasing.no_changes(rows, BETTER),
        "forgetting_measured": bool(general),
        "persons": _PERSONS[privacy.identifiers],
        "burned_in": privacy.burned_in_text,
        "medical": facts.corpus.reader == "dicom" or privacy.identifiers in ("identified", "de-identified"),
        "license": facts.license,
        "recipe": phrasing.fence(public_recipe(facts.recipe).rstrip()),
        "citations": [linked_in_markdown(citation) for citation in facts.citations],
    }


def _external(evaluation: ExternalEvaluation) -> str:
    """An evaluation on another corpus in one line."""
    metrics = ", ".join(map(_external_metric, evaluation.metrics))
    size = f"{evaluation.items:,} items, {evaluation.groups:,} groups"
    return f"{evaluation.corpus}, {size}, {evaluation.when}: {metrics or 'no headline metric'}"


def _external_metric(metric: ExternalMetric) -> str:
    interval = _estimate(Interval(value=metric.value, low=metric.low, high=metric.high))
    base = "" if metric.base is None else f"; base {phrasing.number(metric.base, metric.unit)}"
    return (
        f"{phrasing.probe_name(metric.probe)} {phrasing.metric_name(metric.metric)} "
        f"{phrasing.number(metric.value, metric.unit)} ({phrasing.span(interval, metric.unit)}{base})"
    )


def _words(results: ResultsFile, retention_set: str) -> Words:
    corpus = results.corpus
    return Words(
        str(corpus.get("group_name") or "groups"), str(corpus.get("class_name") or "class"), retention_set
    )


def _row(result: Result) -> ComparisonRow:
    difference = result.difference
    together = difference.simultaneous if difference else None
    return ComparisonRow(
        probe=result.probe,
        dataset=result.dataset,
        metric=result.metric,
        higher_is_better=result.higher_is_better,
        unit=result.unit,
        chance=result.chance,
        primary=result.headline,
        n=result.items,
        groups=result.groups,
        undefined=0.0,
        base=_estimate(result.base),
        adapted=_estimate(result.adapted) if result.adapted else None,
        difference=_estimate(difference, _number(difference.p)) if difference else None,
        ids=(),
        owners=(),
        base_scores=np.empty(0),
        adapted_scores=None,
        verdict=result.verdict,
        comparable=result.verdict != NO_VERDICT,
        control_fault=result.not_judged,
        too_few=result.no_interval,
        biased=bool(result.by_luck),
        by_luck=result.by_luck,
        comparisons=difference.comparisons if difference else 1,
        adjusted_p=difference.adjusted_p if difference else None,
        simultaneous=_estimate(together, difference.adjusted_p) if difference and together else None,
        margin=difference.margin if difference else None,
    )


def _estimate(interval: Interval, p: float | None = None) -> Estimate:
    return Estimate(_number(interval.value), _number(interval.low), _number(interval.high), p)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def first_paragraph(description: str) -> str:
    """The first paragraph of the description of the corpus, without the marks of bold text and of code."""
    paragraphs = (paragraph.strip() for paragraph in re.split(r"\n\s*\n", description))
    text = next((text for text in paragraphs if text and not text.startswith("#")), "")
    return re.sub(r"(\*\*|`)(?=\S)([^*`]+?)(?<=\S)\1", r"\2", text)


def _slug(text: str) -> str:
    """The text as a word of lower-case letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"

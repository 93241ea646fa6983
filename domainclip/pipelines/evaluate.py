"""The verb `eval`: any model, alone, against another, or several in one table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator
from datasets import concatenate_datasets

from domainclip.config import loading
from domainclip.config.recipe import Recipe
from domainclip.data.cards import load_card
from domainclip.data.corpus import load_corpus
from domainclip.distributed import collectives
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation import contamination, split_usage, suites
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import compare_models
from domainclip.evaluation.suites import ExtraSet, Suite
from domainclip.models import loading as models_loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines import protocol, reporting
from domainclip.pipelines.inputs import Inputs, load_inputs
from domainclip.pipelines.protocol import evaluation_sets
from domainclip.report import gallery, model_facts, writer


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What was asked for on the command line."""

    models: Sequence[str]  # a run folder, a checkpoint folder, a Hub id, or "base"
    overrides: Sequence[str] = ()
    against: str | None = None
    recipe: str | None = None
    suite: str | None = None
    classes: str | None = None  # "cat,dog", or a file
    templates: Sequence[str] = ()
    split: str | None = None
    out: Path | None = None
    command: str = ""


def evaluate_models(asked: EvalRequest) -> Path | None:
    """Measures the models on the same items; the report's path, on the first process.

    One model is reported alone, two as before and after, more as a table against the first.

    Raises: RecipeError when nothing says what to measure on; whatever reading models and corpus raises.
    """
    names = [*([asked.against] if asked.against else []), *asked.models]
    recipe = _recipe(asked, names)
    suite = suites.load(asked.suite) if asked.suite else None
    probes: dict[str, Probe] | None = suite.assemble() if suite else None
    ready = load_inputs(recipe, measuring=True)
    if probes is not None:
        ready = replace(ready, parts=replace(ready.parts, probes=probes))
    warnings = list(ready.warnings)
    sets = _sets(asked, recipe, suite, ready, warnings)
    folder = collectives.on_first_process(lambda: _folder(asked, names))  # one that cannot be made fails now
    models = _load(names, ready)
    labels = _different(
        [model_facts.model_label(name, model) for name, model in zip(names, models, strict=True)]
    )
    seen_before, said = contamination.find_overlap(_known(recipe, names, labels), sets)
    cache = EmbeddingCache.make(on_disk=recipe.evaluate.cache_embeddings)
    encoders = [CachedEncoder(model, cache) for model in models]
    settings = recipe.evaluate
    found = compare_models(
        encoders, sets, ready.parts.probes, resamples=settings.bootstrap_samples, seed=settings.seed
    )
    shown = gallery.gallery_examples(recipe, sets[0], encoders[:2])
    collectives.wait_for_all()
    if collectives.rank() > 0:
        return None
    readings = split_usage.record_split_usage(sets, found[0], encoders, None)
    titled = reporting.report_context(
        replace(ready, base=models[0], invalid=[*ready.invalid, *seen_before]),
        sets,
        command=asked.command,
        warnings=warnings,
        readings=readings,
        shown=shown,
        trained_on=said,
    )
    if len(found) == 1:
        return writer.write(folder, found[0], titled)
    about = [model_facts.model_facts(model) for model in models]
    return writer.write_comparison(folder, found, titled, dict(zip(labels, about, strict=True)))


def _known(
    recipe: Recipe, names: Sequence[str], labels: Sequence[str]
) -> dict[str, contamination.TrainingRecord | None]:
    """What each model was trained on, by its label."""
    sources = [recipe.base.path if name == "base" else name for name in names]
    return {label: contamination.load(source) for label, source in zip(labels, sources, strict=True)}


def _recipe(asked: EvalRequest, names: Sequence[str]) -> Recipe:
    """The recipe that was named, or that of the first run among the models."""
    own = next(
        (Path(name) / "recipe.yaml" for name in asked.models if (Path(name) / "recipe.yaml").is_file()), None
    )
    if asked.recipe is None and own is None:
        raise RecipeError(f"eval {names[-1]}: not a run folder: say what to measure on with --recipe")
    said = [*asked.overrides, *([f"evaluate.split={asked.split}"] if asked.split else [])]
    return loading.load_recipe(asked.recipe or str(own), said)


def _sets(
    asked: EvalRequest, recipe: Recipe, suite: Suite | None, ready: Inputs, warnings: list[str]
) -> list[EvaluationSet]:
    """The corpus's own set, its classes as asked for; the general set; and what the suite adds."""
    first, *others = protocol.reported_sets(evaluation_sets(recipe, ready.corpus, warnings), recipe)
    chosen = suites.classes(asked.classes) if asked.classes else dict(suite.classes) if suite else {}
    templates = [*asked.templates] or (suite.templates if suite else [])
    if chosen:
        first = replace(first, classes=suites.own_classes(first.card, chosen, templates))
        _refuse_strangers(first, asked)
    elif templates:
        first = replace(first, classes=suites.with_templates(first.classes, templates, bare=False))
    taken = {first.name, *(one.name for one in others)}
    for name, source in (suite.sets if suite else {}).items():
        if name in taken:
            raise RecipeError(f'sets.{name}: there is a set "{name}" already: call it otherwise')
        others.append(_extra(name, source))
    return [first, *others]


def _refuse_strangers(data: EvaluationSet, asked: EvalRequest) -> None:
    """Classes that no item has would make a chance figure of a typing error."""
    labels = {label for row in data.items["labels"][:] for label in row}
    if labels and not labels & set(data.classes):
        shown = f"; labels there: {', '.join(sorted(labels)[:8])}" if data.card.names_may_show else ""
        raise RecipeError(
            f"--classes: no item of {data.name} has one of {', '.join(list(data.classes)[:8])}{shown}"
        )


def _extra(name: str, source: ExtraSet) -> EvaluationSet:
    card = load_card(source.card, source.overrides())
    corpus = load_corpus(card, source.path)
    known = {"fingerprint": corpus.fingerprint, "split": source.split}
    if source.split == "all":
        items = concatenate_datasets(list(corpus.splits.values()))
        return EvaluationSet(name, items, card, corpus.classes, **known)
    items = corpus.splits[source.split]
    if not len(items):
        raise DataError(
            f"sets.{name}: its {source.split} split is empty: say split: all to measure on everything"
        )
    train = corpus.splits["train"]
    validation = corpus.splits["validation"] if source.split == "test" else train.select([])
    return EvaluationSet(
        name,
        items,
        card,
        corpus.classes,
        train=train if len(train) else None,
        validation=validation if len(validation) else None,
        **known,
    )


def _load(names: Sequence[str], ready: Inputs) -> list[DualEncoder]:
    """The towers of each name; a name that is given twice is loaded once."""
    device = Accelerator().device
    loaded: dict[str, DualEncoder] = {}
    for name in names:
        if name not in loaded:
            inside = Path(name) / "model"
            loaded[name] = (
                ready.base
                if name == "base"
                else models_loading.load_model(inside if inside.is_dir() else name)
            ).to(device)
    _see_as_many([*loaded.values()])
    return [loaded[name] for name in names]


def _see_as_many(models: Sequence[DualEncoder]) -> None:
    """All are shown the same pictures of an item; who pools in no way of its own takes the mean over them."""
    most = max(model.frames for model in models)
    for model in models:
        model.frames = most if model.frame_pooling is None else model.frames


def _different(labels: Sequence[str]) -> list[str]:
    """Two runs of one name, from different folders, are told apart by their place in the table."""
    again = {label for label in labels if labels.count(label) > 1}
    return [f"{label} ({place})" if label in again else label for place, label in enumerate(labels, 1)]


def _folder(asked: EvalRequest, names: Sequence[str]) -> Path:
    last = Path(names[-1])
    if asked.out is not None:
        folder = asked.out
    elif len(names) > 2 or len(asked.models) > 1:
        folder = Path("eval") / "compare"
    else:
        folder = last / "eval" if (last / "recipe.yaml").is_file() else Path("eval") / last.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".draft.{os.getpid()}"
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be written: {error.strerror}: name another with --out") from None
    return folder

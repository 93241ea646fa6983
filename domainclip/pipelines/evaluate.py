"""The command `eval`: measure any model alone, against another, or several in one table."""

from __future__ import annotations

import logging
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
from domainclip.distributed.collectives import first_process
from domainclip.distributed.folder_lock import locked_folder, refuse_if_in_use
from domainclip.errors import DataError, RecipeError, did_you_mean
from domainclip.evaluation import contamination, run_classes, suites
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.contamination import TrainingRecord, find_overlap
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import Evaluation, compare_models
from domainclip.evaluation.run_classes import RunClasses
from domainclip.evaluation.split_usage import Measured, new_evaluation, record_split_usage
from domainclip.evaluation.suites import ExtraSet, Suite
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.protocol import make_protocol
from domainclip.pipelines.reporting import report_context
from domainclip.pipelines.run_decisions import record_evaluated_run
from domainclip.report import model_facts, writer
from domainclip.report.context import ReportContext
from domainclip.report.gallery import gallery_examples

log = logging.getLogger("domainclip")
_OTHER_FOLDER = "name another with --out"


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """The options of the command."""

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


def evaluate_models(request: EvalRequest) -> Path | None:
    """Measure the models on the same items; the report's path, on the first process.

    One model is reported alone, two as before and after, more as a table against the first.

    Raises: RecipeError when nothing says what to measure on; whatever loading models and corpus raises.
    """
    names = [*([request.against] if request.against else []), *request.models]
    recipe = _recipe(request, names)
    folder = _report_folder(request, names)
    # A report inside a run is written to the run, which must not train then; the others are only read.
    locked = folder.parent if (folder.parent / "recipe.yaml").is_file() else folder
    _refuse_runs_in_use([Path(name) for name in names if Path(name) != locked])
    Accelerator()  # connects the processes, of which one holds the lock for all
    with locked_folder(locked, _OTHER_FOLDER):
        return _evaluate(request, names, recipe, folder)


def _evaluate(request: EvalRequest, names: Sequence[str], recipe: Recipe, folder: Path) -> Path | None:
    suite = suites.load(request.suite) if request.suite else None
    probes: dict[str, Probe] | None = suite.assemble() if suite else None
    inputs = load_inputs(recipe, "evaluate")
    if probes is not None:
        inputs = replace(inputs, components=replace(inputs.components, probes=probes))
    protocol = make_protocol(inputs)
    reported, classes = _sets(request, suite, protocol.reported)
    protocol = replace(protocol, reported=reported)
    _make_folder(folder)  # one that cannot be made fails now
    models = _load(names, inputs.base)
    labels = _different(
        [model_facts.model_label(name, model) for name, model in zip(names, models, strict=True)]
    )
    overlap = find_overlap(_training_records(recipe, names, labels), protocol.reported)
    protocol = replace(protocol, overlap=overlap)
    encoders = [CachedEncoder(model, protocol.embeddings) for model in models]
    evaluations = compare_models(
        encoders,
        protocol.reported,
        protocol.probes,
        resamples=protocol.bootstrap_samples,
        seed=protocol.seed,
    )
    examples = gallery_examples(recipe, protocol.reported[0], encoders[:2])
    collectives.wait_for_all()
    if collectives.rank() > 0:
        return None
    context = report_context(
        inputs,
        protocol,
        models[0],
        command=request.command,
        warnings=[*inputs.warnings, *([classes] if classes else [])],
        readings=record_split_usage(
            protocol.reported,
            evaluations[0],
            Measured.of(new_evaluation(), encoders, inputs.base.fingerprint("all")),
        ),
        examples=examples,
        adapted=model_facts.model_facts(models[1], labels[1]) if len(models) == 2 else None,
    )
    _announce(context, evaluations)
    record_evaluated_run(folder.parent, names, protocol, evaluations)
    if len(evaluations) == 1:
        return writer.write(folder, evaluations[0], context)
    about = [model_facts.model_facts(model) for model in models]
    return writer.write_comparison(folder, evaluations, context, dict(zip(labels, about, strict=True)))


def _announce(context: ReportContext, evaluations: Sequence[Evaluation]) -> None:
    """Print what the report says about the validity of the metrics: exit code 0 alone would hide it."""
    for reason in context.invalid:
        log.warning("not valid: %s", reason)
    measured = (warning for evaluation in evaluations for warning in evaluation.warnings)
    for warning in dict.fromkeys([*context.warnings, *measured]):
        log.warning("warning: %s", warning)
    if context.readings is not None and context.readings.warning:
        log.warning("warning: %s", context.readings.warning)


def _training_records(
    recipe: Recipe, names: Sequence[str], labels: Sequence[str]
) -> dict[str, TrainingRecord | None]:
    """The images that each model was trained on, by its label."""
    sources = [recipe.base.path if name == "base" else name for name in names]
    return {label: contamination.load(source) for label, source in zip(labels, sources, strict=True)}


def _recipe(request: EvalRequest, names: Sequence[str]) -> Recipe:
    """The recipe that was named, or that of the first run among the models."""
    files = (Path(name) / "recipe.yaml" for name in request.models)
    recipe_of_run = next((file for file in files if file.is_file()), None)
    if request.recipe is None and recipe_of_run is None:
        raise RecipeError(f"eval {names[-1]}: not a run folder: say what to measure on with --recipe")
    split = [f"evaluate.split={request.split}"] if request.split else []
    return loading.load_recipe(request.recipe or str(recipe_of_run), [*request.overrides, *split])


def _sets(
    request: EvalRequest, suite: Suite | None, sets: Sequence[EvaluationSet]
) -> tuple[list[EvaluationSet], str]:
    """The set of the corpus with its classes, the retention set, and the sets of the suite.

    Also which classes are measured, in words, where they are not simply those of the corpus.
    """
    first, *others = sets
    chosen = (
        suites.parse_classes(request.classes) if request.classes else dict(suite.classes) if suite else {}
    )
    templates = [*request.templates] or (suite.templates if suite else [])
    which = ""
    if chosen:
        first = replace(first, classes=suites.with_default_templates(first.card, chosen, templates))
        _check_classes(first)
    else:
        classes, which = run_classes.default_classes(first, _classes_of_run(request))
        first = replace(first, classes=classes)
    if templates and not chosen:
        first = replace(first, classes=suites.with_templates(first.classes, templates, only_names=False))
    taken = {data.name for data in sets}
    for name, source in (suite.sets if suite else {}).items():
        if name in taken:
            raise RecipeError(f'sets.{name}: there is a set "{name}" already: call it otherwise')
        others.append(_extra_set(name, source))
    return [first, *others], which


def _classes_of_run(request: EvalRequest) -> RunClasses | None:
    """The classes of the first run among the models that has any."""
    records = (run_classes.load(name) for name in request.models)
    return next((record for record in records if record is not None), None)


def _check_classes(data: EvaluationSet) -> None:
    """With classes that no item has, a typing error would end as a metric at chance.

    Raises: RecipeError.
    """
    labels = {label for row in data.items["labels"][:] for label in row}
    if labels and not labels & set(data.classes):
        names = list(data.classes)
        hint = f": {did_you_mean(names[0], labels)}" if data.card.names_may_show else ""
        raise RecipeError(f"--classes: no item of {data.name} has one of {', '.join(names[:8])}{hint}")


def _extra_set(name: str, source: ExtraSet) -> EvaluationSet:
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


def _load(names: Sequence[str], base: DualEncoder) -> list[DualEncoder]:
    """The model of each name, loaded once, and all shown the same images of an item.

    A model that pools images in no way of its own takes the mean over them.
    """
    device = Accelerator().device
    loaded: dict[str, DualEncoder] = {}
    for name in dict.fromkeys(names):
        inside = Path(name) / "model"
        model = base if name == "base" else load_model(inside if inside.is_dir() else name)
        loaded[name] = model.to(device)
    frames = max(model.frames for model in loaded.values())
    shown = {
        name: model.with_frames(frames) if model.frame_pooling is None else model
        for name, model in loaded.items()
    }
    return [shown[name] for name in names]


def _different(labels: Sequence[str]) -> list[str]:
    """The labels; of two runs of one name, each with its place in the table."""
    repeated = {label for label in labels if labels.count(label) > 1}
    return [f"{label} ({place})" if label in repeated else label for place, label in enumerate(labels, 1)]


def _report_folder(request: EvalRequest, names: Sequence[str]) -> Path:
    last = Path(names[-1])
    if request.out is not None:
        return request.out
    if len(names) > 2 or len(request.models) > 1:
        return Path("eval") / "compare"
    return last / "eval" if (last / "recipe.yaml").is_file() else Path("eval") / last.name


@first_process
def _refuse_runs_in_use(runs: Sequence[Path]) -> None:
    for run in runs:
        refuse_if_in_use(run)


@first_process
def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".draft.{os.getpid()}"
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be written: {error.strerror}: {_OTHER_FOLDER}") from None

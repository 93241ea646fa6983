"""The command `explore`: a run beside its base, on the items of one split, in a page for this machine.

Corpus and options are checked before any model is loaded, and each look at a split is counted as a reading.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from domainclip.config import loading
from domainclip.data.cards import Prompts
from domainclip.data.schema import SPLITS
from domainclip.errors import DataError, RecipeError, did_you_mean
from domainclip.evaluation import split_usage
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.contamination import find_overlap
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.probe_runs import readable_items
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.run_folders import RECIPE, find_run
from domainclip.evaluation.split_usage import Measured, SplitUsage
from domainclip.inference.explorer.application import Application
from domainclip.inference.explorer.embedding_map import Method, check_method
from domainclip.inference.explorer.explored import Explored, ExploredModel
from domainclip.inference.explorer.explorer import Explorer
from domainclip.inference.explorer.local_server import LocalServer
from domainclip.models.precision import evaluation_precision
from domainclip.pipelines.eval_request import TrainedRun
from domainclip.pipelines.evaluated_models import EvaluatedModels, load_models
from domainclip.pipelines.evaluated_sets import chosen_classes, evaluated_sets
from domainclip.pipelines.measured_corpus import MeasuredCorpus, load_measured_corpus

_TRAINED = "The adapted model was trained on these items: it is right on them more often than on new images."
_TEST = (
    "A prompt or a model that is chosen by it makes every result on it too optimistic: choose on the "
    "validation split, which is the default."
)


@dataclass(frozen=True, kw_only=True)
class ExploreRequest:
    """The options of the command."""

    run: str  # a run folder, or a checkpoint in one
    models: Sequence[str] = ()  # further ones
    overrides: Sequence[str] = ()
    split: str = "validation"
    method: Method = "pca"
    port: int = 0  # 0: a free one


@dataclass(frozen=True)
class OpenedPage:
    """A page that is ready to be served."""

    server: LocalServer
    explored: Explored
    notes: Sequence[str]


def open_page(request: ExploreRequest) -> OpenedPage:
    """Load corpus and models, encode the split, and open the port; nothing is served yet.

    Raises: RecipeError for a wrong option; DataError for a corpus that cannot be read, or a split without
    items; ModelError for a model that cannot be loaded; OSError for a port that is taken.
    """
    check_method(request.method)
    run, changes = _trained_run(request), _changes(request)
    recipe = loading.load_recipe(str(run.folder / RECIPE), changes)
    measured = load_measured_corpus(recipe, run, changes, own_recipe=True)
    data, notes = _explored_set(request, measured)
    models = load_models(["base", request.run, *request.models], run.recipe.base)
    cache = EmbeddingCache.make(
        on_disk=recipe.evaluate.cache_embeddings, precision=evaluation_precision(recipe.evaluate.precision)
    )
    encoders = [CachedEncoder(model, cache) for model in models.models]
    data, unreadable = readable_items(encoders, data)
    reading = _Reading(data, models, encoders, run.folder)
    usage = reading.record(data.classes)
    overlap = find_overlap(models.training_records(), [data])
    explored = Explored(
        data=_with_readable_validation(data, encoders),
        models=[
            ExploredModel(label, encoder) for label, encoder in zip(models.labels, encoders, strict=True)
        ],
        unreadable=unreadable,
        caution=" ".join(filter(None, (_caution(data, usage), *overlap.invalid))),
        command=shlex.join(
            ["domainclip", "eval", request.run, "--against", "base", "--classes", "classes.yaml"]
        ),
        gallery=max(Retrieval().galleries(data), key=lambda one: len(one.rows), default=None),
    )
    explorer = Explorer(explored, request.method, reading.add_prompts)
    explorer.prepare()
    return OpenedPage(LocalServer(Application(explorer), request.port), explored, [*measured.notes, *notes])


def _trained_run(request: ExploreRequest) -> TrainedRun:
    """The run with its recipe.

    Raises: RecipeError for a model that is none, and for a split that there is not.
    """
    if request.split not in SPLITS:
        raise RecipeError(f'--split: unknown "{request.split}": {did_you_mean(request.split, SPLITS)}')
    folder = find_run(request.run)
    if folder is None:
        raise RecipeError(
            f"explore {request.run}: not a run folder, which names its corpus: name one first, as "
            "runs/medical_xray-1, and other models after it"
        )
    return TrainedRun(folder, loading.load_recipe(str(folder / RECIPE)))


def _changes(request: ExploreRequest) -> list[str]:
    """The overrides; recipes know two splits that are measured."""
    chosen = [f"evaluate.split={request.split}"] if request.split != "train" else []
    return [*request.overrides, *chosen]


def _explored_set(request: ExploreRequest, measured: MeasuredCorpus) -> tuple[EvaluationSet, list[str]]:
    """The split with its classes, and remarks on the classes.

    Raises: DataError for a split without items.
    """
    corpus = measured.corpus
    items, train, validation = (corpus.splits[name] for name in (request.split, "train", "validation"))
    if not len(items):
        sizes = ", ".join(f"{name} {len(corpus.splits[name])}" for name in SPLITS)
        raise DataError(f"--split {request.split}: this split has no items ({sizes}): name another one")
    data = EvaluationSet(
        request.split,
        items,
        corpus.card,
        corpus.classes,
        train=train if len(train) else None,
        validation=validation if request.split != "validation" and len(validation) else None,
        fingerprint=corpus.fingerprint,
        split=request.split,
    )
    (data, *_), notes = evaluated_sets([data], chosen_classes(None, [], None, [request.run]), None, measured)
    return data, notes


def _with_readable_validation(data: EvaluationSet, encoders: Sequence[CachedEncoder]) -> EvaluationSet:
    """The set with its validation split encoded, where thresholds of findings are chosen on it."""
    opposed = bool(data.classes) and all(prompts.negative for prompts in data.classes.values())
    if data.validation is None or not (data.card.multi_label or opposed):
        return replace(data, validation=None)
    readable = encode_images(encoders, data.validation)
    return replace(data, validation=readable if len(readable) else None)


def _caution(data: EvaluationSet, usage: SplitUsage) -> str:
    if data.split == "validation":
        return ""
    return _TRAINED if data.split == "train" else f"{str(usage).capitalize()}. {_TEST}"


class _Reading:
    """One session is one reading of the split, with each set of prompts that was tried."""

    def __init__(
        self,
        data: EvaluationSet,
        models: EvaluatedModels,
        encoders: Sequence[CachedEncoder],
        run: Path,
    ) -> None:
        base = models.models[0].fingerprint("all")
        self.measured = Measured.of(split_usage.new_evaluation(), encoders, base)
        self.data, self.run = data, run

    def record(self, classes: Mapping[str, Prompts]) -> SplitUsage:
        """Count the models with these prompts in the ledgers of the run and of this machine."""
        prompts = {name: value.model_dump() for name, value in classes.items()}
        text = json.dumps(prompts, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest() if prompts else ""
        return split_usage.record(self.data.fingerprint, self.data.split, self.measured, digest, self.run)

    def add_prompts(self, classes: Mapping[str, Prompts]) -> None:
        """Count further prompts of this session."""
        self.record(classes)

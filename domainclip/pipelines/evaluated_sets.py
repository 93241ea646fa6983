"""The sets that `eval` measures: the corpus with its classes, the retention set, and those of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from datasets import concatenate_datasets

from domainclip.data.cards import Prompts, load_card
from domainclip.data.corpus import load_corpus
from domainclip.data.text.class_names import quoted
from domainclip.errors import DataError, RecipeError, did_you_mean
from domainclip.evaluation import run_classes, suites
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.label_names import in_spelling_of
from domainclip.evaluation.run_classes import RunClasses
from domainclip.evaluation.split_usage import ALL
from domainclip.evaluation.suites import ExtraSet, Suite
from domainclip.pipelines.measured_corpus import MeasuredCorpus


@dataclass(frozen=True)
class ChosenClasses:
    """The classes and prompts that the caller named, and the run that they come from otherwise."""

    named: Mapping[str, Prompts]  # of --classes, or of the suite; empty: those of the run or the corpus
    templates: Sequence[str]
    run: RunClasses | None


def chosen_classes(
    argument: str | None, templates: Sequence[str], suite: Suite | None, models: Sequence[str]
) -> ChosenClasses:
    """The classes of `--classes`, or else of the suite; the run is the first model that has classes.

    Raises: RecipeError for classes that cannot be read; ModelError for a broken file of a run.
    """
    named = suites.parse_classes(argument) if argument else dict(suite.classes) if suite else {}
    runs = (run_classes.load(name) for name in models)
    return ChosenClasses(
        named,
        [*templates] or (suite.templates if suite else []),
        next((run for run in runs if run is not None), None),
    )


def evaluated_sets(
    sets: Sequence[EvaluationSet], chosen: ChosenClasses, suite: Suite | None, measured: MeasuredCorpus
) -> tuple[list[EvaluationSet], list[str]]:
    """The set of the corpus with its classes, the retention set, and the sets of the suite.

    Also which classes are measured, in words, where they are not simply those of the corpus, and which sets
    of the suite are absent.

    Raises: RecipeError for classes that no item has; DataError for a set without items.
    """
    first, *others = sets
    first, notes = _in_words_of_the_run(first, chosen, measured)
    if chosen.named:
        classes = suites.with_default_templates(first.card, dict(chosen.named), list(chosen.templates))
        first = replace(first, classes=classes)
        _check_classes(first)
    else:
        classes, which = run_classes.default_classes(first, chosen.run)
        first = replace(first, classes=classes)
        notes += [which] if which and (measured.external or chosen.run is None) else []
    if chosen.templates and not chosen.named:
        first = replace(
            first,
            classes=suites.with_templates(first.classes, list(chosen.templates), only_names=False),
        )
    taken = {data.name for data in sets}
    for name, source in (suite.sets if suite else {}).items():
        if name in taken:
            raise RecipeError(f'sets.{name}: there is a set "{name}" already: call it otherwise')
        if not source.is_absent:
            others.append(_extra_set(name, source))
    return [first, *others], [*notes, *(suite.absent if suite else [])]


def _in_words_of_the_run(
    data: EvaluationSet, chosen: ChosenClasses, measured: MeasuredCorpus
) -> tuple[EvaluationSet, list[str]]:
    """An external set with its labels in the spelling of the classes that are asked of it.

    Raises: RecipeError for folders whose names are no classes: they may be names of patients.
    """
    classes = chosen.named or (chosen.run.classes if chosen.run else {})
    if not measured.external:
        return data, []
    if measured.whole:
        data = replace(data, split=ALL)
    if not classes:
        return data, []
    items, renamed = in_spelling_of(data.items, classes)
    labels = {label for row in items["labels"][:] for label in row}
    if measured.guessed_reader and data.card.reader == "folder" and labels and not labels & set(classes):
        raise RecipeError(
            f"corpus.path: no folder in it has the name of a class of the run, {quoted(classes, 8)}: name "
            'the classes with --classes, or set corpus.columns.labels="" where the folders are no classes'
        )
    notes = [f"classes: {renamed} labels are spelled like the classes of the run"] if renamed else []
    return replace(data, items=items), notes


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
            f"sets.{name}: its {source.split} split is empty: set split: all to measure on everything"
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

"""The corpus that `eval` measures: that of a run, or another one, which is read with the card of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainclip.config import overrides
from domainclip.config.recipe import Recipe
from domainclip.config.sources import CorpusSource
from domainclip.data.cards import Card, Splits, load_card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.readers.sources.assumed_card import fit_card, undescribed
from domainclip.errors import DataError
from domainclip.evaluation import contamination, run_classes
from domainclip.pipelines.eval_request import TrainedRun


@dataclass(frozen=True)
class MeasuredCorpus:
    """A corpus, and whether it is another one than that of the run."""

    corpus: Corpus
    external: bool = False
    name: str = ""  # of the external corpus, for the name of a folder
    guessed_reader: bool = False  # whether its files, and no card, show how it is read
    notes: tuple[str, ...] = ()  # how the card of the run was fitted to it

    @property
    def whole(self) -> bool:
        """Whether all items are measured: an external corpus that names no splits."""
        return self.external and self.corpus.divided


def load_measured_corpus(
    recipe: Recipe, run: TrainedRun | None, changes: Sequence[str], *, own_recipe: bool
) -> MeasuredCorpus:
    """Read the corpus of the recipe, which `changes` (KEY=VALUE) may have replaced.

    `own_recipe`: the recipe is that of the run, not another one with a card for the corpus. An external
    corpus that names no splits lies whole in the measured split.

    Raises: RecipeError or DataError, before any model is loaded.
    """
    source = recipe.corpus
    if run is None or source.path == run.recipe.corpus.path:
        return MeasuredCorpus(load_corpus(load_card(source.card, source.overrides()), source.path))
    values = _typed_values(changes)
    typed = frozenset(_keys(values))
    if own_recipe and "card" in typed:  # the other keys of the run's corpus belong to the card of the run
        source = CorpusSource(**{**values, "card": source.card, "path": source.path})
    card = load_card(source.card, source.overrides())
    path, notes = source.path, tuple[str, ...]()
    read_as, guessed = card, False
    if "path" in typed and "card" not in typed:
        fitted = fit_card(card, path, typed)
        read_as, path, notes = fitted.card, fitted.path, fitted.notes
        guessed = fitted.guessed_reader
        if own_recipe:
            read_as = undescribed(read_as, values)
    if "splits" not in typed:
        read_as = read_as.model_copy(update={"splits": _all_in(recipe.evaluate.split)})
    corpus = load_corpus(read_as, path, training=False)
    same = _same_corpus(corpus, run, card, source.path)
    if same is not None:
        return MeasuredCorpus(same)
    if recipe.evaluate.split not in corpus.splits or not len(corpus.splits[recipe.evaluate.split]):
        raise DataError(
            f"corpus.path: none of {sum(map(len, corpus.splits.values()))} items is in the "
            f"{recipe.evaluate.split} split: measure all of them with "
            'corpus.columns.split="", or another split with --split'
        )
    name = _folder_name(read_as, source.path)
    return MeasuredCorpus(corpus, True, name, guessed, notes)


def _all_in(split: str) -> Splits:
    return Splits(train=0, validation=float(split == "validation"), test=float(split == "test"))


def _same_corpus(corpus: Corpus, run: TrainedRun, card: Card, path: str) -> Corpus | None:
    """The corpus of the run at another path, read with its card; None for another corpus.

    By its fingerprint. Its splits and items must be made as in the run, which is tried only for a corpus with
    images that were trained on.
    """
    classes = run_classes.load(str(run.folder))
    if classes is None:
        return None
    if corpus.fingerprint != classes.corpus:
        record = contamination.load(str(run.folder))
        if record is None or not record.items_of([[digest] for digest in corpus.digests.values()]):
            return None
    with suppress(DataError):
        again = load_corpus(card, path)
        return again if again.fingerprint == classes.corpus else None
    return None


def _folder_name(card: Card, path: str) -> str:
    """A name for the folder of a report: that of the card, where it was written for this corpus."""
    if card.name not in ("external", "unnamed"):
        return card.name
    place = Path(path)
    named_after = place.parent if place.stem in ("metadata", "reports") else place
    return named_after.stem if named_after.suffix and named_after.is_file() else named_after.name


def _typed_values(changes: Sequence[str]) -> dict[str, Any]:
    """The keys of the corpus that were typed, nested as in the card."""
    data: dict[str, Any] = {}
    for change in changes:
        if change.partition("=")[0].split(".")[0] == "corpus":
            overrides.apply_override(data, change)
    corpus = data.get("corpus", {})
    return dict(corpus) if isinstance(corpus, dict) else {"path": corpus}


def _keys(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The keys of nested mappings: "columns" and "columns.labels"."""
    for key, value in values.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{key}.")

"""The corpora of `train.mix`: loaded, and refused where they hold what is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from datasets import Dataset

from domainclip.config.recipe import Recipe
from domainclip.config.sources import MixedSource
from domainclip.data.cards import load_card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.files.mapped_tables import look_up
from domainclip.data.schema import features
from domainclip.errors import DataError, DomainclipError, RecipeError


@dataclass(frozen=True)
class MixedCorpus:
    """A corpus whose training split fills a share of every batch; its other splits are not used."""

    name: str
    share: float
    corpus: Corpus  # ids, and groups unless they are shared, begin with the name

    @property
    def items(self) -> Dataset:
        """The items that are trained on."""
        return self.corpus.splits["train"]


def load_mixed(recipe: Recipe, corpus: Corpus, retention: Corpus | None) -> tuple[MixedCorpus, ...]:
    """The corpora of `train.mix`, in their order.

    Raises: RecipeError for a stream, or an option that does not fit; DataError for one without training
    items, or with images or groups that are measured; each names the key.
    """
    if recipe.train.mix and corpus.stream is not None:
        raise RecipeError(
            "train.mix: mixing needs all training pairs at once, and a stream shows a few: leave it out, or "
            "store the corpus with domainclip data prepare and train on that"
        )
    return tuple(_load(name, source, corpus, retention) for name, source in recipe.train.mix.items())


def _load(name: str, source: MixedSource, corpus: Corpus, retention: Corpus | None) -> MixedCorpus:
    key = f"train.mix.{name}"
    card = load_card(source.card, source.overrides())
    try:
        mixed = load_corpus(card, source.path)
    except DomainclipError as error:
        raise type(error)(f"{key}: {error}") from None
    if mixed.stream is not None:
        raise RecipeError(
            f"{key}: a stream cannot be mixed in: store it with domainclip data prepare, and name that"
        )
    if not len(mixed.splits["train"]):
        raise DataError(f"{key}: has no training items: check its columns.split and splits.train")
    if source.shares_groups and card.names_may_show != corpus.card.names_may_show:
        raise RecipeError(
            f"{key}.shares_groups: the keys of one corpus are replaced by pseudonyms and those of the other "
            "are not: set privacy.identifiers of both cards alike"
        )
    refuse_measured(key, measured_digests(corpus, retention), _digests_of(mixed, mixed.splits["train"]))
    if source.shares_groups:
        _refuse_groups(key, corpus, mixed)
    return MixedCorpus(name, source.share, _prefixed(mixed, f"{name}:", groups=not source.shares_groups))


def measured_digests(corpus: Corpus, retention: Corpus | None) -> dict[str, frozenset[str]]:
    """The digests of all images that are measured, by the set: nothing of them may be trained on."""
    held_out = {name: _digests_of(corpus, corpus.splits[name]) for name in ("validation", "test")}
    if retention is not None:
        held_out["retention set"] = chain.from_iterable(
            _digests_of(retention, items) for items in retention.splits.values()
        )
    return {name: frozenset(chain.from_iterable(items)) for name, items in held_out.items()}


def refuse_measured(key: str, measured: Mapping[str, frozenset[str]], items: Iterator[Sequence[str]]) -> None:
    """Refuse items, given by the digests of their images, of which some are measured.

    Raises: DataError with their number in each set.
    """
    images = [frozenset(item) for item in items]
    counts = {name: sum(not item.isdisjoint(known) for item in images) for name, known in measured.items()}
    if shared := [f"{count} in the {name}" for name, count in counts.items() if count]:
        raise DataError(
            f"{key}: holds images that are measured, of {len(images)} items {', '.join(shared)}: leave them "
            "out, or name another folder"
        )


def _refuse_groups(key: str, corpus: Corpus, mixed: Corpus) -> None:
    held_out = {group for name in ("validation", "test") for group in corpus.splits[name]["group"][:]}
    if shared := held_out.intersection(mixed.splits["train"]["group"][:]):
        raise DataError(
            f"{key}.shares_groups: {len(shared)} groups of its training items are in the validation or test "
            "split of the corpus: leave them out"
        )


def _digests_of(corpus: Corpus, items: Dataset) -> Iterator[list[str]]:
    """The digests of each item's images."""
    ids = items["id"][:]
    images = look_up(corpus.digests, ids)
    return ([image, *corpus.view_digests.get(id, [])] for id, image in zip(ids, images, strict=True))


def _prefixed(mixed: Corpus, prefix: str, groups: bool) -> Corpus:
    """The corpus with a prefix before each id, and before each group and truth key where `groups`."""
    items = mixed.splits["train"]
    for column in ("id", "group", "truth") if groups else ("id",):
        values = [prefix + value for value in items[column][:]]
        items = items.remove_columns(column).add_column(column, values, feature=features()[column])
    items = items.select_columns(mixed.splits["train"].column_names)
    return replace(
        mixed.with_train_items(items),
        digests={prefix + id: digest for id, digest in mixed.digests.items()},
        view_digests={prefix + id: digests for id, digests in mixed.view_digests.items()},
    )


def with_notes(corpus: Corpus, mixed: Sequence[MixedCorpus]) -> Corpus:
    """The corpus with what was noted, and left out, when the others were read."""
    if not mixed:
        return corpus
    unusable = [
        replace(item, location=f"train.mix.{each.name} {item.location}")
        for each in mixed
        for item in each.corpus.unusable
    ]
    notes = [
        f"train.mix.{each.name}: {len(each.items)} training items of {each.corpus.card.name}, "
        f"{each.share:.3g} of every batch"
        for each in mixed
    ]
    return replace(corpus, unusable=[*corpus.unusable, *unusable], notes=[*corpus.notes, *notes])

"""What objectives need beside image and caption of a pair: checked before training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan

import numpy as np

from domainclip.components import WeightedObjectives
from domainclip.data.batching.extras import ExtraSpec, to_number
from domainclip.data.batching.item_sources import COLUMNS_OF, SourceNumbers, source_names
from domainclip.data.batching.pairs import Pairs
from domainclip.data.corpus import Corpus
from domainclip.data.text.tags import frequent_words
from domainclip.errors import DataError, RecipeError
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import Modality
from domainclip.models.text_tokenizer import TextTokenizer
from domainclip.objectives.base import ItemSource, TagWords

_MODALITIES: tuple[Modality, ...] = ("image", "text")
_NEED_ALL_PAIRS = {"labels", "tags", "teachers", "base_image", "third_tower", "caption_ids"}
_SAMPLE = 1000  # pairs, spread evenly, whose further texts are made and counted before training


def pair_extras(terms: WeightedObjectives, corpus: Corpus, mixed: Sequence[Corpus] = ()) -> ExtraSpec:
    """The further texts, values, classes and second views that the objectives need of each pair.

    With the classes of the corpora that are mixed in, so that their pairs are told apart by label as well.

    Raises: DataError when the corpus does not have them.
    """
    columns = {
        name: inputs.value_column for name, inputs in terms.inputs.items() if inputs.value_column is not None
    }
    for name, column in columns.items():
        _require_numbers(f"objectives.{name}.column", column, corpus)
    sources = {
        name: _source_numbers(name, inputs.source, corpus)
        for name, inputs in terms.inputs.items()
        if inputs.source is not None
    }
    classes = _classes([corpus, *mixed]) if "labels" in terms.needs else ()
    tags = [_tags(name, i.tag_words, corpus) for name, i in terms.inputs.items() if i.tag_words is not None]
    return ExtraSpec(
        terms.extra_texts,
        columns,
        classes,
        tags[0] if tags else (),
        terms.second_view,
        corpus.classes,
        all_labelled=isinstance(corpus.card.columns.labels, list),
        sources=sources,
    )


def _require_numbers(key: str, column: str, corpus: Corpus) -> None:
    rows = corpus.splits["train"]["meta"][:]
    if all(isnan(to_number(json.loads(row).get(column), column)) for row in rows):
        raise DataError(
            f'{key}: no training item of corpus {corpus.card.name} has a number under "{column}" in its '
            "meta: name a column that has, and list it under columns.meta of the card"
        )


def caption_vocabulary(pairs: Pairs, tokenizer: TextTokenizer) -> np.ndarray:
    """(v,) int64, the token ids that some training caption has, ascending."""
    texts = list(pairs.texts())
    ids = [
        tokenizer.word_ids(texts[at : at + _SAMPLE]).unique().numpy() for at in range(0, len(texts), _SAMPLE)
    ]
    distinct = np.unique(np.concatenate(ids))
    return distinct[distinct >= 0]


def mixed_extras(spec: ExtraSpec, corpus: Corpus) -> ExtraSpec:
    """What the objectives need of the pairs of a corpus that is mixed in: only of classes that it has too.

    Its sources are none of those of the corpus, even where they have the same names.
    """
    prompts = {name: texts for name, texts in spec.prompts.items() if name in corpus.classes}
    all_labelled = bool(prompts) and isinstance(corpus.card.columns.labels, list)
    sources = {name: replace(numbers, numbers={}) for name, numbers in spec.sources.items()}
    return replace(spec, sources=sources, prompts=prompts, all_labelled=all_labelled)


def _classes(corpora: Sequence[Corpus]) -> tuple[str, ...]:
    labels = (row for corpus in corpora for row in corpus.splits["train"]["labels"][:])
    classes = {label for row in labels for label in row}
    if not classes:
        raise DataError(
            "objectives: one of them needs labels, and no training item of corpus "
            f"{corpora[0].card.name} has any: name columns.labels in the card"
        )
    implied = (names for corpus in corpora for names in corpus.card.implied_classes.values())
    return tuple(sorted(classes.union(*implied)))


def _tags(name: str, words: TagWords, corpus: Corpus) -> tuple[str, ...]:
    items = corpus.splits["train"]
    tags = frequent_words(
        zip(items["texts"][:], items["language"][:], strict=True), words.count, words.min_items
    )
    if not tags:
        raise DataError(
            f"objectives.{name}.min_items: corpus {corpus.card.name} has no word that the captions of "
            f"{words.min_items} training items name, and not those of all: lower it, or leave {name} out"
        )
    return tags


def _source_numbers(name: str, source: ItemSource, corpus: Corpus) -> SourceNumbers:
    items = corpus.splits["train"]
    numbers = SourceNumbers.of(items, source.by)
    if len(numbers.numbers) < 2:
        raise DataError(
            f"objectives.{name}.by: the training items of corpus {corpus.card.name} have fewer than two "
            f"values of {source.by}: name {COLUMNS_OF[source.by]} in the card, or leave {name} out"
        )
    pairs = zip(source_names(items, source.by), items["labels"][:], strict=True)
    both = {(names, frozenset(labels)) for names, labels in pairs if any(names)}
    if source.given_labels and len({labels for _, labels in both}) == len(both):
        raise DataError(
            f"objectives.{name}.given_labels: no label occurs in two values of {source.by}, so nothing "
            f"distinguishes the source from the label: leave {name} out; "
            f"objectives.{name}.given_labels=false would hide the label too"
        )
    return numbers


def check_objectives(terms: WeightedObjectives, base: DualEncoder, stream: bool) -> None:
    """Check that this base, or a stream, provides what the objectives need.

    Raises: RecipeError with the objective and the remedy.
    """
    if len(third := [name for name, inputs in terms.inputs.items() if inputs.third_tower is not None]) > 1:
        raise RecipeError(
            f"objectives: {third[0]} and {third[1]} both have a third tower, and a run has one: leave one out"
        )
    for name, objective in terms.by_name.items():
        objective.check_model(base.width)
        if objective.needs & {"mixed_image", "masked_tokens"} and base.image_preprocessor.patch:
            raise RecipeError(
                f"objectives.{name}: needs images of one size, and family {base.family} takes any: leave it "
                "out, or take a base of another family"
            )
        if "masked_tokens" in objective.needs and not base.has_token_embeddings("image"):
            raise RecipeError(
                f"objectives.{name}: family {base.family} gives no image tokens: leave it out, or take a "
                "base of another family"
            )
        for modality in _MODALITIES:
            if f"{modality}_tokens" in objective.needs and not base.has_token_embeddings(modality):
                raise RecipeError(
                    f"objectives.{name}: family {base.family} gives no {modality} tokens: leave it out, or "
                    "take a base of another family"
                )
        of_group = "image_2" in objective.needs and objective.inputs.second_view == "same_group"
        of_all = of_group or objective.inputs.source is not None or objective.needs & _NEED_ALL_PAIRS
        if stream and of_all:
            raise RecipeError(
                f"objectives.{name}: needs all training pairs at once, and a stream shows a few: leave it "
                "out, or store the corpus with domainclip data prepare and train on that"
            )


def count_extra_texts(pairs: Pairs, remedies: Mapping[str, str]) -> tuple[str, ...]:
    """A note for each objective that makes further texts: how many of a sample of pairs have any.

    `remedies`: by objective, how a corpus comes to have texts for it.

    Raises: DataError when no training pair has one.
    """
    if pairs.is_streamed:  # a stream is never in memory as a whole
        return ()
    notes = []
    sample = range(0, len(pairs), max(1, len(pairs) // _SAMPLE))
    for name in pairs.extra_spec.texts:
        count = sum(_has_text(pairs, index, name) for index in sample)
        if not count and not any(_has_text(pairs, index, name) for index in range(len(pairs))):
            raise DataError(
                f"objectives.{name}: none of {len(pairs)} training pairs has a text that it asks for: "
                f"{remedies[name]}, or leave it out"
            )
        notes.append(f"objectives.{name}: {count} of {len(sample)} training pairs have texts for it")
    return tuple(notes)


def _has_text(pairs: Pairs, index: int, name: str) -> bool:
    extras = pairs.extras_of(index, pairs.caption_pools[index].texts[0], 0)
    return extras is not None and bool(extras.texts[name])


def frozen_towers(factors: Mapping[str, float]) -> frozenset[Modality]:
    """The towers of which no weight learns, by the factors on the learning rate of all weights."""
    learning = {name.partition("/")[0] for name, factor in factors.items() if factor > 0}
    return frozenset(tower for tower in _MODALITIES if tower not in learning)


_SINGLE_IMAGE_VIEWS = {
    *("image_2", "image_tokens", "base_image", "anchor_image", "teachers", "third_tower"),
    *("mixed_image", "masked_tokens"),
}


def check_image_views(terms: WeightedObjectives, base: DualEncoder, uses_images: bool) -> None:
    """Check that no objective needs a view of the one image of an item, where there are several, or none.

    Raises: RecipeError with the objective and the remedy.
    """
    if uses_images and base.frames == 1:
        return
    several = "strategy.multi_frame shows several images of an item"
    reason = several if uses_images else "strategy.prompt_learning with train_on: text uses no images"
    for name, objective in terms.by_name.items():
        if views := sorted(objective.needs & _SINGLE_IMAGE_VIEWS):
            raise RecipeError(f"objectives.{name}: needs {views[0]}, and {reason}: leave one of the two out")

"""Captions that describe their image: relations, actions, not the text in it; and the score of the pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Curation
from domainclip.data.schema import WRITTEN
from domainclip.data.text.captions import normalise
from domainclip.data.text.lexicon import Lexicon, find_lexicon
from domainclip.data.text.words import SpacedText

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.interfaces import Encoder

# What photographs show, in the forms that English captions use.
_ACTIONS = (
    "carrying catching climbing cooking crossing cutting dancing drinking driving eating entering falling "
    "feeding fighting flying grazing hanging holding jumping kicking kneeling leaning lifting looking lying "
    "moving opening parked playing pointing pouring pulling pushing reaching reading riding rising running "
    "sailing selling serving sewing sitting skating skiing sleeping smiling standing surfing surrounding "
    "swimming swinging talking throwing touching turning waiting walking washing watching wearing working "
    "writing carries catches climbs crosses dances drinks eats feeds flies hangs holds jumps kneels leans "
    "lies plays pours pulls pushes reaches reads rides rises runs sails sits sleeps smiles stands swims "
    "talks throws touches turns waits walks washes watches wears works writes"
)


@dataclass(frozen=True, kw_only=True)
class Quality(Curation):
    """Captions stay that name a relation and an action, and that do not spell the text in their image.

    The filters of CAT (complexity, action, text-spotting) [arXiv:2301.02280], without its parser and its
    text recognition. Complexity: at least `min_relations` times, two content words are joined by a function
    word that is no conjunction ("dog on the grass" has one relation, "dog and cat" none); languages without a
    list of function words pass. Action: at least one of `action_words`. Text-spotting: at most the share
    `max_written` of the content words is written in the image, as the card's column `written` gives them (of
    any text recognition); such captions teach a model to read [arXiv:2312.14232]. `min_score` and `fraction`
    are about the cosine of image and caption under the base: its lowest value, and the share of the items
    with the highest that stays; a base that does not know the domain drops what it has to learn. Filters
    apply in this order; an item is left out without any caption that passes all, for the reason of the
    caption that passed most. Items without captions stay. Costs one pass of the base with a score, else
    nothing.
    """

    citation: ClassVar[str] = "arXiv:2301.02280, arXiv:2312.14232"

    min_relations: Annotated[int, Field(ge=0)] = 1  # relations of a caption at least
    action: bool = False  # whether a caption names an action
    action_words: tuple[str, ...] = tuple(_ACTIONS.split())  # in every form that counts; case is ignored
    # The share of a caption's words that may be written in its image; null: not checked.
    max_written: Annotated[float, Field(ge=0, lt=1)] | None = None
    min_score: Annotated[float, Field(gt=-1, lt=1)] | None = None  # a cosine, of image and caption
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # the share of the items with the best scores

    @property
    def needs(self) -> frozenset[str]:
        """The base, where its scores decide."""
        return frozenset({"base"}) if self._scored else frozenset()

    @property
    def _scored(self) -> bool:
        return self.min_score is not None or self.fraction < 1

    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """The items with a caption that passes, in their order, with these captions alone."""
        faults = self._faults(items, base)
        chosen = [row for row, of_item in enumerate(faults) if not of_item or "" in of_item]
        passing = [[at for at, fault in enumerate(faults[row]) if not fault] for row in chosen]
        selected = items.select(chosen, keep_in_memory=True)
        if all(len(passing[at]) == len(faults[row]) for at, row in enumerate(chosen)):
            return selected
        return selected.map(
            lambda row, at: _only(row, passing[at]),
            with_indices=True,
            features=items.features,
            keep_in_memory=True,
        )

    def reasons(self, items: Dataset, base: Encoder | None = None) -> Sequence[str]:
        """(n,) the first filter that no caption of the item passes; "" for an item that stays."""
        order = ["", *self._possible_faults()]
        faults = self._faults(items, base)
        return ["" if not of_item or "" in of_item else max(of_item, key=order.index) for of_item in faults]

    def _possible_faults(self) -> list[str]:
        """Every fault of a caption, in the order of the filters."""
        return [
            f"fewer than {self.min_relations} relations",
            "no action",
            f"more than {self.max_written} of the words are written in the image",
            f"image-text score below {self.min_score}",
            f"image-text score not among the best {self.fraction:.0%}",
        ]

    def _faults(self, items: Dataset, base: Encoder | None) -> list[list[str]]:
        """The fault of each caption of each item, "" where it has none."""
        columns = zip(items["texts"][:], items["language"][:], items["meta"][:], strict=True)
        faults = [self._text_faults(texts, languages, meta) for texts, languages, meta in columns]
        if self._scored and base is not None:
            self._add_score_faults(faults, items, base)
        return faults

    def _text_faults(self, texts: Sequence[str], languages: Sequence[str], meta: str) -> list[str]:
        written = {
            word for text in json.loads(meta or "{}").get(WRITTEN, ()) for word in normalise(text).split()
        }
        too_few, no_action, too_written, *_ = self._possible_faults()
        actions = {word.casefold() for word in self.action_words}
        faults = []
        for text, language in zip(texts, [*languages, *[""] * len(texts)], strict=False):
            lexicon = find_lexicon(text, language)
            words = [word.casefold() for word in SpacedText.of(text).words if word]
            if lexicon.function_words and count_relations(words, lexicon) < self.min_relations:
                faults.append(too_few)
            elif self.action and actions.isdisjoint(words):
                faults.append(no_action)
            elif self.max_written is not None and _share_written(words, lexicon, written) > self.max_written:
                faults.append(too_written)
            else:
                faults.append("")
        return faults

    def _add_score_faults(self, faults: list[list[str]], items: Dataset, base: Encoder) -> None:
        """The faults by score, of captions without another, into their place in `faults`."""
        *_, below, not_best = self._possible_faults()
        places = [(row, at) for row, of_item in enumerate(faults) for at, f in enumerate(of_item) if not f]
        if not places:
            return
        texts, images = items["texts"][:], base.images(items)
        vectors = base.texts([texts[row][at] for row, at in places])
        scores = (images[[row for row, _ in places]] * vectors).sum(axis=1)
        best: dict[int, float] = {}
        for (row, at), score in zip(places, scores.tolist(), strict=True):
            if self.min_score is not None and score < self.min_score:
                faults[row][at] = below
            else:
                best[row] = max(score, best.get(row, -1.0))
        count = max(1, round(self.fraction * len(best))) if best else 0
        ids = items["id"][:]
        # Of equal scores those with the smaller id, so that the order of the rows has no effect.
        ordered = sorted(best, key=lambda row: (-best[row], ids[row]))
        for row in ordered[count:]:
            faults[row] = [fault or not_best for fault in faults[row]]


def count_relations(words: Sequence[str], lexicon: Lexicon) -> int:
    """How often two content words have a function word between them of which the first is no conjunction."""
    count, before, joined = 0, False, ""
    for word in words:
        if _is_function_word(word, lexicon):
            joined = joined or word
            continue
        count += before and bool(joined) and joined not in lexicon.conjunctions
        before, joined = True, ""
    return count


def _is_function_word(word: str, lexicon: Lexicon) -> bool:
    return word in lexicon.function_words or word in lexicon.conjunctions


def _share_written(words: Sequence[str], lexicon: Lexicon, written: set[str]) -> float:
    content = [word for word in words if not _is_function_word(word, lexicon)]
    return float(np.mean([word in written for word in content])) if content else 0.0


def _only(row: dict[str, Any], places: Sequence[int]) -> dict[str, list[str]]:
    """The captions at these places, with their languages."""
    languages = [*row["language"], *[""] * len(row["texts"])]
    return {"texts": [row["texts"][at] for at in places], "language": [languages[at] for at in places]}

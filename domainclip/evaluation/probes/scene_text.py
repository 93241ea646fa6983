"""Scene text: retrieval of images by a word that is written in them, and reading of its letters.

Legend: q words, m images, d width.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix

from domainclip.data.interfaces import Encoder
from domainclip.data.schema import WRITTEN
from domainclip.data.text.captions import normalise
from domainclip.errors import RecipeError
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics.image_changes import image_numbers
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.ranking import commonest_first, rank_answers
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.seeding import stable

if TYPE_CHECKING:
    from datasets import Dataset

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class SceneText(Probe):
    """Images found by a word that is written in them, as in scene text retrieval. [arXiv:2104.01552]

    The card's column `written` has the words. Every different word of the set is a query, and right are all
    images in which it is written; case is ignored. `average_precision` and `r1` are means over the images of
    the mean over the words of each (the paper's mAP is a mean over the words). `spelling`: the word in an
    image against `misspelt` variants of it with one letter replaced, for words of three letters or more: a
    model that knows what such an image shows, but reads no letters, is at chance. CLIP models whose captions
    spell the text of their images read it first, and see what else is shown second [arXiv:2312.14232]: a high
    value is not always wanted. Where a word is in the image, which the paper measures too, is not measured.
    """

    citation: ClassVar[str] = "arXiv:2104.01552, arXiv:2312.14232"
    version: ClassVar[int] = 1

    template: str = "{}"  # the query; {} is the word
    misspelt: Annotated[int, Field(ge=1)] = 4  # variants of each word
    max_items: Annotated[int, Field(ge=1)] = 5000  # images whose words are queries; answers are all images

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1:
            raise RecipeError(
                f'probes.scene_text.template: "{self.template}" must hold {{}} once, for the word'
            )

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Three metrics of text to image, or the reason why there are none."""
        words_of = written_words(data.items)
        with_words = [row for row, words in enumerate(words_of) if words]
        rows = sample_items(data, with_words, self.max_items, "scene text")
        queries = sorted({word for row in rows for word in words_of[row]})
        if len(queries) < 2:
            return not_measured("scene_text", data, self.version, "two words in columns.written")
        texts = dict(zip(queries, encoder.texts([self._query(word) for word in queries]), strict=True))
        images = encoder.images(data.items)
        metrics = self._retrieval(data, rows, words_of, texts, images)
        metrics += self._spelling(encoder, data, rows, words_of, images)
        details = {"words": len(queries), "images_with_words": len(with_words), "template": self.template}
        return ProbeResult("scene_text", data.name, metrics, metrics[0].name, self.version, details)

    def _query(self, word: str) -> str:
        return self.template.replace("{}", word)

    def _retrieval(
        self,
        data: EvaluationSet,
        rows: Sequence[int],
        words_of: Sequence[Collection[str]],
        texts: dict[str, np.ndarray],
        images: np.ndarray,
    ) -> list[Metric]:
        numbers = image_numbers(data.items)
        first_rows = np.unique(numbers, return_index=True)[1]
        index = {word: i for i, word in enumerate(texts)}
        entries = {
            (index[word], int(numbers[row]))
            for row, words in enumerate(words_of)
            for word in words
            if word in index
        }
        queries, answers = np.array(sorted(entries)).T
        truth = csr_matrix(
            (np.ones(len(queries), bool), (queries, answers)), shape=(len(index), len(first_rows))
        )
        (ranks,) = rank_answers(np.stack(list(texts.values())), images[first_rows], [truth])
        # A model that answers every word alike: the image with the most words first.
        by_luck = commonest_first(truth)
        scores = {"r1": (ranks.hits_at(1), by_luck.hits_at(1))}
        if ranks.full is not None and by_luck.full is not None:  # else too many images for each word
            scores["average_precision"] = (ranks.full.average_precision, by_luck.full.average_precision)
        metrics = []
        for name in sorted(scores):
            value, chance = (_of_images(rows, words_of, index, score) for score in scores[name])
            metrics.append(metric(name, data.items, np.array(rows), value, chance=float(chance.mean())))
        return metrics

    def _spelling(
        self,
        encoder: Encoder,
        data: EvaluationSet,
        rows: Sequence[int],
        words_of: Sequence[Collection[str]],
        images: np.ndarray,
    ) -> list[Metric]:
        used = sorted({word for row in rows for word in words_of[row]})
        variants = {word: misspellings(word, self.misspelt, used) for word in used}
        asked = {row: [word for word in sorted(words_of[row]) if variants[word]] for row in rows}
        measured = [row for row in rows if asked[row]]
        if not measured:
            return []
        texts = sorted({text for row in measured for word in asked[row] for text in (word, *variants[word])})
        vectors = dict(zip(texts, encoder.texts([self._query(text) for text in texts]), strict=True))
        shares, chances = [], []
        for row in measured:
            hits = []
            for word in asked[row]:
                options = np.stack([vectors[text] for text in (word, *variants[word])])
                cosines = rounded_cosines(images[[row]], options)[0]
                hits.append((cosines[0] == cosines.max()) / (cosines == cosines.max()).sum())
            shares.append(float(np.mean(hits)))
            chances.append(float(np.mean([1 / (1 + len(variants[word])) for word in asked[row]])))
        chance = float(np.mean(chances))
        return [metric("spelling", data.items, np.array(measured), np.array(shares), chance=chance)]


def written_words(items: Dataset) -> list[list[str]]:
    """The different words written in each image, lower case, in their order."""
    metas = (json.loads(meta or "{}") for meta in items["meta"][:])
    return [list(dict.fromkeys(filter(None, map(normalise, meta.get(WRITTEN, ()))))) for meta in metas]


def misspellings(word: str, count: int, used: Collection[str]) -> list[str]:
    """Up to `count` variants of a word with one Latin letter replaced, none of them a word of the set.

    Empty for words of fewer than three letters. They depend on the word alone, and `used`.
    """
    places = [i for i, letter in enumerate(word) if letter in _LETTERS]
    if len(places) < 3:
        return []
    variants = {
        word[:place] + letter + word[place + 1 :]
        for place in places
        for letter in _LETTERS
        if letter != word[place]
    }
    allowed = variants - set(used)
    return sorted(allowed, key=lambda text: (stable("misspelt", word, text), text))[:count]


def _of_images(
    rows: Sequence[int], words_of: Sequence[Collection[str]], index: dict[str, int], scores: np.ndarray
) -> np.ndarray:
    """(len(rows),) the mean score of the words of each image."""
    return np.array([scores[[index[word] for word in words_of[row]]].mean() for row in rows])

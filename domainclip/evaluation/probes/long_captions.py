"""Retrieval by long captions: first sentence, whole caption, and the text beyond the model's window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.data.text.sentences import split_sentences
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics.captions import Caption, captions
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.results import MIN_ITEMS, metric, not_measured
from domainclip.evaluation.metrics.text_to_image import recall_at_1

_BINS = (0, 20, 40, 60, 100)  # words; lower edges of the bins


@dataclass(frozen=True, kw_only=True)
class LongCaptions(Probe):
    """Text-to-image R@1 with the first sentence, the whole caption, and the tail as the query.

    After Long-CLIP [arXiv:2403.15378], which shows that CLIP uses little of a caption beyond its first twenty
    tokens. The tail is the text after `window` words, about the capacity of 77 tokens: a model with that
    window never reads it in a whole caption. If tails alone retrieve images, a longer window would help. All
    three query the same items, among all images of the set; `tail_r1` only those with a tail.
    """

    citation: ClassVar[str] = "arXiv:2403.15378"
    version: ClassVar[int] = 2

    shortest: Annotated[int, Field(ge=2)] = 20  # words; long captions also have several sentences
    window: Annotated[int, Field(ge=1)] = 55  # words
    max_items: Annotated[int, Field(ge=1)] = 128  # items; each costs up to three texts

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """R@1 of whole captions, also by length; of first sentences; of tails."""
        longest: dict[int, Caption] = {}
        all_captions = captions(data)
        for caption in all_captions:
            current = longest.get(caption.row)
            if current is None or len(words(caption.text)) > len(words(current.text)):
                longest[caption.row] = caption
        long = [row for row, caption in longest.items() if self._is_long(caption.text)]
        if not long or len(data.items) < 2:
            return not_measured(
                "long_captions",
                data,
                self.version,
                f"captions of {self.shortest} words or more and several sentences",
            )
        rows = np.array(sample_items(data, long, self.max_items, "long captions"))
        texts = [longest[int(row)].text for row in rows]

        def recall(name: str, extract: Callable[[str], str], subset: np.ndarray) -> Metric:
            # Items whose caption has an equal extract are relevant too, whether they are queried or not.
            also_relevant = [(caption.row, extract(caption.text)) for caption in all_captions]
            queries = [extract(texts[i]) for i in subset]
            hits, chances = recall_at_1(
                encoder, data, rows[subset].tolist(), queries, also_relevant=also_relevant
            )
            return metric(name, data.items, rows[subset], hits, chance=float(chances.mean()))

        all_indices = np.arange(len(rows))
        whole = recall("whole_r1", str, all_indices)
        metrics = [
            whole,
            *_by_length(whole, data, rows, texts),
            recall("first_sentence_r1", _first_sentence, all_indices),
        ]
        with_tail = [i for i, text in enumerate(texts) if len(words(text)) > self.window]
        if with_tail:
            metrics.append(recall("tail_r1", partial(_tail, window=self.window), np.array(with_tail)))
        details = {
            "long_captions": len(long),
            "asked": len(rows),
            "with_a_tail": len(with_tail),
            "window": self.window,
        }
        return ProbeResult("long_captions", data.name, metrics, "whole_r1", self.version, details)

    def _is_long(self, text: str) -> bool:
        return len(words(text)) >= self.shortest and len(split_sentences(text)) > 1


def words(text: str) -> list[str]:
    """The words of a text; single characters for scripts without spaces."""
    spaced = text.split()
    return spaced if 8 * len(spaced) >= len(text) else list("".join(spaced))


def _first_sentence(text: str) -> str:
    """The first sentence; empty for a text without sentences."""
    return next(iter(split_sentences(text)), "")


def _tail(text: str, window: int) -> str:
    glue = " " if words(text) == text.split() else ""
    return glue.join(words(text)[window:])


def _by_length(whole: Metric, data: EvaluationSet, rows: np.ndarray, texts: list[str]) -> list[Metric]:
    lengths, metrics = np.array([len(words(text)) for text in texts]), []
    for low, high in pairwise((*_BINS, np.inf)):
        inside = np.flatnonzero((lengths >= low) & (lengths < high))
        if MIN_ITEMS <= len(inside) < len(rows):
            name = f"{low} to {int(high) - 1} words" if np.isfinite(high) else f"{low} words or more"
            metrics.append(
                metric(
                    f"{whole.name}/{name}",
                    data.items,
                    rows[inside],
                    whole.scores[inside],
                    chance=whole.chance,
                )
            )
    return metrics

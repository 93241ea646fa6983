"""What the later sentences of a long caption are worth, and what is lost behind the model's window."""

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

_BINS = (0, 20, 40, 60, 100)  # words; a bin reaches up to the next


@dataclass(frozen=True, kw_only=True)
class LongCaptions(Probe):
    """Text-to-image R@1 asked with the first sentence, the whole caption, and its far end.

    After Long-CLIP [arXiv:2403.15378], which shows that CLIP uses little of a caption beyond its first twenty
    tokens. `tail_r1` asks with what stands after `window` words, about what 77 tokens hold: what a model of
    that window never reads when it is given the whole. If the tail alone finds images, a longer window would
    pay. All three ask for the same items, among all images of the set; the tail for those that have one.
    """

    citation: ClassVar[str] = "arXiv:2403.15378"
    version: ClassVar[int] = 1

    shortest: Annotated[int, Field(ge=2)] = 20  # words from which a caption of several sentences is long
    window: Annotated[int, Field(ge=1)] = 55  # words
    max_items: Annotated[int, Field(ge=1)] = 128  # items; each costs up to three texts

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """R@1 of whole captions, also by their length; of first sentences; of tails."""
        longest: dict[int, Caption] = {}
        told = captions(data)
        for one in told:
            if one.row not in longest or len(words(one.text)) > len(words(longest[one.row].text)):
                longest[one.row] = one
        long = [row for row, one in longest.items() if self._is_long(one.text)]
        if not long or len(data.items) < 2:
            return not_measured(
                "long_captions",
                data,
                self.version,
                f"captions of {self.shortest} words or more and several sentences",
            )
        rows = np.array(sample_items(data, long, self.max_items, "long captions"))
        texts = [longest[int(row)].text for row in rows]

        def asked(name: str, part: Callable[[str], str], of: np.ndarray) -> Metric:
            # Whoever says the same in that part of a caption, asked for or not, is right as well.
            also_relevant = [(one.row, part(one.text)) for one in told]
            parts = [part(texts[i]) for i in of]
            hits, guesses = recall_at_1(encoder, data, rows[of].tolist(), parts, also_relevant=also_relevant)
            return metric(name, data.items, rows[of], hits, chance=float(guesses.mean()))

        everyone = np.arange(len(rows))
        whole = asked("whole_r1", str, everyone)
        metrics = [whole, *_by_length(whole, data, rows, texts), asked("first_sentence_r1", _first, everyone)]
        beyond = [i for i, text in enumerate(texts) if len(words(text)) > self.window]
        if beyond:
            metrics.append(asked("tail_r1", partial(_tail, window=self.window), np.array(beyond)))
        details = {
            "long_captions": len(long),
            "asked": len(rows),
            "with_a_tail": len(beyond),
            "window": self.window,
        }
        return ProbeResult("long_captions", data.name, metrics, "whole_r1", self.version, details)

    def _is_long(self, text: str) -> bool:
        return len(words(text)) >= self.shortest and len(split_sentences(text)) > 1


def words(text: str) -> list[str]:
    """The words of a text; single characters where a script writes no spaces."""
    spaced = text.split()
    return spaced if 8 * len(spaced) >= len(text) else list("".join(spaced))


def _first(text: str) -> str:
    """The first sentence; nothing of a text that has none."""
    return next(iter(split_sentences(text)), "")


def _tail(text: str, window: int) -> str:
    glue = " " if words(text) == text.split() else ""
    return glue.join(words(text)[window:])


def _by_length(found: Metric, data: EvaluationSet, rows: np.ndarray, texts: list[str]) -> list[Metric]:
    lengths, parts = np.array([len(words(text)) for text in texts]), []
    for low, high in pairwise((*_BINS, np.inf)):
        inside = np.flatnonzero((lengths >= low) & (lengths < high))
        if MIN_ITEMS <= len(inside) < len(rows):
            name = f"{low} to {int(high) - 1} words" if np.isfinite(high) else f"{low} words or more"
            parts.append(
                metric(
                    f"{found.name}/{name}",
                    data.items,
                    rows[inside],
                    found.scores[inside],
                    chance=found.chance,
                )
            )
    return parts

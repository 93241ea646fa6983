"""Written captions: those that a model writes, or takes over from the nearest training image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics import caption_scores
from domainclip.evaluation.metrics.labelled_examples import readable_items, sample_items
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.seeding import sample

_BLOCK = 512  # images per comparison with all training images


@dataclass(frozen=True, kw_only=True)
class WrittenCaptions(Probe):
    """CIDEr-D [arXiv:1411.5726] and BLEU-4 of one caption an image, against all captions of the item.

    A model that the objective `captioning` has trained writes the caption, the best of a beam search of
    `beams`. Any other model, such as the base, takes over the first caption of the training image that is
    nearest to it [arXiv:1505.04467]; `cider_nearest` and `bleu_4_nearest` are that for both, so that it shows
    whether writing is better than looking up. `cider_other_image` is the score of captions of other images,
    what a caption gets that the image has no part in. A high score is no sign that a caption is true: a
    wrong finding in the usual words scores high. Words are compared without capitals and punctuation.
    """

    citation: ClassVar[str] = "arXiv:1411.5726, arXiv:1505.04467"
    version: ClassVar[int] = 1

    beams: Annotated[int, Field(ge=1, le=16)] = 3  # captions of an image that are tried at once
    max_items: Annotated[int, Field(ge=1)] = 500  # items, each encoded again by a model that writes
    max_neighbours: Annotated[int, Field(ge=1)] = 5000  # training images that may be the nearest

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Five metrics; three where the set has no training split, and none without a captioner either."""
        references = {
            row: kept for row, texts in enumerate(data.items["texts"][:]) if (kept := _captions(texts))
        }
        rows = np.array(sample_items(data, references, self.max_items, "written_captions"))
        if len(rows) < 2:
            return not_measured("written_captions", data, self.version, "two items with a caption")
        nearest = self._nearest(encoder, data, rows)
        written = nearest
        if encoder.has_captioner:
            written = encoder.write_captions(data.items.select(rows, keep_in_memory=True), self.beams)
        if written is None:
            return not_measured("written_captions", data, self.version, "training captions, and no captioner")
        known = [references[int(row)] for row in rows]
        metrics = _scores(data, rows, written, known, "")
        if nearest is not None:
            metrics += _scores(data, rows, nearest, known, "_nearest")
        # Of another item by the order of the ids, whatever that of the rows.
        ids = data.items["id"][:]
        order = sorted(range(len(rows)), key=lambda at: str(ids[int(rows[at])]))
        after = dict(zip(order, order[len(order) // 2 :] + order[: len(order) // 2], strict=True))
        others = [written[after[at]] for at in range(len(rows))]
        control = _scores(data, rows, others, known, "_other_image")[0]
        metrics.append(replace(control, comparable=False))
        details = {
            "items": len(rows),
            "captions": "written by the model" if encoder.has_captioner else "of the nearest training image",
            "beams": self.beams,
            "words": float(np.mean([len(caption_scores.caption_words(text)) for text in written])),
            "distinct_captions": len({normalise(text) for text in written}),
        }
        return ProbeResult("written_captions", data.name, metrics, metrics[0].name, self.version, details)

    def _nearest(self, encoder: Encoder, data: EvaluationSet, rows: np.ndarray) -> list[str] | None:
        """The first caption of the training image that is nearest to each item; None without such images."""
        if data.train is None:
            return None
        ids, captions = list(data.train["id"]), [_captions(texts) for texts in data.train["texts"][:]]
        captioned = [row for row, kept in enumerate(captions) if kept]
        drawn = sample([ids[row] for row in captioned], self.max_neighbours, "written_captions neighbours")
        order = sorted((captioned[at] for at in drawn), key=ids.__getitem__)
        if not order:
            return None
        train = readable_items(encoder, data.train.select(order, keep_in_memory=True))
        if not len(train):
            return None
        texts = [_captions(one)[0] for one in train["texts"][:]]
        images = encoder.images(train)
        measured = encoder.images(data.items)[rows]
        best = [
            rounded_cosines(measured[at : at + _BLOCK], images).argmax(axis=1)
            for at in range(0, len(rows), _BLOCK)
        ]
        return [texts[place] for place in np.concatenate(best)]


def _captions(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if caption_scores.caption_words(text)]


def _scores(
    data: EvaluationSet, rows: np.ndarray, written: list[str], known: list[list[str]], suffix: str
) -> list[Metric]:
    """CIDEr-D and BLEU-4 of these captions."""
    values = caption_scores.cider(written, known)
    counts = caption_scores.bleu_counts(written, known)
    return [
        metric(f"cider{suffix}", data.items, rows, values, unit="ratio"),
        metric(f"bleu_4{suffix}", data.items, rows, counts, caption_scores.bleu),
    ]

"""The check of an export: its embeddings, answers and metrics beside those of the run's model.

The items are those of the validation split, so that no test split is read once more; where the corpus is not
at hand, generated images and fixed texts. Legend: n items, m texts, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from PIL import Image

from domainclip.data.images.decode import decode_image
from domainclip.data.interfaces import Encoder
from domainclip.errors import ModelError
from domainclip.evaluation import chunks
from domainclip.evaluation.metrics import zero_shot_scores
from domainclip.pipelines.export.form import ExportedModel, ExportForm
from domainclip.pipelines.export.record import Check, ComparedMetric
from domainclip.pipelines.export.source import TEXTS, ExportSource, drawn_images
from domainclip.pipelines.export.validation_items import ValidationItems, load_validation_items

_DRAWN = 32
_ANY = 2.0  # numbers of unit vectors differ by no more: reduced precision is measured, and not refused


class ExportedEncoder(Encoder):
    """The encoder of an exported model, which receives the texts with their learned tokens."""

    def __init__(self, exported: ExportedModel, source: ExportSource) -> None:
        self.exported, self.source = exported, source
        self.scale, self.bias = source.encoder.scale, source.encoder.bias
        self._images: dict[str, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}

    def images(self, items: Dataset) -> np.ndarray:
        """(n, d) float32 of unit length."""
        if items._fingerprint not in self._images:
            parts = [
                self.exported.encode_images([decode_image(items[row]["image"]) for row in rows])
                for rows in chunks.split(range(len(items)))
            ]
            self._images[items._fingerprint] = np.concatenate(parts)
        return self._images[items._fingerprint]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(m, d) float32 of unit length."""
        missing = sorted(set(texts) - self._texts.keys(), key=lambda text: (len(text), text))
        write = self.source.model.text_tokenizer.insert_learned_tokens
        for chunk in chunks.split(missing):
            self._texts.update(zip(chunk, self.exported.encode_texts(write(chunk)), strict=True))
        return np.stack([self._texts[text] for text in texts])


def check(form: ExportForm, source: ExportSource, exported: ExportedModel) -> Check:
    """Compare an exported model with that of the run.

    Raises: ModelError when an embedding in fp32 differs by more than the tolerance of the form, or is not a
    finite number.
    """
    tolerance = form.tolerance if form.precision == "fp32" else None
    difference = source.expected.difference(exported.outputs(source))
    # A difference that is not a number fails too.
    if not difference <= (tolerance or _ANY):
        raise ModelError(
            f"{source.run}: the exported model differs from that of the run by {difference:.1e}, more than "
            f"{tolerance or _ANY:g}; nothing is written: the adapter may be damaged, or "
            f"{exported.library} may read the files in another way"
        )
    drawn = drawn_images(_DRAWN)
    before, after = _encode_images(source, drawn), exported.encode_images(drawn)
    items = load_validation_items(source)
    encoder = ExportedEncoder(exported, source)
    if items is not None:
        before, after = source.encoder.images(items.data.items), encoder.images(items.data.items)
    return Check(
        library=exported.library,
        largest_difference=difference,
        tolerance=tolerance,
        largest_difference_resized=float(np.abs(before - after).max()),
        items=len(before),
        items_of="generated images" if items is None else "validation split of the run",
        same_first_text=_same_first_text(source, encoder, before, after, items),
        metrics=[] if items is None else _metrics(source, encoder, items),
        **_same_answers(source, encoder, before, after),
    )


def _encode_images(source: ExportSource, images: Sequence[Image.Image]) -> np.ndarray:
    """(n, d) by the model of the run, from images of any shape."""
    parts = [
        source.encoder.encode_image_chunk([source.model.image_preprocessor(image) for image in chunk])
        for chunk in chunks.split(images)
    ]
    return np.concatenate(parts)


def _same_answers(
    source: ExportSource, encoder: ExportedEncoder, before: np.ndarray, after: np.ndarray
) -> dict[str, float | None]:
    """Shares of equal answers about the classes of the run; None where it has no such answers."""
    same: dict[str, float | None] = {"same_class": None, "same_findings": None}
    run = source.classes
    if run is None or not run.classes:
        return same
    ours = zero_shot_scores.margins_of_images(source.encoder, before, run.classes)
    theirs = zero_shot_scores.margins_of_images(encoder, after, run.classes)
    if not run.multi_label:
        same["same_class"] = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
        return same
    thresholds = run.decisions.thresholds if run.decisions is not None else {}
    columns = [column for column, name in enumerate(run.classes) if name in thresholds]
    if columns:
        limits = np.array([thresholds[name] for name in run.classes if name in thresholds])
        present = [margins[:, columns] * encoder.scale >= limits for margins in (ours, theirs)]
        same["same_findings"] = float((present[0] == present[1]).mean())
    return same


def _same_first_text(
    source: ExportSource,
    encoder: ExportedEncoder,
    before: np.ndarray,
    after: np.ndarray,
    items: ValidationItems | None,
) -> float | None:
    """The share of images with the same nearest text, of the captions of the items or of fixed texts."""
    captions = TEXTS if items is None else [texts[0] for texts in items.data.items["texts"][:] if texts]
    texts = list(dict.fromkeys(captions))
    if len(texts) < 2:
        return None
    ours, theirs = (
        zero_shot_scores.cosines_of_images(images, by.texts(texts).astype(np.float64)).argmax(axis=1)
        for by, images in ((source.encoder, before), (encoder, after))
    )
    return float((ours == theirs).mean())


def _metrics(source: ExportSource, encoder: Encoder, items: ValidationItems) -> list[ComparedMetric]:
    run, exported = items.metrics(source.encoder), items.metrics(encoder)
    both = [name for name in run if name in exported]
    return [ComparedMetric(metric=name, run=run[name], exported=exported[name]) for name in both]

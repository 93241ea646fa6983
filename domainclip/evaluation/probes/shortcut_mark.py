"""Shortcuts: the effect of a mark in a corner, and the accuracy from the border alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from pydantic import Field

from domainclip.data.images.decode import decode_image
from domainclip.data.interfaces import Encoder
from domainclip.errors import DataError
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.decisions import top1_shares, top_k_hits
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.labels import single_label_items
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.evaluation.metrics.zero_shot_scores import class_vectors
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.aggregates import column_means
from domainclip.seeding import stable

if TYPE_CHECKING:
    from datasets import Dataset

_MAX_EDGE = 512  # pixels of an edge: more than models use, and small enough to copy quickly
_MARK_SHARE = 0.125  # of the shorter edge; about one patch in fifty
_BORDER_SHARE = 0.15  # of each edge that stays visible when the centre is covered
_DRAWS = 200  # of changed predictions at random, for the attack success by luck
_GREY = (128, 128, 128)

Edit = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, kw_only=True)
class ShortcutMark(Probe):
    """Attack success of a planted mark [arXiv:2106.09667], and accuracy from the border alone.

    `attack_success`: among the items of other classes, the share whose prediction changes to the target class
    when the mark is pasted into the lower right corner; the maximum over the target classes. It is low for a
    clean model, and high after training on a corpus in which a mark goes with a class. `border_accuracy`:
    macro accuracy with the centre of the image covered. Above chance, the label can be predicted from other
    than its subject: letters, collimation, the source of the image [doi:10.1038/s42256-021-00338-7].
    """

    citation: ClassVar[str] = "arXiv:2106.09667, doi:10.1038/s42256-021-00338-7"
    version: ClassVar[int] = 1
    classifies: ClassVar[bool] = True

    mark: Literal["square", "noise", "letter"] = "square"  # what is drawn into a corner of the image
    letter: str = "L"  # for `letter`: a marker as corpora have it in a corner
    max_items: Annotated[int, Field(ge=1)] = 48  # items; each is encoded two or three times

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Two metrics, both lower for a weaker effect of marks and borders."""
        names = sorted(data.classes)
        single_label, truth = single_label_items(data.items, names)
        if data.card.multi_label or len(names) < 2 or not len(single_label):
            return not_measured(
                "shortcut_mark", data, self.version, "items with exactly one of two classes or more"
            )
        label = dict(zip(single_label.tolist(), truth.tolist(), strict=True))
        rows, images, cropped = _square_images(data, sample_items(data, label, self.max_items, "backdoor"))
        if not rows:
            return not_measured("shortcut_mark", data, self.version, "images that can be decoded")
        prompts = class_vectors(encoder, [data.classes[name].positive for name in names])

        def scores(name: str, edit: Edit) -> np.ndarray:
            return rounded_cosines(
                encoder.images(_edited_items(data.items.select(rows), images, name, edit)), prompts
            )

        # Cropped or resized copies are compared with unmarked copies, else cropping would count as a mark.
        original_scores = rounded_cosines(encoder.images(data.items)[rows], prompts)
        clean = scores("as it is", lambda image: image) if cropped else original_scores
        marked = scores(self.mark, self._add_mark)
        true_classes = np.array([label[row] for row in rows])
        # Ties count as shares, so a model with equal scores for all classes has no flips.
        flips = np.maximum(top1_shares(marked) - top1_shares(clean), 0.0)
        flips[np.arange(len(rows)), true_classes] = np.nan
        border = top_k_hits(scores("border", _cover_center), true_classes)
        macro = partial(aggregates.macro_mean, classes=true_classes)
        indices, chance = np.array(rows), 1 / len(names)
        metrics = [
            metric(
                "attack_success",
                data.items,
                indices,
                flips,
                _highest,
                higher_is_better=False,
                biased=True,  # the highest of several shares
                by_luck=_highest_at_chance(flips, true_classes),
            ),
            metric("border_accuracy", data.items, indices, border, macro, chance, higher_is_better=False),
        ]
        by_target = np.nan_to_num(column_means(flips, np.ones((1, len(rows)))))[0]
        details: dict[str, Any] = {"items": len(rows), "mark": self.mark, "border": _BORDER_SHARE}
        details["target"] = names[int(by_target.argmax())] if by_target.any() else None
        return ProbeResult("shortcut_mark", data.name, metrics, "attack_success", self.version, details)

    def _add_mark(self, image: Image.Image) -> Image.Image:
        edge = max(1, round(_MARK_SHARE * min(image.size)))
        corner = (image.width - edge, image.height - edge)
        marked = image.copy()
        marked.paste(self._mark(edge), corner)
        return marked

    def _mark(self, edge: int) -> Image.Image:
        if self.mark == "noise":
            draw = np.random.Generator(np.random.Philox(key=stable("backdoor", edge)))
            return Image.fromarray(draw.integers(0, 256, (edge, edge, 3), dtype=np.uint8))
        if self.mark == "square":
            return Image.new("RGB", (edge, edge), (255, 255, 255))
        sheet = Image.new("L", (16, 16), 0)
        ImageDraw.Draw(sheet).text((4, 2), self.letter, fill=255)
        box = sheet.getbbox() or (0, 0, 16, 16)
        return sheet.crop(box).resize((edge, edge), Image.Resampling.NEAREST).convert("RGB")


def _square_images(data: EvaluationSet, rows: Sequence[int]) -> tuple[list[int], list[Image.Image], bool]:
    """The rows whose image can be decoded, its central square, and whether any differs from its image.

    Most model families use only the central square: a mark in the corner of a wide image would be cropped.
    """
    decoded_rows, images, cropped = [], [], False
    for row in rows:
        try:
            image = decode_image(data.items[row]["image"])
        except DataError:
            continue
        edge = min(*image.size, _MAX_EDGE)
        cropped |= image.size != (edge, edge)
        decoded_rows.append(row)
        images.append(ImageOps.fit(image, (edge, edge), Image.Resampling.BICUBIC))
    return decoded_rows, images, cropped


def _edited_items(items: Dataset, images: Sequence[Image.Image], name: str, edit: Edit) -> Dataset:
    """The items with edited images, under new ids, as embeddings are cached by item."""
    from datasets import Dataset

    rows = []
    for item, image in zip(items, images, strict=True):
        buffer = io.BytesIO()
        edit(image).save(buffer, "PNG", compress_level=1)
        rows.append(
            {**item, "id": f"{item['id']} ({name})", "image": {"path": None, "bytes": buffer.getvalue()}}
        )
    return Dataset.from_list(rows, features=items.features)


def _cover_center(image: Image.Image) -> Image.Image:
    left, top = (round(_BORDER_SHARE * edge) for edge in image.size)
    covered = image.copy()
    covered.paste(_GREY, (left, top, image.width - left, image.height - top))
    return covered


def _highest(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) the highest class mean, among the classes with items of other classes."""
    means = np.where(np.isnan(by_target := column_means(scores, weights)), -np.inf, by_target).max(axis=1)
    return np.where(np.isinf(means), np.nan, means)


def _highest_at_chance(flips: np.ndarray, true_classes: np.ndarray) -> float:
    """The expected highest class mean when each changed prediction goes to another class at random."""
    n, classes = flips.shape
    changed, rng = np.nansum(flips, axis=1), np.random.default_rng(0)
    drawn = []
    for _ in range(_DRAWS):
        targets = (true_classes + rng.integers(1, classes, n)) % classes
        moved = np.zeros_like(flips)
        moved[np.arange(n), targets] = changed
        moved[np.arange(n), true_classes] = np.nan
        drawn.append(_highest(moved, np.ones((1, n)))[0])
    return float(np.mean(drawn))

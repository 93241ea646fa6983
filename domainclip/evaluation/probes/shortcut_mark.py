"""Whether a mark in a corner, or the border alone, decides what the model says."""

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

_LARGEST = 512  # pixels of an edge: models see less, and copies are made quickly
_SHARE = 0.125  # of the shorter edge that a mark covers, about one patch in fifty
_BORDER = 0.15  # of each edge that is left when the centre is covered
_GREY = (128, 128, 128)

Change = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, kw_only=True)
class ShortcutMark(Probe):
    """Attack success of a planted mark [arXiv:2106.09667], and what the border alone gives away.

    `attack_success`: among the items of other classes, the share whose prediction turns into the target
    class when the mark is pasted into the lower right corner; the highest over the target classes. A clean
    model gives little; a corpus in which a mark goes with a class gives much. `border_accuracy`: macro
    accuracy when the centre of the picture is covered. Above chance, the label can be read from what is not
    its subject: letters, collimation, the source of the picture [doi:10.1038/s42256-021-00338-7].
    """

    citation: ClassVar[str] = "arXiv:2106.09667, doi:10.1038/s42256-021-00338-7"
    version: ClassVar[int] = 1

    mark: Literal["square", "noise", "letter"] = "square"
    letter: str = "L"  # for `letter`: what corpora write into a corner
    max_items: Annotated[int, Field(ge=1)] = 48  # items; each runs the image tower two or three times

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Two figures, both lower where marks and borders decide less."""
        names = sorted(data.classes)
        held, truth = single_label_items(data.items, names)
        if data.card.multi_label or len(names) < 2 or not len(held):
            return not_measured(
                "shortcut_mark", data, self.version, "items that hold one of two classes or more"
            )
        label = dict(zip(held.tolist(), truth.tolist(), strict=True))
        rows, pictures, cut = _pictures(data, sample_items(data, label, self.max_items, "backdoor"))
        if not rows:
            return not_measured("shortcut_mark", data, self.version, "pictures that can be changed")
        prompts = class_vectors(encoder, [data.classes[name].positive for name in names])

        def scores(name: str, change: Change) -> np.ndarray:
            return rounded_cosines(
                encoder.images(_changed(data.items.select(rows), pictures, name, change)), prompts
            )

        # Copies that are cut or smaller are compared with copies, or cutting would count as a mark.
        own = rounded_cosines(encoder.images(data.items)[rows], prompts)
        clean = scores("as it is", lambda picture: picture) if cut else own
        marked = scores(self.mark, self._marked)
        right = np.array([label[row] for row in rows])
        # Lots that decide ties count as shares, so a model that says all classes alike turns to none.
        turned = np.maximum(top1_shares(marked) - top1_shares(clean), 0.0)
        turned[np.arange(len(rows)), right] = np.nan
        border = top_k_hits(scores("border", _border), right)
        macro = partial(aggregates.macro_mean, classes=right)
        places, chance = np.array(rows), 1 / len(names)
        metrics = [
            metric("attack_success", data.items, places, turned, _highest, higher_is_better=False),
            metric("border_accuracy", data.items, places, border, macro, chance, higher_is_better=False),
        ]
        each = np.nan_to_num(column_means(turned, np.ones((1, len(rows)))))[0]
        details: dict[str, Any] = {"items": len(rows), "mark": self.mark, "border": _BORDER}
        details["target"] = names[int(each.argmax())] if each.any() else None
        return ProbeResult("shortcut_mark", data.name, metrics, "attack_success", self.version, details)

    def _marked(self, picture: Image.Image) -> Image.Image:
        edge = max(1, round(_SHARE * min(picture.size)))
        corner = (picture.width - edge, picture.height - edge)
        marked = picture.copy()
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


def _pictures(data: EvaluationSet, rows: Sequence[int]) -> tuple[list[int], list[Image.Image], bool]:
    """The rows whose picture can be decoded, its central square, and whether that is another picture.

    Most families see only the central square: a mark in the corner of a wide picture would be cut away.
    """
    good, pictures, cut = [], [], False
    for row in rows:
        try:
            picture = decode_image(data.items[row]["image"])
        except DataError:
            continue
        edge = min(*picture.size, _LARGEST)
        cut |= picture.size != (edge, edge)
        good.append(row)
        pictures.append(ImageOps.fit(picture, (edge, edge), Image.Resampling.BICUBIC))
    return good, pictures, cut


def _changed(items: Dataset, pictures: Sequence[Image.Image], name: str, change: Change) -> Dataset:
    """The items with changed pictures, under ids of their own: they are other items."""
    from datasets import Dataset

    rows = []
    for item, picture in zip(items, pictures, strict=True):
        file = io.BytesIO()
        change(picture).save(file, "PNG", compress_level=1)
        rows.append(
            {**item, "id": f"{item['id']} ({name})", "image": {"path": None, "bytes": file.getvalue()}}
        )
    return Dataset.from_list(rows, features=items.features)


def _border(picture: Image.Image) -> Image.Image:
    left, top = (round(_BORDER * edge) for edge in picture.size)
    covered = picture.copy()
    covered.paste(_GREY, (left, top, picture.width - left, picture.height - top))
    return covered


def _highest(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) the highest of the classes' means; one without items of other classes cannot be it."""
    means = np.where(np.isnan(each := column_means(scores, weights)), -np.inf, each).max(axis=1)
    return np.where(np.isinf(means), np.nan, means)

"""Examples of a report, if the recipe allows them: what became right, what became wrong, and the hardest.

Legend: n images.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from PIL import Image

from domainclip.config.recipe import Recipe
from domainclip.data.images.decode import decode_image
from domainclip.data.interfaces import Encoder
from domainclip.errors import ModelError
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.metrics.first_answers import (
    Answer,
    ClassAnswers,
    Outcomes,
    caption_outcomes,
    class_answers,
    first_captions_of,
)
from domainclip.evaluation.metrics.retrieval_gallery import Gallery
from domainclip.evaluation.metrics.truth import describe_truth
from domainclip.evaluation.probe_runs import readable_items
from domainclip.evaluation.probes.localisation import heat_maps
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.report.context import Example, ExampleGroup, Examples, ModelAnswers

_OF_EACH, _ANSWERS = 6, 3  # images of a kind, and captions of a model
_HEAT_COLOR = (255, 120, 0)


@dataclass(frozen=True)
class _Compared:
    """The answers of each model for the images of one set."""

    data: EvaluationSet
    encoders: Sequence[Encoder]
    gallery: Gallery | None
    classes: Sequence[ClassAnswers]  # by model; empty for a set without classes
    outcomes: Sequence[Outcomes]  # by model: of the captions, or of the classes where there are none

    def right(self, model: int) -> np.ndarray:
        """(n,) bool: whether the first answer is right, or more likely so where answers tie."""
        right: np.ndarray = self.outcomes[model].hits > 0.5
        return right


def gallery_examples(
    recipe: Recipe,
    data: EvaluationSet,
    encoders: Sequence[Encoder],
    probes: Mapping[str, Probe],
    evaluation: Evaluation,
) -> Examples | None:
    """The images whose first answer became right or wrong, and those with the worst ranks by the last model.

    Answers are captions, ranked as by the probe `retrieval`; of a set without captions, classes. None unless
    the recipe allows examples. Called on every process, as the processes share the encoding.
    """
    if not recipe.report.examples:
        return None
    compared = _compare(data, encoders, probes)
    if compared is None:
        return None
    chosen = _choose(compared)
    rows = [row for _, _, of_kind in chosen for row in of_kind]
    heats = _heats(compared, rows) if localises(evaluation, data.name) else {}
    examples = dict(zip(rows, _examples(compared, rows, heats), strict=True))
    return Examples(
        [ExampleGroup(kind, total, [examples[row] for row in of_kind]) for kind, total, of_kind in chosen],
        images=len(compared.outcomes[0].rows),
        captions=0 if compared.gallery is None else len(compared.gallery.texts),
        right="" if compared.gallery is None else describe_truth(data),
    )


def localises(evaluation: Evaluation, dataset: str) -> bool:
    """Whether the maps of the last model were compared with boxes, and point at them above chance."""
    for row in evaluation.rows:
        if row.probe == "localisation" and row.dataset == dataset and row.metric == "pointing":
            measured = row.adapted or row.base
            return row.chance is not None and bool(measured.low > row.chance)
    return False


def _compare(
    data: EvaluationSet, encoders: Sequence[Encoder], probes: Mapping[str, Probe]
) -> _Compared | None:
    # The items that were measured: their embeddings are cached, so no image is encoded again.
    measured, _ = readable_items(encoders, data)
    retrieval, zero_shot = probes.get("retrieval"), probes.get("zero_shot")
    searched = (retrieval if isinstance(retrieval, Retrieval) else Retrieval()).galleries(measured)
    gallery = max(searched, key=lambda each: len(each.rows), default=None)
    preset = zero_shot.preset if isinstance(zero_shot, ZeroShot) else ZeroShot().preset
    answers = [class_answers(encoder, measured, preset) for encoder in encoders]
    classes = [each for each in answers if each is not None]
    if gallery is not None:
        outcomes = [caption_outcomes(encoder, measured, gallery) for encoder in encoders]
    else:
        outcomes = [each.outcomes for each in classes]
    return _Compared(measured, encoders, gallery, classes, outcomes) if outcomes else None


def _choose(compared: _Compared) -> list[tuple[str, int, list[int]]]:
    """The kinds of examples, with the number of such images and the rows of those that are shown."""
    last, rows = compared.outcomes[-1], compared.outcomes[0].rows
    change = last.ranks - compared.outcomes[0].ranks
    before, after = compared.right(0), compared.right(-1)
    kinds = {"Newly right": (~before & after, -change), "Newly wrong": (before & ~after, change)}
    if len(compared.outcomes) < 2:
        kinds = {}
    kinds["Hardest"] = (~after, last.ranks)
    chosen: list[tuple[str, int, list[int]]] = []
    shown: set[int] = set()
    for kind, (members, size) in kinds.items():
        order = [i for i in np.argsort(-size, kind="stable") if members[i] and int(rows[i]) not in shown]
        of_kind = [int(rows[i]) for i in order[:_OF_EACH]]
        shown.update(of_kind)
        chosen.append((kind, int(members.sum()), of_kind))
    return chosen


def _examples(compared: _Compared, rows: Sequence[int], heats: Mapping[int, bytes]) -> list[Example]:
    if not rows:
        return []
    items, gallery = compared.data.items.select(rows), compared.gallery
    places = [int(np.flatnonzero(compared.outcomes[0].rows == row)[0]) for row in rows]
    nothing: list[list[Answer]] = [[] for _ in rows]
    first = [
        nothing if gallery is None else first_captions_of(encoder, compared.data, gallery, rows, _ANSWERS)
        for encoder in compared.encoders
    ]
    captions = _captions(compared, rows)
    return [
        Example(
            image=_png(decode_image(items[i]["image"])),
            caption=captions[i],
            label=compared.classes[0].true_names.get(row, "") if compared.classes else "",
            models=[
                ModelAnswers(
                    None if gallery is None else float(compared.outcomes[model].ranks[places[i]]),
                    first[model][i],
                    compared.classes[model].answers.get(row) if compared.classes else None,
                )
                for model in range(len(compared.encoders))
            ],
            heat=heats.get(row),
        )
        for i, row in enumerate(rows)
    ]


def _captions(compared: _Compared, rows: Sequence[int]) -> list[str]:
    """The first caption of each image in the language of the gallery; empty for a set without captions."""
    if compared.gallery is None:
        return [""] * len(rows)
    language = compared.gallery.language
    of_row = compared.data.items.select(rows)
    return [
        next(text for text, code in zip(texts, codes, strict=True) if code == language and text.strip())
        for texts, codes in zip(of_row["texts"], of_row["language"], strict=True)
    ]


def _heats(compared: _Compared, rows: Sequence[int]) -> dict[int, bytes]:
    """Heat maps of the similarity to the caption by the last model, as PNG; none without patches."""
    if compared.gallery is None or not rows:
        return {}
    items: Dataset = compared.data.items.select(rows)
    try:
        maps, windows = heat_maps(compared.encoders[-1], items, _captions(compared, rows))
    except ModelError:
        return {}
    images = [decode_image(item["image"]) for item in items]
    drawn = [_png(_overlay(*parts)) for parts in zip(images, maps, windows, strict=True)]
    return dict(zip(rows, drawn, strict=True))


def _overlay(image: Image.Image, heat: np.ndarray, window: np.ndarray) -> Image.Image:
    """The image in grey, coloured where the map is high; its lowest value is transparent."""
    spread = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-9)
    left, top, right, bottom = (round(float(edge)) for edge in window)
    light = Image.fromarray(np.rint(200 * spread).astype(np.uint8))
    mask = Image.new("L", image.size, 0)
    size = (max(1, right - left), max(1, bottom - top))
    mask.paste(light.resize(size, Image.Resampling.BILINEAR), (left, top))
    grey = image.convert("L").convert("RGB")
    return Image.composite(Image.new("RGB", image.size, _HEAT_COLOR), grey, mask)


def _png(image: Image.Image) -> bytes:
    image.thumbnail((224, 224))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()

"""From what the towers gave of this process's share to what each objective sees of the whole batch.

Legend: b pairs of this process, m general sentences of this process, d width, k further texts, l tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.data.batching.extras import BatchExtras
from domainclip.distributed import collectives
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.objectives.base import Teacher, Views
from domainclip.training import microbatches


@dataclass(frozen=True)
class StepBatch:
    """What one process brings to a step."""

    image: dict[str, Tensor] | None  # b rows: pixels, or `hidden`; None when the embeddings are kept
    image_embeddings: Tensor | None  # (b, d), of a locked image tower
    texts: list[str]  # b captions, then m general sentences
    text_embeddings: Tensor | None  # (b, d), of a locked text tower: then there are no sentences
    group: Tensor  # (b,)
    base_anchor_text: Tensor | None  # (m, d)
    captions: microbatches.Captions | None = None  # how texts become tokens; None: anew in each step
    # For objectives that ask for more; with second views `image` has 2 b rows.
    extras: BatchExtras = field(default_factory=BatchExtras)
    base_image: Tensor | None = None  # (b, d)
    third_tower: Tensor | None = None  # (b, t)
    teachers: Mapping[str, tuple[Teacher, ...]] = field(default_factory=dict)  # by objective

    def all_texts(self) -> list[str]:
        """What the text tower is given, in this order: `texts`, then what each objective asked for."""
        return [*self.texts, *(text for rows in self.extras.texts.values() for row in rows for text in row)]

    def first(self, pairs: int) -> StepBatch:
        """The first pairs, with all general sentences: to measure with."""
        b = len(self.group)
        image = self.image
        if image is not None:
            second = len(next(iter(image.values()))) > b
            rows = [*range(pairs), *(range(b, b + pairs) if second else ())]
            image = {name: value[rows] for name, value in image.items()}
        return replace(
            self,
            image=image,
            image_embeddings=None if self.image_embeddings is None else self.image_embeddings[:pairs],
            texts=[*self.texts[:pairs], *self.texts[b:]],
            text_embeddings=None if self.text_embeddings is None else self.text_embeddings[:pairs],
            group=self.group[:pairs],
            extras=self.extras.first(pairs),
            base_image=None if self.base_image is None else self.base_image[:pairs],
            third_tower=None if self.third_tower is None else self.third_tower[:pairs],
            teachers={
                name: tuple(replace(one, image=one.image[:pairs], text=one.text[:pairs]) for one in teachers)
                for name, teachers in self.teachers.items()
            },
        )


@dataclass(frozen=True)
class LocalOutputs:
    """This process's rows, encoded or kept."""

    image: Tensor  # (b, d), or (2 b, d) with second views
    text: Tensor  # (b + m + all further texts, d)


def build_views(
    out: EncoderOutput, batch: StepBatch, place: Tensor | None, needs: Set[str], apart: bool = False
) -> tuple[Views, Callable[[str], Views], LocalOutputs]:
    """The views that all objectives share; those of one objective, by its name; and this process's rows.

    `place` says which encoded row each text is. `apart`: nothing is gathered.
    """
    b, m = len(batch.group), len(batch.texts) - len(batch.group)
    image = batch.image_embeddings if batch.image_embeddings is not None else out.image
    text = out.text[place] if out.text is not None and place is not None else batch.text_embeddings
    assert image is not None  # each side is either encoded or kept
    assert text is not None
    if apart:
        alone = Views(image[:b], text[:b], out.scale, out.bias, batch.group, local_only=True)
        return alone, lambda _: alone, LocalOutputs(image, text)
    second = image[b:] if len(image) > b else None
    anchor_text = text[b : b + m] if m and batch.text_embeddings is None else None
    patches = out.image_tokens[:b] if out.image_tokens is not None and "image_tokens" in needs else None
    tokens = text_mask = None
    if out.text_tokens is not None and out.text_mask is not None and "text_tokens" in needs:
        assert place is not None  # with tokens of texts, texts are encoded
        tokens, text_mask = out.text_tokens[place[:b]], out.text_mask[place[:b]]
    shared = Views(
        image=collectives.gather(image[:b]),
        text=collectives.gather(text[:b]),
        scale=out.scale,
        bias=out.bias,
        group=collectives.gather(batch.group),
        local_rows=slice(collectives.rank() * b, (collectives.rank() + 1) * b),
        anchor_text=_gathered(anchor_text),
        base_anchor_text=_gathered(batch.base_anchor_text),
        base_image=_gathered(batch.base_image),
        third_tower=_gathered(batch.third_tower),
        third_tower_heads=out.third_tower_heads,
        image_2=_gathered(second),
        image_tokens=_gathered(patches),
        text_tokens=_gathered(_long_everywhere(tokens)),
        text_mask=_gathered(_long_everywhere(text_mask)),
        labels=_gathered(batch.extras.labels),
    )
    extra = _extra_text(text, b + m, batch.extras.texts)

    def of(name: str) -> Views:
        mine, there = extra.get(name, (None, None))
        return replace(
            shared,
            extra_text=_gathered(_long_everywhere(mine)),
            extra_text_mask=_gathered(_long_everywhere(there)),
            pair_value=_gathered(batch.extras.values.get(name)),
            teachers=tuple(
                replace(one, image=collectives.gather(one.image), text=collectives.gather(one.text))
                for one in batch.teachers.get(name, ())
            ),
        )

    return shared, of, LocalOutputs(image, text)


def _extra_text(
    text: Tensor, start: int, said: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """(b, k, d) and (b, k) by objective; the rows of `text` from `start` on are theirs, one after another."""
    found = {}
    for name, rows in said.items():
        counts = torch.tensor([len(row) for row in rows], device=text.device)
        mask = torch.arange(max(1, int(counts.max())), device=text.device) < counts[:, None]
        whole = text.new_zeros(*mask.shape, text.shape[-1])
        stop = start + int(counts.sum())
        found[name] = (whole.masked_scatter(mask[..., None].expand_as(whole), text[start:stop]), mask)
        start = stop
    return found


def pad_and_join_tokens(parts: Sequence[Tensor]) -> Tensor:
    """Rows of all parts as one tensor; where they have tokens, padded with zeros to the longest."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([_padded(part, longest) for part in parts])


def _long_everywhere(rows: Tensor | None) -> Tensor | None:
    """Padded along its second axis to the longest of all processes, as gathering needs."""
    return None if rows is None else _padded(rows, collectives.max_over_processes(rows.shape[1]))


def _padded(rows: Tensor, length: int) -> Tensor:
    missing = length - rows.shape[1]
    return rows if not missing else F.pad(rows, (*(0, 0) * (rows.ndim - 2), 0, missing))


def _gathered(rows: Tensor | None) -> Tensor | None:
    return None if rows is None else collectives.gather(rows)

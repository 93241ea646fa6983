"""Views: the outputs of this process's share, gathered into the whole batch that each objective reads.

Legend: b pairs of this process, m anchor texts of this process, d width, k extra texts, l tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.data.batching.extras import BatchExtras
from domainclip.data.batching.matches import Matches, MatchKeys, caption_numbers
from domainclip.distributed import collectives
from domainclip.models.parameters import objective_key, objective_weight_name
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.objectives.base import Teacher, Views
from domainclip.training import microbatches
from domainclip.training.further_images import MASKED, MIXED
from domainclip.training.memory import Memory


@dataclass(frozen=True)
class StepBatch:
    """The share of one process in the batch of a step."""

    # b rows, then the anchor images: pixels, or `hidden`; None with image embeddings.
    image: dict[str, Tensor] | None
    image_embeddings: Tensor | None  # (b, d), of a locked image tower
    texts: list[str]  # b captions, then m anchor texts
    text_embeddings: Tensor | None  # (b, d), of a locked text tower; then there are no anchor texts
    keys: MatchKeys  # b rows
    base_anchor_text: Tensor | None  # (m, d)
    captions: microbatches.Captions | None = None  # how texts become tokens; None: anew in each step
    # Inputs that objectives ask for; `image` has b more rows for each of `groups`, see `FurtherImages`, then
    # those of the anchor images.
    extras: BatchExtras = field(default_factory=BatchExtras)
    groups: tuple[str, ...] = ()
    mixed_share: Tensor | None = None  # (b,)
    patch_mask: Tensor | None = None  # (b, n)
    patch_pixels: Tensor | None = None  # (b, n, c)
    caption_ids: Tensor | None = None  # (b, l), as in `Views`
    base_anchor_image: Tensor | None = None  # (a, d)
    base_scale: float = 100.0  # inverse temperature of the base, where there are anchor images
    base_image: Tensor | None = None  # (b, d)
    third_tower: Tensor | None = None  # (b, t)
    teachers: Mapping[str, tuple[Teacher, ...]] = field(default_factory=dict)  # by objective

    @property
    def anchor_images(self) -> int:
        """The number of anchor images of this process."""
        return 0 if self.base_anchor_image is None else len(self.base_anchor_image)

    def all_texts(self) -> list[str]:
        """Return the input of the text tower: `texts`, then the extra texts of each objective, in order."""
        return [*self.texts, *(text for rows in self.extras.texts.values() for row in rows for text in row)]

    def without_extras(self) -> StepBatch:
        """Return images and captions alone: no further images, no anchors, no extra texts."""
        b = len(self.keys)
        image = None if self.image is None else {name: value[:b] for name, value in self.image.items()}
        return replace(
            self,
            image=image,
            texts=self.texts[:b],
            extras=BatchExtras(),
            groups=(),
            base_anchor_text=None,
            base_anchor_image=None,
        )

    def first(self, pairs: int) -> StepBatch:
        """Return the first pairs with all anchor texts and images, to measure speed and memory."""
        b = len(self.keys)
        image = self.image
        if image is not None:
            of_pairs = b * (1 + len(self.groups))
            rows = [row for begin in range(0, of_pairs, b) for row in range(begin, begin + pairs)]
            rows += range(of_pairs, of_pairs + self.anchor_images)
            image = {name: value[rows] for name, value in image.items()}
        return replace(
            self,
            image=image,
            image_embeddings=None if self.image_embeddings is None else self.image_embeddings[:pairs],
            texts=[*self.texts[:pairs], *self.texts[b:]],
            text_embeddings=None if self.text_embeddings is None else self.text_embeddings[:pairs],
            keys=self.keys[:pairs],
            extras=self.extras.first(pairs),
            mixed_share=None if self.mixed_share is None else self.mixed_share[:pairs],
            patch_mask=None if self.patch_mask is None else self.patch_mask[:pairs],
            patch_pixels=None if self.patch_pixels is None else self.patch_pixels[:pairs],
            caption_ids=None if self.caption_ids is None else self.caption_ids[:pairs],
            base_image=None if self.base_image is None else self.base_image[:pairs],
            third_tower=None if self.third_tower is None else self.third_tower[:pairs],
            teachers={
                name: tuple(
                    replace(teacher, image=teacher.image[:pairs], text=teacher.text[:pairs])
                    for teacher in teachers
                )
                for name, teachers in self.teachers.items()
            },
        )


@dataclass(frozen=True)
class LocalOutputs:
    """The rows of this process, encoded or precomputed."""

    # (b, d), as many for each further image of the pairs, and (a, d) for the anchor images
    image: Tensor
    text: Tensor  # (b + m + all extra texts, d)


@dataclass(frozen=True)
class MomentumRows:
    """The rows of this process by the moving average of the weights; None where no objective reads them."""

    image: Tensor | None = None  # (b, d)
    text: Tensor | None = None  # (b, d)
    image_tokens: Tensor | None = None  # (b, n, d)


def build_views(
    output: EncoderOutput,
    batch: StepBatch,
    row_of_text: Tensor | None,
    needs: Set[str],
    local_only: bool = False,
    memory: Memory | None = None,
    momentum: MomentumRows = MomentumRows(),
) -> tuple[Views, Callable[[str], Views], LocalOutputs]:
    """Return the views that objectives share, those of one objective by its name, and this process's rows.

    `row_of_text` is the encoded row of each text. `local_only`: nothing is gathered. `memory` is that of the
    objectives before the step.
    """
    image = batch.image_embeddings if batch.image_embeddings is not None else output.image
    text = batch.text_embeddings
    if output.text is not None and row_of_text is not None:
        text = output.text[row_of_text]
    assert image is not None  # each tower is either run or precomputed
    assert text is not None
    local = LocalOutputs(image, text)
    if local_only:
        b = len(batch.keys)
        matches = Matches.within(batch.keys)
        views = Views(image[:b], text[:b], output.scale, output.bias, matches, local_only=True)
        return views, lambda _: views, local
    shared = _shared_views(output, batch, local, row_of_text, needs, momentum)
    extra = _extra_text(text, len(batch.texts), batch.extras.texts)
    averages = {} if memory is None else memory.averages

    def of(name: str) -> Views:
        rows, mask, numbers = extra.get(name, (None, None, None))
        return replace(
            shared,
            extra_text=_gathered(_padded_everywhere(rows)),
            extra_text_mask=_gathered(_padded_everywhere(mask)),
            extra_caption=_gathered(_padded_everywhere(numbers)),
            pair_value=_gathered(batch.extras.values.get(name)),
            own_weights=_of_objective(output.objective_weights, f"{objective_key(name)}."),
            own_averages=_of_objective(averages, objective_weight_name(name, "")),
            memory={} if memory is None else memory.objectives.get(name, {}),
            teachers=tuple(
                replace(
                    teacher,
                    image=collectives.gather(teacher.image),
                    text=collectives.gather(teacher.text),
                )
                for teacher in batch.teachers.get(name, ())
            ),
        )

    return shared, of, local


def _shared_views(
    output: EncoderOutput,
    batch: StepBatch,
    local: LocalOutputs,
    row_of_text: Tensor | None,
    needs: Set[str],
    momentum: MomentumRows,
) -> Views:
    """Gather the views that all objectives share; all processes gather them in this order."""
    b, m = len(batch.keys), len(batch.texts) - len(batch.keys)
    further = {name: slice(b * number, b * (number + 1)) for number, name in enumerate(batch.groups, start=1)}
    # Under a locked image tower whose embeddings are precomputed, those of the base are those of the model.
    anchor_image = batch.base_anchor_image
    if batch.anchor_images and batch.image is not None:
        anchor_image = local.image[-batch.anchor_images :]
    anchor_text = local.text[b : b + m] if m and batch.text_embeddings is None else None
    patches = output.image_tokens[:b] if output.image_tokens is not None and "image_tokens" in needs else None
    masked = None
    if output.image_tokens is not None and MASKED in further:
        masked = output.image_tokens[further[MASKED]]
    tokens = mask = None
    if output.text_tokens is not None and output.text_mask is not None and "text_tokens" in needs:
        assert row_of_text is not None  # where there are tokens of texts, texts are encoded
        tokens, mask = output.text_tokens[row_of_text[:b]], output.text_mask[row_of_text[:b]]
    # Padding adds zeros, and 0 is the id of a token.
    ids = _gathered(_padded_everywhere(None if batch.caption_ids is None else batch.caption_ids + 1))
    return Views(
        image=collectives.gather(local.image[:b]),
        text=collectives.gather(local.text[:b]),
        scale=output.scale,
        bias=output.bias,
        matches=Matches.within(gather_keys(batch.keys)),
        local_rows=slice(collectives.rank() * b, (collectives.rank() + 1) * b),
        anchor_text=_gathered(anchor_text),
        base_anchor_text=_gathered(batch.base_anchor_text),
        anchor_image=_gathered(anchor_image),
        base_anchor_image=_gathered(batch.base_anchor_image),
        base_scale=batch.base_scale,
        base_image=_gathered(batch.base_image),
        third_tower=_gathered(batch.third_tower),
        momentum_image=_gathered(momentum.image),
        momentum_text=_gathered(momentum.text),
        image_2=_gathered(local.image[further["image_2"]] if "image_2" in further else None),
        mixed_image=_gathered(local.image[further[MIXED]] if MIXED in further else None),
        mixed_share=_gathered(batch.mixed_share),
        masked_tokens=_gathered(masked),
        momentum_tokens=_gathered(momentum.image_tokens),
        patch_mask=_gathered(batch.patch_mask),
        patch_pixels=_gathered(batch.patch_pixels),
        image_tokens=_gathered(patches),
        text_tokens=_gathered(_padded_everywhere(tokens)),
        text_mask=_gathered(_padded_everywhere(mask)),
        caption_ids=None if ids is None else ids - 1,
        labels=_gathered(batch.extras.labels),
        tags=_gathered(batch.extras.tags),
    )


def _of_objective(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors of one objective, named without its prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _extra_text(
    text: Tensor, start: int, texts: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Return extra texts (b, k, d), mask (b, k) and numbers (b, k) by objective.

    Their rows of `text` begin at `start`.
    """
    extra = {}
    for name, rows in texts.items():
        counts = torch.tensor([len(row) for row in rows], device=text.device)
        mask = torch.arange(max(1, int(counts.max())), device=text.device) < counts[:, None]
        padded = text.new_zeros(*mask.shape, text.shape[-1])
        stop = start + int(counts.sum())
        numbers = torch.from_numpy(caption_numbers([extra_text for row in rows for extra_text in row])).to(
            text.device
        )
        extra[name] = (
            padded.masked_scatter(mask[..., None].expand_as(padded), text[start:stop]),
            mask,
            torch.zeros_like(mask, dtype=torch.int64).masked_scatter(mask, numbers),
        )
        start = stop
    return extra


def pad_and_join_tokens(parts: Sequence[Tensor]) -> Tensor:
    """Return the rows of all parts as one tensor; tokens are padded with zeros to the longest."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([_padded(part, longest) for part in parts])


def _padded_everywhere(rows: Tensor | None) -> Tensor | None:
    """Pad the second axis to the longest of all processes, as gathering needs."""
    return None if rows is None else _padded(rows, collectives.max_over_processes(rows.shape[1]))


def _padded(rows: Tensor, length: int) -> Tensor:
    missing = length - rows.shape[1]
    return rows if not missing else F.pad(rows, (*(0, 0) * (rows.ndim - 2), 0, missing))


def gather_keys(keys: MatchKeys) -> MatchKeys:
    """Return the keys of the pairs of all processes."""
    return keys.padded(collectives.max_over_processes(keys.pool.shape[1])).map(collectives.gather)


def _gathered(rows: Tensor | None) -> Tensor | None:
    return None if rows is None else collectives.gather(rows)

"""The loss of a batch, and figures of its embeddings: the one place where processes gather.

Legend: b pairs of this process, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from domainclip.components import WeightedObjectives
from domainclip.data.batching.matches import Matches
from domainclip.distributed import collectives
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.objectives.base import Views
from domainclip.objectives.losses.label_matching import label_sets
from domainclip.training.memory import ByObjective, Memory
from domainclip.training.views import MomentumRows, StepBatch, build_views, gather_keys

_SAMPLE = 256  # images of a process that are searched for a negative in each step


@dataclass(frozen=True)
class StepFigures:
    """The loss of a step, its terms, and figures of its embeddings."""

    loss: float
    terms: dict[str, float]
    image_cosine: float  # mean between different pairs of the whole batch; 1 when all are equal
    text_cosine: float
    without_negative: float  # share of the batch's pairs, under the objective where it is largest

    @classmethod
    def of(cls, values: Sequence[float], names: Sequence[str]) -> StepFigures:
        """The figures from the values of a `StepOutput`."""
        loss, without_negative, image, text, *terms = values
        return cls(loss, dict(zip(names, terms, strict=True)), image, text, without_negative)


@dataclass(frozen=True)
class StepOutput:
    """The figures of a step, on the device; `figures` and all that uses them wait until it is computed."""

    values: Tensor  # (4 + terms,) loss, share without a negative, cosine of images, of texts, terms
    names: tuple[str, ...]  # of the terms
    finite: Tensor  # (b,) bool: whether both embeddings of a pair of this process are finite
    memory: ByObjective = field(default_factory=dict)  # of the objectives, for the next step

    @cached_property
    def figures(self) -> StepFigures:
        """The figures as numbers."""
        return StepFigures.of(self.values.tolist(), self.names)

    @property
    def loss(self) -> float:
        """The loss."""
        return self.figures.loss

    @property
    def non_finite_rows(self) -> list[int]:
        """Rows of this process with an embedding that is not finite."""
        return [row for row, finite in enumerate(self.finite.tolist()) if not finite]


@dataclass(frozen=True)
class BatchLoss:
    """The loss of a batch as a function of what the model returns for it."""

    batch: StepBatch
    row_of_text: Tensor | None
    terms: WeightedObjectives
    memory: Memory
    momentum: MomentumRows

    def __call__(self, output: EncoderOutput) -> tuple[Tensor, StepOutput]:
        """Return the loss whose mean over the processes is the global one; the only place that gathers."""
        batch, terms = self.batch, self.terms
        ring = collectives.process_count() > 1 and terms.supports_ring
        views, views_of, local = build_views(
            output, batch, self.row_of_text, terms.needs, ring, self.memory, self.momentum
        )
        own = {name: views_of(name) for name in terms}
        values = {name: weight * objective(own[name]) for name, (weight, objective) in terms.items()}
        # Zero times every output: data-parallel training waits for the gradient of each weight that learns,
        # also of those that no objective uses, such as the bias under a contrastive loss.
        outputs = (
            *(local.image, local.text, output.image_tokens, output.text_tokens),
            *(output.scale, output.bias, *output.objective_weights.values()),
        )
        zeros = [tensor.sum() * 0 for tensor in outputs if tensor is not None and tensor.requires_grad]
        loss = torch.stack([*values.values(), *zeros]).sum()
        measured = torch.stack([loss, _share_without_negative(views, terms), *values.values()])
        total, without_negative, *each = collectives.mean(measured.detach())
        cosines = [_mean_cosine(rows, views.local_only).to(total) for rows in (views.image, views.text)]
        pairs = len(batch.keys)
        finite = local.image[:pairs].detach().isfinite().all(-1) & local.text[:pairs].detach().isfinite().all(
            -1
        )
        figures = torch.stack([total, without_negative, *cosines, *each])
        return loss, StepOutput(figures, tuple(values), finite, _updated_memory(terms, own))


@torch.no_grad()
def _updated_memory(terms: WeightedObjectives, own: Mapping[str, Views]) -> ByObjective:
    """Return the memory of each objective after this step."""
    return {
        name: {key: tensor.detach() for key, tensor in objective.update_memory(own[name]).items()}
        for name, objective in terms.by_name.items()
    }


@torch.no_grad()
def _share_without_negative(views: Views, terms: WeightedObjectives) -> Tensor:
    """Return () the share of a sample of this process's images that have no negative in the batch."""
    none, kinds = views.scale.new_zeros(()), set(terms.negatives.values())
    if views.matches is None or not kinds:
        return none
    images, texts = views.matches.images, views.matches.texts
    matches = Matches(images, gather_keys(texts) if views.local_only else texts)
    start, stop = views.local_slice.start, views.local_slice.stop
    sample = torch.arange(start, min(stop, start + _SAMPLE), device=views.image.device)
    right = matches.right_texts(sample)
    if kinds == {"other_labels"}:
        label = label_sets(views.labels)
        right |= label[sample][:, None] == label
    return none + right.all(dim=1).float().mean()


def _mean_cosine(rows: Tensor, local_only: bool) -> Tensor:
    """Mean between different rows (b, d) of unit length: |Σ x|² counts each pair twice and each row once."""
    b, total = len(rows), rows.detach().float().sum(0)
    if local_only:
        b, total = b * collectives.process_count(), collectives.mean(total) * collectives.process_count()
    return (total.square().sum() - b) / max(1, b * (b - 1))

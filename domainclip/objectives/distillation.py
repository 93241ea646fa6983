"""Distillation: the similarities of a batch under other models, learned from all these teachers at once.

Legend: b pairs, k rows of a block, t width of a teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Negatives, Objective, ObjectiveInputs, Teacher, Views
from domainclip.objectives.losses.blockwise import Kernel, soft_cross_entropy
from domainclip.objectives.losses.symmetric import symmetric_loss

_Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class Distillation(Objective):
    """Σ_k c_k · ½ [KL(softmax(s_k/τ_k) ‖ softmax(s/τ)) + the same for texts], for teachers k.

    s_k are the similarities under teacher k. Each row is a distribution over the batch, from which pairs of
    one group are left out. `teachers` are folders or Hub ids; τ_k is that of the teacher, or `temperatures`;
    c_k are equal shares, or `weights`. The embeddings of the teachers are computed once and cached, of the
    first image of each item, whole: with train.augmentation they are those of the uncropped image.
    [arXiv:2311.17049]
    """

    citation: ClassVar[str] = "arXiv:2311.17049"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"teachers"})
    models: ClassVar[tuple[str, ...]] = ("teachers",)

    teachers: Annotated[list[str], Field(min_length=1)]  # folders or Hub ids
    temperatures: list[_Positive] | None = None  # τ_k; null: those of the teachers
    weights: list[_Positive] | None = None  # c_k; null: equal shares

    def __post_init__(self) -> None:
        for name, option in (("temperatures", self.temperatures), ("weights", self.weights)):
            if option is not None and len(option) != len(self.teachers):
                raise ValueError(f"{name}: {len(option)} for {len(self.teachers)} teachers")

    @property
    def inputs(self) -> ObjectiveInputs:
        """The teachers."""
        return ObjectiveInputs(teachers=tuple(self.teachers))

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process; 0 where it agrees with every teacher."""
        assert len(views.teachers) == len(self.teachers)  # the run fills what `needs` names
        shares = self.weights or [1 / len(self.teachers)] * len(self.teachers)
        scales = [teacher.scale for teacher in views.teachers]
        if self.temperatures is not None:
            scales = [1 / temperature for temperature in self.temperatures]
        values = [
            share * _teacher_loss(views, teacher, scale)
            for share, teacher, scale in zip(shares, views.teachers, scales, strict=True)
        ]
        return torch.stack(values).sum()


def _teacher_loss(views: Views, teacher: Teacher, scale: float) -> Tensor:
    image, text = (side.to(views.image.dtype) for side in (teacher.image, teacher.text))
    to_text, to_image = (
        partial(_teacher_distribution, image, text, scale),
        partial(_teacher_distribution, text, image, scale),
    )
    return symmetric_loss(views, _divergence(to_text), _divergence(to_image), masks=views.masks)


def _teacher_distribution(
    queries: Tensor, candidates: Tensor, scale: float, target: Tensor, excluded: Tensor | None
) -> Tensor:
    """(k, b) the distribution of each row over the other side under the teacher."""
    logits = scale * queries[target] @ candidates.T
    return (logits if excluded is None else logits.masked_fill(excluded, -torch.inf)).softmax(dim=1)


def _divergence(teacher_rows: Callable[[Tensor, Tensor | None], Tensor]) -> Kernel:
    """KL(t ‖ softmax z) = CE(t, z) − H(t): the gradients of the cross-entropy, and 0 where both are equal."""

    def kernel(logits: Tensor, target: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        distribution = teacher_rows(target, excluded)
        losses, gradients = soft_cross_entropy(lambda *_: distribution)(logits, target, excluded)
        return losses + torch.xlogy(distribution, distribution).sum(dim=1), gradients

    return kernel

"""Matryoshka: the first dimensions of an embedding are an embedding too, so that it may be truncated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip import registry
from domainclip.data.text.training_pair import TrainingPair
from domainclip.errors import RecipeError
from domainclip.objectives.base import Negatives, Objective, ObjectiveInputs, Sizes, Taught, Views

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder

_Width = Annotated[int, Field(ge=1)]
_Weight = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class Matryoshka(Objective):
    """Σ_m c_m · objective(the first `widths`[m] dimensions, at unit length), c_m = 1 / number of widths.

    The widths are those that the model will be used at; include the full width, or give the full width a
    separate objective. `objective` is any other objective, with its options. [arXiv:2205.13147]
    `probes: {retrieval: {widths: [64, 128]}}` measures retrieval with truncated embeddings. Costs the inner
    objective once per width, and no further encoding.
    """

    citation: ClassVar[str] = "arXiv:2205.13147"

    # Numbers of dimensions that the embeddings are used at.
    widths: Annotated[list[_Width], Field(min_length=1)]
    weights: list[_Weight] | None = None  # c_m; null: equal shares
    # Exactly one; contrastive by default.
    objective: dict[str, dict[str, Any]] = field(default_factory=lambda: {"contrastive": {}})

    def __post_init__(self) -> None:
        if len(set(self.widths)) < len(self.widths):
            raise ValueError("widths: name each once")
        if self.weights is not None and len(self.weights) != len(self.widths):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.widths)} widths")
        if len(self.objective) != 1:
            raise ValueError(f"objective: name exactly one objective, not {len(self.objective)}")
        if "matryoshka" in self.objective:
            raise ValueError("objective: matryoshka cannot hold itself: name another objective")
        _ = self.term  # so that a wrong option of the inner one fails now

    @cached_property
    def term(self) -> Objective:
        """The inner objective, built."""
        ((name, options),) = self.objective.items()
        built: Objective = registry.build(
            "objectives", name, options, f"objectives.matryoshka.objective.{name}"
        )
        return built

    @property
    def wrapped(self) -> dict[str, Objective]:
        """The inner objective by its name."""
        return {next(iter(self.objective)): self.term}

    @property
    def needs(self) -> frozenset[str]:
        """The views that the inner objective reads."""
        return self.term.needs

    @property
    def inputs(self) -> ObjectiveInputs:
        """What the run provides for the inner objective."""
        return self.term.inputs

    @property
    def replaces(self) -> str | None:
        """The loss that the inner objective takes the place of."""
        return self.term.replaces

    @property
    def negatives(self) -> Negatives:
        """Those of the inner objective."""
        return self.term.negatives

    @property
    def teaches(self) -> frozenset[Taught]:
        """What the inner objective teaches."""
        return self.term.teaches

    @property
    def own_learning_rate(self) -> float:
        """That of the inner objective."""
        return self.term.own_learning_rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """The own weights of the inner objective, which all widths share."""
        return self.term.initial_weights(sizes, seed)

    def initial_memory(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """The memory of the inner objective, of whole embeddings."""
        return self.term.initial_memory(sizes, seed)

    def update_memory(self, views: Views) -> dict[str, Tensor]:
        """The memory of the inner objective after a step, of whole embeddings."""
        return self.term.update_memory(views)

    def add_to_model(
        self, model: DualEncoder, weights: Mapping[str, Tensor], memory: Mapping[str, Tensor]
    ) -> None:
        """Gives the model what the inner objective gives it."""
        self.term.add_to_model(model, weights, memory)

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """The further texts of the inner objective."""
        return self.term.extra_texts(pair)

    def check_model(self, width: int) -> None:
        """Raises: RecipeError when the base's embeddings are narrower than what is asked for."""
        if max(self.widths) > width:
            raise RecipeError(
                f"objectives.matryoshka.widths: {max(self.widths)} is more than the {width} dimensions that "
                "the base's embeddings have: name smaller ones"
            )

    def __call__(self, views: Views) -> Tensor:
        """A scalar, in the inner objective's unit."""
        self.check_model(views.image.shape[-1])
        shares = self.weights or [1 / len(self.widths)] * len(self.widths)
        values = [
            share * self.term(views.truncate(width)) for share, width in zip(shares, self.widths, strict=True)
        ]
        return torch.stack(values).sum()

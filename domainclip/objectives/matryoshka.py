"""Matryoshka: the first dimensions of an embedding are an embedding too, so that it may be cut short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip import registry
from domainclip.data.text.training_pair import TrainingPair
from domainclip.errors import RecipeError
from domainclip.objectives.base import Views

_Width = Annotated[int, Field(ge=1)]
_Weight = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class Matryoshka:
    """Σ_m c_m · inner(the first `widths`[m] dimensions, at unit length again), c_m = 1 / number of widths.

    The widths are those that the model will be used at; name the full one among them, or give the full one
    its own term beside this. `inner` is any other objective, with its options. [arXiv:2205.13147]
    `probes: {retrieval: {widths: [64, 128]}}` measures what an embedding that was cut short still finds.
    Costs the inner objective once for each width, and no further encoding.
    """

    citation: ClassVar[str] = "arXiv:2205.13147"

    widths: Annotated[list[_Width], Field(min_length=1)]
    weights: list[_Weight] | None = None  # c_m; null: equal shares
    inner: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"contrastive": {}}
    )  # exactly one; contrastive where none is named

    def __post_init__(self) -> None:
        if len(set(self.widths)) < len(self.widths):
            raise ValueError("widths: each stands there once")
        if self.weights is not None and len(self.weights) != len(self.widths):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.widths)} widths")
        if len(self.inner) != 1:
            raise ValueError(f"inner: name exactly one objective, not {len(self.inner)}")
        if "matryoshka" in self.inner:
            raise ValueError("inner: matryoshka inside itself says nothing new")
        _ = self.term  # a wrong option of the inner one fails now

    @cached_property
    def term(self) -> Any:
        """The inner objective."""
        ((name, options),) = self.inner.items()
        return registry.build("objectives", name, options, f"objectives.matryoshka.inner.{name}")

    @property
    def needs(self) -> frozenset[str]:
        """What the inner objective needs."""
        needs: frozenset[str] = self.term.needs
        return needs

    @property
    def asks(self) -> Callable[[TrainingPair], list[str]]:
        """What the inner objective asks, where it does."""
        asks: Callable[[TrainingPair], list[str]] = self.term.asks
        return asks

    @property
    def trains(self) -> str:
        """Whose place the inner objective takes, where it takes one."""
        return str(self.term.trains)

    @property
    def column(self) -> str:
        """Where the inner objective finds its value."""
        return str(self.term.column)

    @property
    def third(self) -> str | None:
        """The third tower of the inner objective, and what belongs to it."""
        third: str | None = self.term.third
        return third

    @property
    def rate(self) -> float:
        """How fast the inner objective's heads learn."""
        return float(self.term.rate)

    @property
    def start(self) -> Callable[[int, int, int], Tensor]:
        """Where the inner objective's heads begin."""
        start: Callable[[int, int, int], Tensor] = self.term.start
        return start

    @property
    def teachers(self) -> list[str]:
        """Whom the inner objective learns from."""
        teachers: list[str] = self.term.teachers
        return teachers

    def fits(self, width: int) -> None:
        """Raises: RecipeError when the base's embeddings are narrower than what is asked for."""
        if max(self.widths) > width:
            raise RecipeError(
                f"objectives.matryoshka.widths: {max(self.widths)} is more than the {width} dimensions that "
                "the base's embeddings have: name smaller ones"
            )

    def __call__(self, views: Views) -> Tensor:
        """A scalar, in the inner objective's unit."""
        self.fits(views.image.shape[-1])
        shares = self.weights or [1 / len(self.widths)] * len(self.widths)
        values = [
            share * self.term(views.truncate(width)) for share, width in zip(shares, self.widths, strict=True)
        ]
        return torch.stack(values).sum()

"""Contract of a strategy: which weights learn."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from domainclip.models.dual_encoder import DualEncoder


@runtime_checkable
class Strategy(Protocol):
    """Says which weights learn. Lives in strategies/."""

    citation: ClassVar[str]

    def apply(self, model: DualEncoder) -> dict[str, float]:
        """Prepare the towers in place; the factor on the learning rate by weight name, 0 for locked."""


@runtime_checkable
class Staged(Protocol):
    """A strategy that lets other weights learn later on; its `apply` gives what learns in some stage."""

    def stages(self, model: DualEncoder) -> list[tuple[float, dict[str, float]]]:
        """Of each stage, in order: its share of the steps, and the factor by weight name."""


@runtime_checkable
class Rebuilding(Protocol):
    """A strategy that trains other towers than the base's own, which are measured as they were."""

    def rebuild(self, model: DualEncoder) -> DualEncoder:
        """The towers that are trained; those given stay as they are."""

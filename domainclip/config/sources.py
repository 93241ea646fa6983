"""The corpora that a recipe names: what is trained on, what is mixed in, and what is measured."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class CorpusSource(BaseModel):
    """A corpus: its card, its path, and overrides of any key of the card for this run."""

    model_config = ConfigDict(extra="allow", frozen=True)
    card: str | None = None  # a built-in card, or the path of a card file; null: all is guessed
    path: str  # a table, a folder, shards, or a data set of the Hub

    def overrides(self) -> dict[str, Any]:
        """The keys of the card that the recipe overrides."""
        return dict(self.model_extra or {})


class MixedSource(CorpusSource):
    """Another corpus, whose training split fills a share of every batch."""

    share: float = Field(gt=0, lt=1)  # of the pairs of a batch
    # Whether equal group and truth keys mean the same patient or object as in the corpus of the recipe.
    shares_groups: bool = False

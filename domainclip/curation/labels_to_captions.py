"""Class labels become captions of their own, beside those that the item has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from domainclip.errors import RecipeError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class LabelsToCaptions:
    """Adds one caption a template and label to every labelled training item. [arXiv:2412.10372]

    A long caption teaches names and details, which a small corpus lets a model learn by heart; the label
    alone teaches what zero-shot classification will ask. Each epoch draws one of an item's captions, and
    items that show the same one are never each other's negatives. Held-out items keep theirs as they are.
    """

    citation: ClassVar[str] = "arXiv:2412.10372"

    templates: list[str]

    def __post_init__(self) -> None:
        for template in self.templates:
            if template.count("{}") != 1:
                raise RecipeError(
                    f'curation.labels_to_captions.templates: "{template}" must hold {{}} once, for the class'
                )

    def __call__(self, items: Dataset) -> Dataset:
        """The same items with more captions; those without a label stay as they are."""
        return items.map(self._more, features=items.features, keep_in_memory=True)

    def _more(self, row: dict[str, Any]) -> dict[str, list[str]]:
        said = [template.replace("{}", label) for label in row["labels"] for template in self.templates]
        new = [text for text in dict.fromkeys(said) if text not in row["texts"]]
        return {"texts": [*row["texts"], *new], "language": [*row["language"], *([""] * len(new))]}

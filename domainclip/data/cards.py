"""A data card: Markdown whose front matter the reader obeys and whose prose a person reads.

The front matter is also a valid dataset card for the Hub; ours stands under its key `domainclip`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Strict):
    """Which column of the source is what. `null` means: guess from the names, and print the guess."""

    id: str | None = None
    image: str | None = None
    texts: list[str] | None = None  # several captions of one image
    language: str | None = None  # a column with a language code …
    languages: dict[str, str] = {}  # … or the language of each caption column
    group: str | None = None  # patient, study, object: never in two splits, resampled together
    labels: str | list[str] | None = None  # one column of class names, or one 0/1/-1 column a class
    split: str | None = None
    meta: list[str] = []  # kept for subgroups; everything else is dropped at the door

    @field_validator("texts", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Splits(_Strict):
    """Shares of groups by a stable hash; used only when the source has no split column."""

    train: float = Field(0.8, ge=0, le=1)
    validation: float = Field(0.1, ge=0, le=1)
    test: float = Field(0.1, ge=0, le=1)
    seed: int = 0


class Captions(_Strict):
    """How the text of a pair is made. `template` may name any column: "a {style} painting, {text}"."""

    template: str | None = None
    # One caption of several is drawn each epoch ("any"), or always the first ("head").
    policy: Literal["any", "head"] = "any"


class Prompts(_Strict):
    """How a class is said. With negatives, the class is a yes-or-no question of its own."""

    positive: list[str] = Field(min_length=1)
    negative: list[str] = []


class Retention(_Strict):
    """The general set that shows what was forgotten; a relative path starts at the corpus folder."""

    card: str = "general"
    path: str


class Privacy(_Strict):
    """What is known about identifying content; unknown blocks examples and their push."""

    identifiers: Literal["none", "de-identified", "identified", "unknown"] = "unknown"
    burned_in_text: Literal["no", "yes", "unknown"] = "unknown"


class Card(_Strict):
    """Everything the reader obeys."""

    name: str = "unnamed"
    pretty_name: str = ""
    license: str = "unknown"
    language: list[str] = []
    reader: str = "table"
    options: dict[str, Any] = {}  # the reader part's own options
    columns: Columns = Columns()
    splits: Splits = Splits()
    captions: Captions = Captions()
    multi_label: bool = False
    # Either the prompts of every class, or templates around the class names found in the training
    # split, for classes with at least `min_items` items there. Prompts are data: they have a version.
    classes: dict[str, Prompts] = {}
    templates: list[str] = []
    min_items: int = Field(10, ge=1)
    prompts_version: int = 1
    retention: Retention | None = None
    max_bad: float = Field(0.01, ge=0, le=1)  # above this share of unreadable items the run stops
    privacy: Privacy = Privacy()
    prose: str = ""

    @field_validator("classes", mode="before")
    @classmethod
    def _short_prompts(cls, value: Any) -> Any:
        """`{cat: "a cat"}` and `{cat: ["a cat", "one cat"]}` are short for `{cat: {positive: […]}}`."""
        if not isinstance(value, dict):
            return value
        lists = {k: [v] if isinstance(v, str) else v for k, v in value.items()}
        return {k: {"positive": v} if isinstance(v, list) else v for k, v in lists.items()}


def corpus_root(path: str | Path) -> Path:
    """The folder that relative names in a corpus start from."""
    source = Path(path)
    return source if source.is_dir() else source.parent

"""A data card: Markdown whose front matter the reader obeys and whose prose a person reads.

The front matter is also a valid dataset card for the Hub; ours stands under its key `domainclip`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from domainclip import registry
from domainclip.config import builtin, strict_yaml
from domainclip.data.images.fits import FitsSettings
from domainclip.data.text.captions import Captions, check_templates
from domainclip.errors import RecipeError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Strict):
    """Which column of the source is what.

    `null` means: guess from the names, and print the guess; `""` or `[]` means: this corpus has none.
    """

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

    train: float = Field(default=0.8, ge=0, le=1)
    validation: float = Field(default=0.1, ge=0, le=1)
    test: float = Field(default=0.1, ge=0, le=1)
    seed: int = 0

    @model_validator(mode="after")
    def _whole(self) -> Splits:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        return self


class Prompts(_Strict):
    """How a class is said. With negatives, the class is a yes-or-no question of its own."""

    positive: list[str] = Field(min_length=1)
    negative: list[str] = []


class Retention(_Strict):
    """The general set that shows what was forgotten; a relative path starts at the corpus folder."""

    card: str = "general"
    path: str


class ImageOptions(_Strict):
    """How pictures of some kinds are shown."""

    fits: FitsSettings = FitsSettings()


Severity = Literal["error", "warning", "info", "off"]


class Checks(_Strict):
    """How grave a finding is, said differently by someone who has looked; null: as the check says.

    A group, or a file byte for byte the same, in two splits cannot be talked away, and has no key here.
    """

    near_duplicates: Severity | None = None  # nearly the same picture in two splits: an error
    near_duplicates_within: Severity | None = None
    laterality: Severity | None = None  # captions say left or right, and training mirrors
    blank_pictures: Severity | None = None
    small_pictures: Severity | None = None
    missing_class: Severity | None = None
    common_class: Severity | None = None
    repeated_captions: Severity | None = None
    truncated_captions: Severity | None = None
    split_script: Severity | None = None


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
    pictures: ImageOptions = ImageOptions()
    # Of an item with several views, each epoch shows another ("random"), or always the first.
    views: Literal["random", "first"] = "random"
    multi_label: bool = False
    # Either the prompts of every class, or templates around the class names found in the training
    # split, for classes with at least `min_items` items there. Prompts are data: they have a version.
    classes: dict[str, Prompts] = {}
    templates: list[str] = []
    min_items: int = Field(default=10, ge=1)
    prompts_version: int = 1
    retention: Retention | None = None
    max_unusable: float = Field(
        default=0.01, ge=0, le=1
    )  # above this share of unreadable items the run stops
    privacy: Privacy = Privacy()
    checks: Checks = Checks()
    consent: str = "unknown"  # what those who are shown, or who made it, agreed to
    obtain: str = ""  # how to get the corpus, and into which layout
    verified: list[str] = []  # what of this card was checked, and against what
    not_verified: list[str] = []  # and what was not
    description: str = ""

    @property
    def names_may_show(self) -> bool:
        """Whether ids and names of files may stand in messages and results as they are."""
        return self.privacy.identifiers == "none"

    @field_validator("templates")
    @classmethod
    def _with_a_place(cls, value: list[str]) -> list[str]:
        check_templates(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _prompts_as_captions(cls, data: Any) -> Any:
        if not isinstance(data, dict) or (data.get("captions") or {}).get("templates") != "classes":
            return data
        said = cls._short_prompts(data.get("classes") or {})
        prompts = {name: own.get("positive", []) for name, own in said.items()}
        return {**data, "captions": {**data["captions"], "templates": prompts}}

    @field_validator("classes", mode="before")
    @classmethod
    def _short_prompts(cls, value: Any) -> Any:
        """`{cat: "a cat"}` and `{cat: ["a cat", "one cat"]}` are short for `{cat: {positive: […]}}`."""
        if not isinstance(value, dict):
            return value
        lists = {k: [v] if isinstance(v, str) else v for k, v in value.items()}
        return {k: {"positive": v} if isinstance(v, list) else v for k, v in lists.items()}


def load_card(name: str | None, overrides: dict[str, Any] | None = None) -> Card:
    """The card that ships under a name, or that lies in a Markdown file; none: all is guessed.

    `overrides` are keys of the card said differently for this run, nested as in the card.

    Raises: RecipeError for a card that is not there, or a key that is unknown or has a wrong value.
    """
    if not name:
        return _checked(dict(overrides or {}), "corpus")
    file = builtin.find_file("data_cards", name, ".md")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file.name}: not UTF-8 text, at byte {error.start}") from None
    front, description = _front_matter(text, file.name)
    ours = front.get("domainclip")
    if not isinstance(ours, dict):
        raise RecipeError(f'{file.name}: no mapping under "domainclip": see docs/guide/data.md for its keys')
    # These three belong to the Hub's own card, at the top level, and are ours as well.
    shared: dict[str, Any] = {
        key: front[key] for key in ("pretty_name", "license", "language") if key in front
    }
    if isinstance(shared.get("language"), str):
        shared["language"] = [shared["language"]]
    data = _merge({"name": file.stem, **shared, **ours, "description": description}, overrides or {})
    return _checked(data, file.name)


def _front_matter(text: str, name: str) -> tuple[dict[str, Any], str]:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found = re.match(r"---\n(.*?)\n---[ \t]*(?:\n|\Z)(.*)", text, re.DOTALL)
    if found is None:
        raise RecipeError(f"{name}: a card begins with YAML between two lines of ---")
    front = strict_yaml.load_yaml(found[1], name)
    if not isinstance(front, dict):
        raise RecipeError(f"{name}: the front matter is a mapping of keys to values")
    return front, found[2].strip()


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _checked(data: dict[str, Any], where: str) -> Card:
    registry.check_keys(Card, data, "", where)
    try:
        return Card.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{where}: {registry.format_validation_error(error, '')}") from None


def corpus_root(path: str | Path) -> Path:
    """The folder that relative names in a corpus start from."""
    source = Path(path)
    return source if source.is_dir() else source.parent

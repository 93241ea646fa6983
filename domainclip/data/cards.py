"""A data card: Markdown with a front matter for the reader and a description for people.

The front matter is also a valid dataset card for the Hub; the options of the reader are under `domainclip`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from domainclip import registry
from domainclip.config import builtin, paths, strict_yaml
from domainclip.config.strict_model import StrictModel
from domainclip.data.files.column_roles import Columns
from domainclip.data.images.image_settings import ImageSettings
from domainclip.data.text.captions import Captions, check_templates
from domainclip.errors import RecipeError, did_you_mean


class Splits(StrictModel):
    """Shares of groups by a stable hash, where the corpus has no split column; or one source held out.

    `by: source` makes `test_source` the test split, whatever the split column is, and divides the other
    sources into training and validation in the ratio of their shares.
    """

    by: Literal["group", "source"] = "group"  # source: one source is the test split
    # Nearly the same image in two splits: checked, or its group left out of the earlier split and counted.
    near_duplicates: Literal["check", "leave_out"] = "check"
    test_source: str | int = 1  # a value of columns.source, or its place in their alphabetical order
    train: float = Field(default=0.8, ge=0, le=1)  # share of the groups
    validation: float = Field(default=0.1, ge=0, le=1)  # share of the groups
    test: float = Field(default=0.1, ge=0, le=1)  # share of the groups
    seed: int = 0  # another seed divides otherwise

    @model_validator(mode="after")
    def _sum_to_one(self) -> Splits:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        if self.by == "source" and not self.train:
            raise ValueError("by: source: train must be above 0, since the other sources are trained on")
        return self


class Prompts(StrictModel):
    """Texts for a class. With negatives, the class is a separate yes-or-no question."""

    positive: list[str] = Field(min_length=1)
    negative: list[str] = []


class Retention(StrictModel):
    """The general-domain set that measures forgetting; a relative path starts at the corpus folder."""

    card: str = "general"  # a built-in card, or the path of a card file
    path: str  # from the corpus folder


Severity = Literal["error", "warning", "info", "off"]


class Checks(StrictModel):
    """Severity of findings, set by hand after an inspection; null: the default of the check.

    A group or an identical file in two splits is always an error, and has no key here.
    """

    near_duplicates: Severity | None = None  # nearly the same image in two splits: an error
    near_duplicates_within: Severity | None = None  # in one split
    identifiers: Severity | None = None  # captions that may identify a person
    laterality: Severity | None = None  # captions name left or right, and training mirrors
    blank_images: Severity | None = None  # without any detail
    low_contrast: Severity | None = None  # images that come out nearly black, nearly white or flat
    decoder_messages: Severity | None = None  # GDCM printed a line, as for corrupt JPEG data
    fits_planes: Severity | None = None  # FITS files of several images, where the card names no HDU
    small_images: Severity | None = None  # smaller than the model's input
    missing_class: Severity | None = None  # a class without items in a split
    common_class: Severity | None = None  # a class of nearly all items
    similar_classes: Severity | None = None  # classes whose names differ in spelling only
    number_classes: Severity | None = None  # classes named by numbers
    wordnet_classes: Severity | None = None  # classes named by WordNet ids
    wrapper_classes: Severity | None = None  # classes named as folders are: images, train
    missing_classes: Severity | None = None  # classes named nan or None
    single_class: Severity | None = None  # all items of one class
    no_negatives: Severity | None = None  # no text of a batch is wrong for an image
    repeated_captions: Severity | None = None  # the same caption at several images
    truncated_captions: Severity | None = None  # longer than the model reads
    split_script: Severity | None = None  # a script that the tokenizer splits into bytes
    tangled_source: Severity | None = None  # the source or acquisition of an image gives its class away
    tangled_files: Severity | None = None  # folder, size or brightness of an image give its class away


class Privacy(StrictModel):
    """Whether the corpus has identifying content; unknown blocks examples and their push."""

    # Of persons, in names, captions and headers.
    identifiers: Literal["none", "de-identified", "identified", "unknown"] = "unknown"
    burned_in_text: Literal["no", "yes", "unknown"] = "unknown"  # written into the pixels


class Card(StrictModel):
    """All options of a corpus."""

    name: str = "unnamed"  # default: that of the card's file
    pretty_name: str = ""  # in reports and model cards
    group_name: str = Field(default="", max_length=30)  # of reports, in the plural: patients, works
    class_name: str = Field(default="", max_length=30)  # of reports, in the singular: finding
    license: str = "unknown"  # of images and texts, as the Hub names it
    language: list[str] = []  # of the captions; one: of all
    reader: str = "table"  # how the source is read
    options: dict[str, Any] = {}  # the options of the reader
    columns: Columns = Columns()  # the role of each column
    splits: Splits = Splits()  # shares, or a source that is held out
    captions: Captions = Captions()  # how captions are made and drawn
    images: ImageSettings = ImageSettings()  # how pixel values are shown
    # Of an item with several views, each epoch shows a random one, or always the first.
    views: Literal["random", "first"] = "random"
    multi_label: bool = False  # an item may have several classes
    # Either the prompts of every class, or templates around the class names of the training split, for
    # classes with at least `min_items` items there. Prompts are data: they have a version.
    classes: dict[str, Prompts] = {}
    templates: list[str] = []  # prompts of a class; {} is its name
    # Classes that follow from another, {Viral pneumonia: [Pneumonia]}: an item of the one is never taught as
    # "not the other". Where an item has one class, it is measured on the class of its row alone.
    implied_classes: dict[str, list[str]] = {}
    min_items: int = Field(default=10, ge=1)  # training items of a class that is measured
    prompts_version: int = 1  # raise it when prompts change
    # The share of a class where the model will be used, {pneumonia: 0.02}: predictive values are given for it
    # beside those at the share in the measured split.
    prevalence: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    # What the readers of this domain call a metric of a class: {recall: completeness, precision: purity}.
    metric_names: dict[Literal["recall", "precision"], Annotated[str, Field(pattern="^[a-z][a-z_]*$")]] = {}
    retention: Retention | None = None  # the retention set of this corpus
    max_unusable: float = Field(default=0.01, ge=0, le=1)  # above this share of unusable items a run stops
    privacy: Privacy = Privacy()  # what an inspection showed
    checks: Checks = Checks()  # severity of findings
    consent: str = "unknown"  # the consent of the people depicted or of the authors
    obtain: str = ""  # how to get the corpus, and into which layout
    verified: list[str] = []  # facts of this card that were checked, and against what
    not_verified: list[str] = []  # facts that were not checked
    description: str = ""  # the text of the card's file

    @property
    def names_may_show(self) -> bool:
        """Whether ids and file names may appear unchanged in messages and results."""
        return self.privacy.identifiers == "none"

    @property
    def content_may_show(self) -> bool:
        """Whether images and captions may be shown: someone has inspected them, and the card states so."""
        privacy = self.privacy
        return privacy.burned_in_text == "no" and privacy.identifiers in ("none", "de-identified")

    @model_validator(mode="after")
    def _columns_that_are_needed(self) -> Card:
        if self.splits.by == "source" and not self.columns.source:
            raise ValueError("splits.by: source needs columns.source, the column that names the source")
        if self.columns.change and self.captions.merge_captions:
            raise ValueError("columns.change: each row is a query: set captions.merge_captions to false")
        return self

    @field_validator("templates")
    @classmethod
    def _templates_with_placeholder(cls, value: list[str]) -> list[str]:
        check_templates(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _prompts_as_captions(cls, data: Any) -> Any:
        captions = data.get("captions") if isinstance(data, dict) else None
        if not isinstance(captions, dict) or captions.get("templates") != "classes":
            return data
        short = cls._short_prompts(data.get("classes"))  # wrong ones are reported for `classes` itself
        texts = short if isinstance(short, dict) else {}
        prompts = {name: each.get("positive", []) for name, each in texts.items() if isinstance(each, dict)}
        return {**data, "captions": {**captions, "templates": prompts}}

    @field_validator("classes", mode="before")
    @classmethod
    def _short_prompts(cls, value: Any) -> Any:
        """`{cat: "a cat"}` and `{cat: ["a cat", "one cat"]}` are short for `{cat: {positive: […]}}`."""
        if not isinstance(value, dict):
            return value
        lists = {k: [v] if isinstance(v, str) else v for k, v in value.items()}
        return {k: {"positive": v} if isinstance(v, list) else v for k, v in lists.items()}


def load_card(name: str | None, overrides: dict[str, Any] | None = None) -> Card:
    """The built-in card of a name, or the card in a Markdown file; without a name, all is guessed.

    `overrides` are card keys that this run sets, nested as in the card.

    Raises: RecipeError for a missing card, or a key that is unknown or has a wrong value.
    """
    for key in overrides or {}:
        if key not in Card.model_fields:  # typed beside `path` and `card`, which are keys of the recipe
            near = did_you_mean(str(key), ["path", "card", *Card.model_fields])
            raise RecipeError(f"corpus.{key}: unknown key: {near}")
    if not name:
        return _validated(dict(overrides or {}), "corpus")
    file = builtin.find_file("data_cards", name, ".md")
    front, description = _front_matter(strict_yaml.read_text(file), file.name)
    options = front.get("domainclip")
    if not isinstance(options, dict):
        raise RecipeError(f'{file.name}: no mapping under "domainclip": see docs/guide/data.md for its keys')
    paths.check_reader_paths(options.get("options"), file, f"{file.name}: options")
    # These three keys of the Hub's card, at the top level, are keys of this card as well.
    shared: dict[str, Any] = {
        key: front[key] for key in ("pretty_name", "license", "language") if key in front
    }
    data = _merge({"name": file.stem, **shared, **options, "description": description}, overrides or {})
    return _validated(data, file.name)


def _front_matter(text: str, name: str) -> tuple[dict[str, Any], str]:
    match = re.match(r"---\n(.*?)\n---[ \t]*(?:\n|\Z)(.*)", text, re.DOTALL)
    if match is None:
        raise RecipeError(f"{name}: no front matter: begin the card with YAML between two lines of ---")
    front = strict_yaml.load_yaml(match[1], name)
    if not isinstance(front, dict):
        raise RecipeError(f"{name}: the front matter is not a mapping: write keys and values")
    return front, match[2].strip()


def _merge(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _refuse_taken_out(value: Any, key: str, where: str) -> None:
    """Refuse an option whose path was taken out before the card was shared.

    Raises: RecipeError naming the key.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_taken_out(inner, f"{key}.{name}", where)
    elif value == paths.LOCAL:
        raise RecipeError(f"{where}: {key.removeprefix('corpus.')}: {paths.taken_out(key)}")


def _validated(data: dict[str, Any], where: str) -> Card:
    _refuse_taken_out(data.get("options"), "corpus.options", where)
    registry.check_keys(Card, data, "", where)
    try:
        return Card.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{where}: {registry.format_validation_error(error, '')}") from None


def corpus_root(path: str | Path) -> Path:
    """The folder that relative names in a corpus start from."""
    source = Path(path)
    return source if source.is_dir() else source.parent

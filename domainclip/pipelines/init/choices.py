"""The built-in recipe that fits a draft, the template of its captions, and the prompts of its classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainclip.config import builtin, strict_yaml
from domainclip.data.readers.guesses.column_words import words
from domainclip.data.readers.guesses.domain import Domain
from domainclip.pipelines.init.draft import Draft

_UNBALANCED = 10  # times the images of the smallest class
_GROUPS: dict[Domain, str] = {"medical": "patients", "astronomy": "objects", "art": "works", "general": ""}
_CLASSES: dict[Domain, str] = {
    "medical": "finding",
    "astronomy": "object type",
    "art": "style",
    "general": "",
}


@dataclass(frozen=True)
class Choice:
    """A built-in recipe, and why it fits."""

    recipe: str
    reason: str
    settings: dict[str, Any]  # its keys


def choose_recipe(draft: Draft) -> Choice:
    """The built-in recipe for the domain, the languages and the layout of a corpus."""
    name, reason = _name_of_recipe(draft)
    file = builtin.find_file("recipes", name, ".yaml")
    return Choice(name, reason, strict_yaml.read_yaml(file, "a recipe"))


def _name_of_recipe(draft: Draft) -> tuple[str, str]:
    foreign = [code for code in draft.languages if code != "en"]
    if foreign:
        return "multilingual", f"captions in {', '.join(draft.languages)}"
    domain = draft.domain.domain
    if domain == "medical":
        name = "medical_dicom" if draft.reader == "dicom" else "medical_xray"
        return name, f"the domain is medical: {draft.domain.reason}"
    if domain != "general":
        return {"art": "art_paintings", "astronomy": "astronomy"}[domain], (
            f"the domain is {domain}: {draft.domain.reason}"
        )
    if draft.has_texts or not draft.has_classes:
        return "hub_dataset", "captions of no special domain"
    counts = draft.classes.values()
    if counts and max(counts) >= _UNBALANCED * min(counts):
        return "balanced_classes", f"classes of {min(counts)} to {max(counts)} images"
    return "class_folders", "classes and no captions"


def class_template(draft: Draft) -> str:
    """The prompt of a class, with {} for its name."""
    domain = draft.domain.domain
    if domain == "medical":
        return "chest x-ray, {}" if draft.domain.chest else "medical image, {}"
    if domain == "art":
        column = draft.value("columns.labels")
        styles = isinstance(column, str) and {*words(column)} & {
            "style",
            "genre",
            "movement",
            "school",
            "label",
        }
        return "a {} painting" if styles else "a painting of {}"
    return "{}" if domain == "astronomy" else "a photo of a {}"


def caption_template(draft: Draft) -> tuple[str | None, str]:
    """The template of the captions, None for captions unchanged, and why."""
    if draft.template:
        return (
            draft.template,
            "made of attributes of the files; reports or descriptions in a table teach more",
        )
    if art := _art_template(draft):
        return art, "title, class and artist, as in the card art_paintings"
    if not draft.has_classes:
        return None, ""
    name = class_template(draft)
    if not draft.has_texts:
        return name.replace("{}", "{label}"), "there are classes and no captions"
    if draft.domain.domain == "general":
        return None, ""
    prefix = "" if name == "{}" or draft.domain.domain == "art" else name.partition(", {}")[0] + ", "
    return f"{prefix}{{label}}. {{text}}", "the class, then the caption; an empty one is left out"


def _art_template(draft: Draft) -> str:
    """Title, style and artist of a painting, where a table has them."""
    if draft.domain.domain != "art" or not draft.has_classes:
        return ""
    by_word = {words(name)[0]: name for name in reversed(draft.columns) if len(words(name)) == 1}
    title, artist = by_word.get("title"), by_word.get("artist") or by_word.get("painter")
    return f"{{{title}}}, a {{label}} painting by {{{artist}}}" if title and artist else ""


def names_in_reports(draft: Draft) -> dict[str, str]:
    """The words for groups and classes in reports."""
    domain = draft.domain.domain
    found = {"group_name": _GROUPS[domain] if draft.value("columns.group") else ""}
    found["class_name"] = _CLASSES[domain] if draft.has_classes else ""
    return {key: value for key, value in found.items() if value}


def objective_of(base: str) -> str:
    """The contrastive objective of a typed base: sigmoid for SigLIP."""
    kind = base.casefold()
    config = Path(base) / "config.json"
    if config.is_file():
        kind = str(json.loads(config.read_text(encoding="utf-8")).get("model_type", ""))
    return "sigmoid" if "siglip" in kind else "contrastive"

"""The card of a draft, as a file with a comment for each guess."""

from __future__ import annotations

from typing import Any

from domainclip.data.readers.guesses.guess import Guess
from domainclip.pipelines.init.choices import caption_template, class_template, names_in_reports
from domainclip.pipelines.init.commented_yaml import commented_yaml
from domainclip.pipelines.init.draft import Draft

_TITLES = {
    "medical": "Medical images",
    "astronomy": "Astronomical images",
    "art": "Paintings",
    "general": "Images",
}
_NO_COLUMNS = ("folder", "prepared")  # readers whose source has no columns to name
_ORDER = (
    *(
        "reader",
        "group_name",
        "class_name",
        "options",
        "columns",
        "splits",
        "captions",
        "templates",
        "multi_label",
    ),
    *("min_items", "max_unusable", "images", "privacy"),
)


def card_guesses(draft: Draft) -> list[Guess]:
    """All guesses of the card, those that follow from others included."""
    guesses = [Guess("reader", draft.reader, draft.why_reader), *draft.guesses]
    guesses = [guess for guess in guesses if guess.key != "splits"]  # the folders name them, no key does
    template, why = caption_template(draft)
    if template is not None and draft.reader != "prepared":
        guesses.append(Guess("captions.template", template, why))
        if "{text}" not in template:
            guesses = [g for g in guesses if g.key not in ("columns.texts", "columns.languages")]
    if draft.has_classes:
        guesses.append(Guess("templates", [class_template(draft)], "the prompt of a class; {} is its name"))
    if draft.reader == "folder" and template is None:
        guesses.append(Guess("captions.template", "{text}", "the text beside the image"))
    if draft.has_texts and draft.text_share < 1 and draft.has_classes and template is None:
        texts = [class_template(draft)]
        guesses.append(
            Guess("captions.templates", texts, "in training, items without a caption show their class")
        )
    if len(draft.languages) > 1:
        guesses.append(Guess("captions.languages", "balanced", "each language is shown equally often"))
    if draft.domain.domain == "astronomy" and draft.domain.reason == "FITS files":
        guesses.append(Guess("images.fits", {"stretch": "asinh"}, "how FITS values become grey levels"))
    return guesses


def card_data(draft: Draft, guesses: list[Guess]) -> tuple[dict[str, Any], dict[str, str]]:
    """The front matter of the card, and the comments by key."""
    own: dict[str, Any] = {"reader": draft.reader, **names_in_reports(draft)}
    comments: dict[str, str] = {}
    for guess in guesses:
        _set(own, guess.key, guess.value)
        comments[f"domainclip.{guess.key}"] = guess.reason
    if draft.reader not in _NO_COLUMNS:
        _name_all_columns(own, comments)
    own["privacy"] = {"identifiers": _identifiers(draft), "burned_in_text": "unknown"}
    comments |= _privacy_comments(draft)
    front = {
        "pretty_name": _TITLES[draft.domain.domain],
        "license": "unknown",
        "language": list(draft.languages),
        "domainclip": {key: own[key] for key in _ORDER if key in own},
    }
    comments["license"] = "of images and texts, as the Hub names it; a model card quotes it"
    if draft.languages:
        comments["language"] = (
            "by the frequent words of the captions" if draft.has_texts else "of class names: assumed"
        )
    return front, comments


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for step in path:
        data = data.setdefault(step, {})
    data[last] = value


def _name_all_columns(own: dict[str, Any], comments: dict[str, str]) -> None:
    """Every role is named, so that nothing is guessed when the corpus is read."""
    columns = own.setdefault("columns", {})
    none: dict[str, Any] = {"texts": [], "labels": [], "group": "", "split": "", "language": ""}
    why = {
        "texts": "no captions; the template makes them",
        "labels": "no classes: zero-shot classification is not measured",
        "group": "none: each image is a group; name the patient, object or scene if several images show one",
        "split": "none: groups are divided by the shares of `splits` (80, 10 and 10 %)",
    }
    for role, value in none.items():
        if role not in columns:
            columns[role] = value
            comments.setdefault(f"domainclip.columns.{role}", why.get(role, ""))


def _identifiers(draft: Draft) -> str:
    persons = draft.domain.persons or draft.domain.domain in ("medical", "general")
    return "unknown" if persons else "none"


def _privacy_comments(draft: Draft) -> dict[str, str]:
    key = "domainclip.privacy.identifiers"
    if _identifiers(draft) == "none":
        return {key: "assumed, since the images are of no persons; unknown hides ids and file names"}
    return {
        key: "set none or de-identified after an inspection; until then ids and file names are hidden",
        "domainclip.privacy.burned_in_text": 'set "no" after an inspection of the images',
    }


def card_text(front: dict[str, Any], comments: dict[str, str], draft: Draft) -> str:
    """The file: front matter and description."""
    title = front["pretty_name"]
    return (
        f"---\n{commented_yaml(front, {k: v for k, v in comments.items() if v})}---\n\n# {title}\n\n"
        f"Guessed by `domainclip init` from {draft.about}. Describe here where the images come from, who may "
        "use them, and what a result on them does not show.\n\n"
        "Every key: `docs/guide/data.md`. To measure what a model forgets elsewhere, name a general set: "
        "`retention: {card: general, path: FOLDER}`.\n"
    )

"""Licences of the base, the corpus and the adapted weights: what is not known is stated as such."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from domainclip.config import strict_yaml
from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card, load_card
from domainclip.errors import DomainclipError
from domainclip.pipelines.audit.checks import Check
from domainclip.report.front_matter import FRONT_MATTER, LICENSES
from domainclip.report.redaction import hub_id

AREA = "licences"
UNKNOWN = "unknown"


def check_licences(recipe: Recipe, card: Card) -> Iterator[Check]:
    """One line for each, and the terms that the licence of the weights does not pass on."""
    base = _base_licence(recipe.base.path)
    named = hub_id(recipe.base.path)
    where = f"see https://huggingface.co/{named}" if named else "ask who made it"
    yield _stated("base", base, where)
    yield _stated("corpus", card.license, "ask its owner, and set license in its card")
    if recipe.retention is not None and recipe.retention.card:
        yield _stated("retention set", _card_licence(recipe.retention.card), "it is measured on only")
    mixed = [(f"train.mix.{name}", _card_licence(source.card)) for name, source in recipe.train.mix.items()]
    for key, licence in mixed:
        yield _stated(key, licence, "ask its owner, and set license in its card")
    weights = recipe.report.license
    yield _stated("adapted weights", weights, "set report.license before you share them")
    for source, licence in (("base", base), ("corpus", card.license), *mixed):
        for term, words in (("nc", "non-commercial"), ("nd", "no derivatives")):
            if term in licence.split("-") and term not in weights.split("-"):
                text = f"the {source} is {words} ({licence}), and the licence of the weights does not say so"
                yield Check(
                    AREA, "failed" if weights != UNKNOWN else "warning", f"{text}: set report.license"
                )


def _card_licence(card: str | None) -> str:
    try:
        return load_card(card).license
    except DomainclipError:  # the card is no longer there
        return UNKNOWN


def _stated(what: str, licence: str, remedy: str) -> Check:
    if licence == UNKNOWN:
        return Check(AREA, "unknown", f"{what}: the licence is not known: {remedy}")
    return Check(AREA, "passed", f"{what}: {licence}")


def _base_licence(path: str) -> str:
    """The licence in the card of a local base, where its name is one of the Hub's."""
    file = Path(path) / "README.md"
    front = FRONT_MATTER.match(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else None
    if front is None:
        return UNKNOWN
    try:
        data = strict_yaml.load_yaml(front[1], "the card of the base")
    except (DomainclipError, TypeError):
        return UNKNOWN
    licence = data.get("license") if isinstance(data, dict) else None
    return licence if licence in LICENSES else UNKNOWN

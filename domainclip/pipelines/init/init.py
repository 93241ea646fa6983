"""The command `init`: guess a card and a recipe for a corpus, read its items once, and write both files."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainclip import components
from domainclip.config import loading
from domainclip.data.cards import Card, load_card
from domainclip.data.corpus import build_reader
from domainclip.data.readers.guesses.guess import Guess
from domainclip.errors import RecipeError
from domainclip.pipelines.init.card_file import card_data, card_guesses, card_text
from domainclip.pipelines.init.choices import Choice, choose_recipe
from domainclip.pipelines.init.draft import Ask, Draft
from domainclip.pipelines.init.items import Items, guesses_of_items, read_items
from domainclip.pipelines.init.make_draft import make_draft
from domainclip.pipelines.init.recipe_file import recipe_data, recipe_text

CARD, RECIPE = "card.md", "recipe.yaml"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class InitRequest:
    """The options of the command."""

    path: str
    out: Path
    table: str | None = None  # of reports or classes, where it lies elsewhere
    base: str | None = None


@dataclass(frozen=True)
class Initialised:
    """What was guessed, and the files that were written."""

    draft: Draft
    guesses: tuple[Guess, ...]  # of the card
    items: Items | None  # None: on another machine, where they were not read
    choice: Choice
    base: str
    card: Path
    recipe: Path

    @property
    def commands(self) -> tuple[str, ...]:
        """The next commands, as typed."""
        recipe = shlex.quote(str(self.recipe))
        return (f"domainclip data check -r {recipe}", f"domainclip finetune -r {recipe}")

    @property
    def shows_values(self) -> bool:
        """Whether values of cells may be shown: no cell identifies a person."""
        return not self.draft.domain.persons

    def as_json(self, values: bool) -> dict[str, Any]:
        """The public form: keys are added, and renamed only when `schema_version` rises."""
        guesses = [
            {
                "key": guess.key,
                "value": guess.value,
                "reason": guess.reason,
                **({"examples": list(guess.examples)} if values and self.shows_values else {}),
            }
            for guess in self.guesses
        ]
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.draft.about,
            "domain": {"name": self.draft.domain.domain, "reason": self.draft.domain.reason},
            "languages": list(self.draft.languages),
            "guesses": guesses,
            "items": None if self.items is None else {**self.items.sizes, "groups": self.items.groups},
            "unusable": None if self.items is None else len(self.items.unusable),
            "recipe": {
                "from": self.choice.recipe,
                "reason": self.choice.reason,
                "base": self.base,
                "strategy": next(iter(self.choice.settings["strategy"])),
            },
            "files": [str(self.card), str(self.recipe)],
            "commands": list(self.commands),
        }


def init(request: InitRequest, ask: Ask, say: Callable[[str], None]) -> Initialised:
    """Look at a corpus and write `card.md` and `recipe.yaml`; existing files are not overwritten.

    Raises: RecipeError when a file exists; DataError when the files show no corpus; HubError.
    """
    card_file, recipe_file = request.out / CARD, request.out / RECIPE
    for file in (card_file, recipe_file):
        if file.exists():
            raise RecipeError(f"{file}: exists already: name another folder with --out FOLDER")
    draft = make_draft(request.path, request.table, ask)
    guesses = card_guesses(draft)
    items = None
    with tempfile.TemporaryDirectory() as folder:
        drafted = Path(folder) / CARD
        card = _write_card(drafted, draft, guesses)
        if draft.readable:
            say("reading the items")
            items, guesses = _with_items(drafted, card, draft, guesses)
        choice = choose_recipe(draft)
        base = request.base or str(choice.settings["base"])
        data, comments = recipe_data(draft, choice, CARD, _name(request, draft), request.base, items)
        (Path(folder) / RECIPE).write_text(recipe_text(data, comments, str(recipe_file)), encoding="utf-8")
        _validate(Path(folder) / RECIPE)
        request.out.mkdir(parents=True, exist_ok=True)
        for file in (card_file, recipe_file):
            file.write_bytes((Path(folder) / file.name).read_bytes())
    return Initialised(draft, tuple(guesses), items, choice, base, card_file, recipe_file)


def _write_card(file: Path, draft: Draft, guesses: list[Guess]) -> Card:
    front, comments = card_data(draft, guesses)
    file.write_text(card_text(front, comments, draft), encoding="utf-8")
    return load_card(str(file))


def _with_items(file: Path, card: Card, draft: Draft, guesses: list[Guess]) -> tuple[Items, list[Guess]]:
    """The items, and the guesses with those that follow from the items; the card is written again."""
    items = read_items(card, draft.path)
    more = guesses_of_items(items, card, ignored_split=False)
    if any(guess.key in ("columns.split", "splits") for guess in more):
        guesses = _replaced(guesses, more)
        card = _write_card(file, draft, guesses)
        items = read_items(card, draft.path)
        more = guesses_of_items(items, card, ignored_split=True)
    if more:
        guesses = _replaced(guesses, more)
        _write_card(file, draft, guesses)
    return items, guesses


def _replaced(guesses: list[Guess], more: list[Guess]) -> list[Guess]:
    keys = {guess.key for guess in more}
    return [*(guess for guess in guesses if guess.key not in keys), *more]


def _validate(recipe: Path) -> None:
    """Check every key of the two files.

    Raises: RecipeError.
    """
    loaded = loading.load_recipe(str(recipe))
    components.build_components(loaded)
    build_reader(load_card(loaded.corpus.card, loaded.corpus.overrides()))


def _name(request: InitRequest, draft: Draft) -> str:
    """The name of the runs: that of the folder, unless it may be a person's."""
    if draft.domain.persons:
        return draft.domain.domain
    place = Path(request.path)
    stem = place.parent.name if place.stem in ("metadata", "reports") else place.stem
    return re.sub(r"[^a-z0-9]+", "_", stem.casefold()).strip("_") or "corpus"

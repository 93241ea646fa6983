"""The state of the page, as its address holds it: what is searched, shown and tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlencode

from domainclip.errors import RecipeError, did_you_mean

Page = Literal["items", "map", "prompts", "item"]
Outcome = Literal["", "changed", "newly_right", "newly_wrong", "both_right", "both_wrong", "unknown"]
Order = Literal["id", "gain", "loss"]
Kind = Literal["", "classes", "captions"]
Marks = Literal["", "class"]
_CHOICES: Mapping[str, Any] = {"page": Page, "outcome": Outcome, "order": Order, "kind": Kind, "marks": Marks}
PER_PAGE = 24
_MAX_FIELDS = 50_000


@dataclass(frozen=True)
class View:
    """All fields have a default, which the address leaves out."""

    page: Page = "items"
    words: str = ""  # to search for
    like: int = -1  # the row of an item to search for
    outcome: Outcome = ""
    label: str = ""  # a class that the items have
    group: str = ""
    part: str = ""  # the value of an attribute, such as sex=F
    box: str = ""  # a rectangle of a map: model,left,top,right,bottom from 0 to 1
    finding: str = ""  # of several, the one that is judged
    kind: Kind = ""  # what is answered; "": classes where there are any
    second: int = 1  # the model that is compared with the first
    order: Order = "id"
    start: int = 0
    marks: Marks = ""  # of the points of a map; "": their outcomes
    row: int = -1  # the item of the page `item`
    classes: str = ""  # as typed; "": those of the run
    templates: str = ""

    def but(self, **changes: Any) -> View:
        """The view with some fields changed."""
        return replace(self, **changes)

    def address(self, path: str = "", **changes: Any) -> str:
        """The address of this view with some fields changed, relative to the page."""
        view = self.but(**changes)
        given = {one.name: getattr(view, one.name) for one in fields(view)}
        return f"{path}?{urlencode({key: value for key, value in given.items() if value != _DEFAULTS[key]})}"

    def hidden(self, names: Sequence[str]) -> Iterable[tuple[str, str]]:
        """Names and values of the fields that a form of the page passes on."""
        return [(name, str(getattr(self, name))) for name in names if getattr(self, name) != _DEFAULTS[name]]

    @property
    def template_list(self) -> list[str]:
        """The templates, one of each line."""
        return [line.strip() for line in self.templates.splitlines() if line.strip()]

    @property
    def rectangle(self) -> tuple[int, list[float]] | None:
        """The model of the map and the edges left, top, right and bottom; None for no rectangle.

        Raises: RecipeError.
        """
        if not self.box:
            return None
        try:
            model, *edges = (float(part) for part in self.box.split(","))
            left, top, right, bottom = edges
        except ValueError:
            raise RecipeError("box: not a rectangle: write model,left,top,right,bottom") from None
        return int(model), [left, top, right, bottom]


_DEFAULTS = {one.name: one.default for one in fields(View) if one.default is not MISSING}


def parse(query: str) -> View:
    """The view of an address; unknown keys are ignored, as a browser may add some.

    Raises: RecipeError naming the key of a value that is none.
    """
    typed = {key: values[-1] for key, values in parse_qs(query, max_num_fields=_MAX_FIELDS).items()}
    values: dict[str, Any] = {}
    for name, default in _DEFAULTS.items():
        if name not in typed:
            continue
        text = typed[name].replace("\r\n", "\n")
        if isinstance(default, int):
            if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit():
                raise RecipeError(f"{name}: not a whole number")
            values[name] = int(text[:12])
        elif name in _CHOICES and text not in get_args(_CHOICES[name]):
            raise RecipeError(f"{name}: unknown: {did_you_mean(text, get_args(_CHOICES[name]))}")
        else:
            values[name] = text.strip()
    return View(**values)


def ticked(query: str) -> list[int]:
    """The rows of the items that are ticked in a form."""
    texts = parse_qs(query, max_num_fields=_MAX_FIELDS).get("item", [])
    return [int(text[:12]) for text in texts if text.isascii() and text.isdigit()]

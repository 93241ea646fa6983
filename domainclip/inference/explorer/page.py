"""The page as HTML: the same templates, colours and escapes as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from domainclip.data.cards import Prompts
from domainclip.errors import RecipeError
from domainclip.inference.explorer import map_plots, results, typed_classes
from domainclip.inference.explorer.cards import item_cards
from domainclip.inference.explorer.explorer import Explorer
from domainclip.inference.explorer.outcomes import NAMES, Compared
from domainclip.inference.explorer.view import PER_PAGE, View
from domainclip.report import phrasing, writer

TEMPLATES = Path(__file__).parent / "templates"
_PAGES = {"items": "Items", "map": "Map", "prompts": "Prompts"}
_ORDERS = {"id": "by id", "gain": "gained most", "loss": "lost most"}
_GROUPS = 2000  # groups that are offered while typing
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,  # jinja's automatic choice would turn it off for the suffix .j2
    undefined=StrictUndefined,
    finalize=phrasing.plain,
    trim_blocks=True,
    lstrip_blocks=True,
)


def style_sheet() -> str:
    """The colours and tables of a report, with the rules of this page."""
    return writer.base_style() + (TEMPLATES / "explore.css").read_text(encoding="utf-8")


def script() -> str:
    """The script of the page: it works without."""
    return (TEMPLATES / "explore.js").read_text(encoding="utf-8")


def icon() -> str:
    """The icon of the page, without which a browser asks for one in vain."""
    return (TEMPLATES / "icon.svg").read_text(encoding="utf-8")


def render_detail(explorer: Explorer, view: View) -> str:
    """The card of one item, beside a map.

    Raises: RecipeError for an item that there is not.
    """
    _check_row(explorer, view)
    (card,) = item_cards(explorer, view, explorer.compared(view), [view.row])
    parts = {"view": view, "card": card, "shows_content": explorer.explored.shows_content}
    return _ENVIRONMENT.get_template("detail.html.j2").render(parts)


def render(explorer: Explorer, view: View) -> str:
    """The page of a view.

    Raises: RecipeError for a view that asks for something that there is not.
    """
    classes, compared = explorer.classes(view), explorer.compared(view)
    if view.page == "item":
        _check_row(explorer, view)
    rows = explorer.rows(view, compared)
    parts = _frame(explorer, view) | {
        "is_new": classes != explorer.explored.data.classes,
        "kind": explorer.kind(view, classes),
        "strength": _strength(explorer, view, classes),
        "findings": list(classes) if explorer.asks_findings(classes) else [],
        "finding": explorer.finding(view, classes),
        "chips": _chips(explorer, view, compared),
        "status": _status(explorer, view, compared, rows),
        "total": len(rows),
        "error": "",
        **_content(explorer, view, compared, rows),
    }
    return _ENVIRONMENT.get_template(f"{view.page}.html.j2").render(parts)


def render_error(explorer: Explorer, message: str) -> str:
    """The page with a message in the place of results."""
    view = View()
    parts = _frame(explorer, view) | {
        "error": message,
        "status": message,
        "is_new": False,
        "kind": "",
        "strength": "",
        "total": 0,
    }
    return _ENVIRONMENT.get_template("error.html.j2").render(
        parts | {"findings": [], "finding": "", "chips": []}
    )


def _strength(explorer: Explorer, view: View, classes: Mapping[str, Prompts]) -> str:
    """What the number behind an answer is."""
    kind = explorer.kind(view, classes)
    if kind == "captions":
        return "the cosine of image and caption"
    if not kind:
        return ""
    if explorer.asks_findings(classes):
        return "the score in logits; a finding is present from the threshold on that validation chose"
    return "its probability among the classes, not calibrated"


def _check_row(explorer: Explorer, view: View) -> None:
    if not 0 <= view.row < explorer.explored.size:
        raise RecipeError(f"row: items are numbered from 0 to {explorer.explored.size - 1}")


def _frame(explorer: Explorer, view: View) -> dict[str, Any]:
    """What all pages have: the corpus, the models and the choices of the form."""
    explored = explorer.explored
    return {
        "view": view,
        "title": explored.card.pretty_name or explored.card.name,
        "split": explored.data.split,
        "items": explored.size,
        "unreadable": explored.unreadable,
        "caution": explored.caution,
        "models": [model.label for model in explored.models],
        "pages": _PAGES,
        "outcomes": NAMES,
        "orders": _ORDERS,
        "class_names": explorer.class_names,
        "parts": list(explorer.filters),
        "groups": sorted(set(explorer.groups.tolist()))[:_GROUPS],
        "group_name": explored.card.group_name or "groups",
        "shows_content": explored.shows_content,
        "like": "",
        "has_captions": explored.gallery is not None,
        "has_classes": len(explorer.class_names) > 1 or explored.card.multi_label,
    }


def _chips(
    explorer: Explorer, view: View, compared: Compared | None
) -> Sequence[tuple[str, str, int, str, bool]]:
    """Outcome, name, number of items under the other filters, address, and whether it is chosen."""
    if compared is None or not view.second:
        return []
    among = explorer.rows(view.but(outcome=""), compared)
    counts = compared.counts(among)
    names = {"": "All", **NAMES}
    return [
        (
            name,
            text,
            len(among) if not name else counts[name],
            view.address(outcome=name, start=0, page="items" if view.page == "prompts" else view.page),
            view.outcome == name,
        )
        for name, text in names.items()
        if not name or counts[name]
    ]


def _status(explorer: Explorer, view: View, compared: Compared | None, rows: np.ndarray) -> str:
    """The result in one sentence, which a screen reader announces."""
    size = explorer.explored.size
    text = f"{len(rows)} of {size} items" if len(rows) < size else f"All {size} items"
    if compared is None:
        return f"{text}."
    known, first, second = compared.shares(explorer.rows(view.but(outcome=""), compared))
    if not known:
        return f"{text}. Which answer is right is not known for any of them."
    labels = explorer.explored.models
    shares = f"{100 * first:.1f} % by {labels[0].label}"
    if view.second:
        shares += f"; {100 * second:.1f} % by {labels[view.second].label}"
    scope = f"of {known} items whose truth is known{', whatever the outcome' if view.outcome else ''}"
    return f"{text}. Right answers: {shares}; {scope}."


def _content(
    explorer: Explorer, view: View, compared: Compared | None, rows: np.ndarray
) -> Mapping[str, Any]:
    if view.page == "map":
        return {"maps": map_plots.maps(explorer, view, compared, rows), "method": explorer.method.upper()}
    if view.page == "item":
        (card,) = item_cards(explorer, view, compared, [view.row])
        return {"card": card, "details": results.item_details(explorer, view, compared)}
    if view.page == "prompts":
        return _prompts(explorer, view, compared)
    if view.words or view.like >= 0:
        columns = results.searched(explorer, view, compared, rows)
        return {"columns": columns, "cards": [], "per_page": PER_PAGE // 2, "like": _like(explorer, view)}
    shown = rows[view.start : view.start + PER_PAGE]
    cards = item_cards(explorer, view, compared, shown.tolist())
    return {"columns": [], "cards": cards, "per_page": PER_PAGE, "like": ""}


def _like(explorer: Explorer, view: View) -> str:
    return str(explorer.explored.data.items[view.like]["id"]) if view.like >= 0 else ""


def _prompts(explorer: Explorer, view: View, compared: Compared | None) -> dict[str, Any]:
    classes = explorer.classes(view)
    templates = view.template_list or explorer.explored.card.templates
    return {
        "typed_classes": view.classes or typed_classes.lines(classes, templates),
        "typed_templates": view.templates or "\n".join(templates),
        "tried": results.tried(explorer, view, compared),
        "several": explorer.asks_findings(classes),
        "command": explorer.explored.command,
    }

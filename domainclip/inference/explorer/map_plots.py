"""The maps of the page as paths of an SVG: one for each kind of item, so that thousands draw at once.

Legend: n items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domainclip.inference.explorer.explorer import Explorer
from domainclip.inference.explorer.outcomes import NAMES, Compared
from domainclip.inference.explorer.view import View
from domainclip.seeding import sample

_DRAWN = 5000  # items of a map; of more, a sample
_COLOURS = 8  # classes that have a colour
# A sign around the place of an item; the map is 100 wide. The sign repeats what the colour shows.
_CIRCLE = "m-.8 0a.8.8 0 1 0 1.6 0a.8.8 0 1 0-1.6 0z"
_SIGNS: Mapping[str, str] = {
    "newly_right": "m0-1.3l1.2 2.1h-2.4z",
    "newly_wrong": "m0 1.3l1.2-2.1h-2.4z",
    "both_wrong": "m-.8-.8l1.6 1.6m0-1.6l-1.6 1.6",
    "unknown": "m-.5 0h1",
}


@dataclass(frozen=True)
class Layer:
    """The signs of all items of one kind."""

    kind: str  # an outcome, or c0 … c7 and other for a class
    faded: bool  # whether the filters leave the items out
    path: str


@dataclass(frozen=True)
class MapPlot:
    """The map of one model."""

    number: int
    model: str
    variance: str
    layers: Sequence[Layer]
    points: str  # row, x and y of each item that the filters leave, for the script


@dataclass(frozen=True)
class Maps:
    """The maps of two models, and their legend: kind, sign and name."""

    plots: Sequence[MapPlot]
    legend: Sequence[tuple[str, str, str]]
    by_class: bool
    sampled: int  # number of items drawn; 0: all


def maps(explorer: Explorer, view: View, compared: Compared | None, rows: np.ndarray) -> Maps:
    """The maps of the two models; the items that the filters leave out are faded."""
    explored = explorer.explored
    drawn, sampled = np.arange(explored.size), 0
    if explored.size > _DRAWN:
        drawn, sampled = np.sort(sample(list(explored.data.items["id"]), _DRAWN, "map")), _DRAWN
    by_class = compared is None or view.marks == "class"
    kinds, names = _of_classes(explorer) if by_class else _of_outcomes(compared)
    chosen = np.zeros(explored.size, dtype=bool)
    chosen[rows] = True
    plots = [
        _plot(explorer, model, drawn, kinds, chosen, list(names)) for model in dict.fromkeys((0, view.second))
    ]
    legend = [(kind, f"M1.5 1.5{_sign(kind)}", name) for kind, name in names.items()]
    return Maps(plots, legend, by_class, sampled)


def _plot(
    explorer: Explorer,
    model: int,
    drawn: np.ndarray,
    kinds: np.ndarray,
    chosen: np.ndarray,
    names: Sequence[str],
) -> MapPlot:
    of_model = explorer.embedding_maps()[model]
    places = [f"{x:.2f} {y:.2f}" for x, y in (100 * of_model.points).tolist()]
    layers = [
        Layer(kind, faded, "".join(f"M{places[row]}{_sign(kind)}" for row in members))
        for faded in (True, False)
        for kind in names
        if len(members := drawn[(kinds[drawn] == kind) & (chosen[drawn] != faded)])
    ]
    points = " ".join(f"{row} {places[row]}" for row in drawn[chosen[drawn]])
    variance = "" if of_model.variance is None else f"{100 * of_model.variance:.0f} %"
    return MapPlot(model, explorer.explored.models[model].label, variance, layers, points)


def _sign(kind: str) -> str:
    return _SIGNS.get(kind, _CIRCLE)


def _of_outcomes(compared: Compared | None) -> tuple[np.ndarray, dict[str, str]]:
    """(n,) the outcome of each item, and the names of those that occur."""
    assert compared is not None
    kinds = compared.outcomes
    return kinds, {name: text for name, text in NAMES.items() if (kinds == name).any()}


def _of_classes(explorer: Explorer) -> tuple[np.ndarray, dict[str, str]]:
    """(n,) the most frequent class of each item as a colour, and the names of the classes."""
    counts = {name: sum(name in of_item for of_item in explorer.labels) for name in explorer.class_names}
    frequent = sorted(counts, key=lambda name: (-counts[name], name))[:_COLOURS]
    colours = {name: f"c{i}" for i, name in enumerate(frequent)}
    kinds = np.array(
        [
            next((colours[name] for name in frequent if name in of_item), "other")
            for of_item in explorer.labels
        ]
    )
    names = {colours[name]: name for name in frequent if counts[name]}
    return kinds, names | ({"other": "other or none"} if (kinds == "other").any() else {})

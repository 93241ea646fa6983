"""The citations of the components of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

from domainclip.components import Components, WeightedObjectives
from domainclip.config.recipe import Recipe, SourceRemoval, WeightInterpolation
from domainclip.config.training import PROJECTION_DECAY, RADIOGRAPH, WeightAverageConfig
from domainclip.data.batching.mixed_pairs import MixedPairs
from domainclip.evaluation.base import Probe
from domainclip.registry import Component
from domainclip.report import phrasing

_ARXIV = r"arXiv:(\d{4}\.\d{4,5})"


def sources(recipe: Recipe, built: Components, terms: WeightedObjectives | None = None) -> list[str]:
    """`strategy lora: arXiv:2106.09685` for each component of the run.

    `terms` are the objectives if the recipe names none and the family of the base decides.
    """
    (strategy,) = recipe.strategy
    objectives = (terms or built.objectives).by_name
    used: list[tuple[str, Component | type[WeightInterpolation | SourceRemoval]]] = [
        (f"strategy {strategy}", built.strategy)
    ]
    kinds: dict[str, Mapping[str, Component]] = {
        "objective": objectives,
        "curation": built.curation,
        "probe": built.probes,
    }
    used += [
        (f"{kind} {name}", component)
        for kind, by_name in kinds.items()
        for name, component in by_name.items()
    ]
    used += [
        (f"objective {name}, of {inner_name}", inner)
        for name, objective in objectives.items()
        for inner_name, inner in objective.wrapped.items()
    ]
    if recipe.weight_interpolation is not None:
        used.append(("weight interpolation", WeightInterpolation))
    if recipe.source_removal is not None:
        used.append(("source removal", SourceRemoval))
    lines = [f"{name.replace('_', ' ')}: {component.citation}" for name, component in used]
    if recipe.weight_interpolation is not None and recipe.weight_interpolation.by_layer:
        lines.append("weight interpolation by layer: arXiv:2410.17146")
    if recipe.train.mix:
        lines.append(f"replay of other corpora: {MixedPairs.citation}")
    if recipe.train.weight_average is not None:
        lines.append(f"weight average: {WeightAverageConfig.citation}")
    if recipe.train.projection_decay is not None:
        lines.append(f"selective projection decay: {PROJECTION_DECAY}")
    if recipe.train.augmentation == "radiograph":
        lines.append(f"augmentation radiograph: {RADIOGRAPH}")
    return lines


def probe_sources(probes: Mapping[str, Probe]) -> list[str]:
    """`probe zero shot: arXiv:2103.00020` for each probe of an evaluation."""
    return [f"probe {name.replace('_', ' ')}: {probe.citation}" for name, probe in probes.items()]


def linked(text: str) -> Markup:
    """The text as HTML, with links to arXiv."""
    link = Markup('<a href="https://arxiv.org/abs/{0}">arXiv:{0}</a>')
    pieces = re.split(_ARXIV, str(phrasing.plain(text)))  # every second piece is an identifier
    return Markup().join(link.format(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces))


def linked_in_markdown(text: str) -> Markup:
    """The text as Markdown, with links to arXiv."""
    return Markup(re.sub(_ARXIV, r"[arXiv:\1](https://arxiv.org/abs/\1)", str(phrasing.markdown(text))))

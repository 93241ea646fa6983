"""The components that a recipe names, built once."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from domainclip import registry
from domainclip.config.recipe import Recipe
from domainclip.data.interfaces import Curation
from domainclip.distributed import collectives
from domainclip.errors import RecipeError
from domainclip.evaluation.base import Probe
from domainclip.objectives.base import Objective
from domainclip.strategies.base import Strategy


@dataclass(frozen=True)
class Components:
    """The parts of a recipe, built."""

    strategy: Strategy
    objectives: dict[str, tuple[float, Objective]]  # name -> weight, term
    curation: dict[str, Curation]
    probes: dict[str, Probe]


def build_components(recipe: Recipe) -> Components:
    """Builds the parts, so that a wrong option fails before anything is downloaded.

    Raises: RecipeError for an unknown part or option, with the key.
    """
    ((strategy, options),) = recipe.strategy.items()
    objectives = {}
    for name, spec in recipe.objectives.items():
        weight = spec.get("weight", 1.0)
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight < inf:  # below 0, the model would unlearn, and no alarm say so
            raise RecipeError(f"objectives.{name}.weight: must be a number, 0 or more, got {weight!r}")
        rest = {key: value for key, value in spec.items() if key != "weight"}
        objectives[name] = (float(weight), registry.build("objectives", name, rest, f"objectives.{name}"))
    return Components(
        registry.build("strategies", strategy, options, f"strategy.{strategy}"),
        objectives,
        {n: registry.build("curation", n, o, f"curation.{n}") for n, o in recipe.curation.items()},
        {n: registry.build("probes", n, o, f"probes.{n}") for n, o in recipe.probes.items()},
    )


Terms = dict[str, tuple[float, Objective]]


def needed(terms: Terms) -> set[str]:
    """The Views that some objective asks for."""
    return {view for _, objective in terms.values() for view in objective.needs}


def losses(terms: Terms) -> dict[str, str]:
    """By name of a term that takes the place of a loss that families are trained with: that loss."""
    told = {name: getattr(objective, "trains", "") for name, (_, objective) in terms.items()}
    return {name: loss for name, loss in told.items() if loss}


def supports_ring(terms: Terms) -> bool:
    """Whether all objectives can do with the pairs of other processes coming round."""
    objectives = [objective for _, objective in terms.values()]
    return collectives.process_count() > 1 and all(getattr(one, "rings", False) for one in objectives)

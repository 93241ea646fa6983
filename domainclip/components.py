"""The components that a recipe names, built once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from domainclip import registry
from domainclip.config.recipe import Recipe
from domainclip.data.interfaces import Curation
from domainclip.data.text.training_pair import TrainingPair
from domainclip.errors import RecipeError
from domainclip.evaluation.base import Probe
from domainclip.objectives.base import Negatives, Objective, ObjectiveInputs
from domainclip.strategies.base import Strategy

if TYPE_CHECKING:
    from domainclip.data.batching.extras import SecondView
    from domainclip.models.layers import Modality


@dataclass(frozen=True)
class WeightedObjectives(Mapping[str, tuple[float, Objective]]):
    """The terms of the loss in their order: by name, the weight and the objective."""

    terms: Mapping[str, tuple[float, Objective]]

    def __getitem__(self, name: str) -> tuple[float, Objective]:
        return self.terms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def by_name(self) -> dict[str, Objective]:
        """The objectives without their weights."""
        return {name: objective for name, (_, objective) in self.terms.items()}

    @property
    def weights(self) -> dict[str, float]:
        """The weights by name."""
        return {name: weight for name, (weight, _) in self.terms.items()}

    @property
    def needs(self) -> frozenset[str]:
        """The optional views that some objective reads."""
        return frozenset().union(*(objective.needs for objective in self.by_name.values()))

    @property
    def inputs(self) -> dict[str, ObjectiveInputs]:
        """What the run provides for each objective."""
        return {name: objective.inputs for name, objective in self.by_name.items()}

    @property
    def extra_texts(self) -> dict[str, Callable[[TrainingPair], list[str]]]:
        """The makers of further texts, by the name of the objective that needs them."""
        return {
            name: objective.extra_texts
            for name, objective in self.by_name.items()
            if "extra_text" in objective.needs
        }

    @property
    def losses_replaced(self) -> dict[str, str]:
        """The loss of a family that an objective takes the place of, by the name of that objective."""
        replaced = {name: objective.replaces for name, objective in self.by_name.items()}
        return {name: loss for name, loss in replaced.items() if loss is not None}

    @property
    def negatives(self) -> dict[str, Negatives]:
        """Which pairs of a batch are negatives, by objective; without those that compare no pairs."""
        return {
            name: objective.negatives
            for name, objective in self.by_name.items()
            if objective.negatives != "none"
        }

    @property
    def momentum(self) -> float | None:
        """The momentum of the moving average of the weights that objectives share; None: none reads one."""
        return next((i.momentum for i in self.inputs.values() if i.momentum is not None), None)

    @property
    def second_view(self) -> SecondView | None:
        """The kind of second view of each image that objectives share; None: none reads one."""
        reading = (o for o in self.by_name.values() if "image_2" in o.needs)
        return next((objective.inputs.second_view for objective in reading), None)

    def check_together(self, *, sharded: bool = False) -> None:
        """Check what the objectives share, and that they go with weights sharded over processes.

        Raises: RecipeError with the objective and the remedy.
        """
        momenta = {name: i.momentum for name, i in self.inputs.items() if i.momentum is not None}
        kinds = {name: o.inputs.second_view for name, o in self.by_name.items() if "image_2" in o.needs}
        for name, momentum in momenta.items():
            one, first = next(iter(momenta.items()))
            if momentum != first:
                raise RecipeError(
                    f"objectives.{name}.momentum: {momentum:g}, and that of {one} is {first:g}: a run has "
                    "one moving average of its weights: set both alike"
                )
            if sharded:
                raise RecipeError(
                    f"objectives.{name}: needs a moving average of whole weights, and train.fsdp shards "
                    "them: leave one of the two out"
                )
        for name, kind in kinds.items():
            one, other = next(iter(kinds.items()))
            if kind != other:
                raise RecipeError(
                    f"objectives.{name}: needs a second view of the kind {kind}, and {one} one of the kind "
                    f"{other}: a run has one kind: leave one of the two out"
                )

    def check_reach(self, strategy: str, frozen: Set[Modality]) -> list[str]:
        """A warning for each objective of which only weights of its own learn, where a tower is `frozen`.

        An objective of weight 0 is measured and teaches nothing, and so may all of a strategy that freezes
        both towers: it trains the scale alone.

        Raises: RecipeError with the objective that reaches no weight of the saved model.
        """
        if len(frozen) == 2:
            return []
        warnings = []
        for name, (weight, objective) in self.terms.items():
            reached, unreached = objective.teaches - frozen, objective.teaches & frozen
            if not weight or not unreached or reached - {"own"}:
                continue
            alone = f"objectives.{name}: changes the {next(iter(unreached))} tower alone, of which"
            remedy = "leave it out, or take another strategy"
            if not reached:
                raise RecipeError(f"{alone} strategy.{strategy} trains no weight: {remedy}")
            warnings.append(
                f"objectives.{name}: only weights of its own learn from it, since strategy.{strategy} trains "
                f"no weight of the {next(iter(unreached))} tower"
            )
        return warnings

    @property
    def supports_ring(self) -> bool:
        """Whether all objectives work with the pairs of other processes passed around a ring."""
        return all(objective.supports_ring for objective in self.by_name.values())


@dataclass(frozen=True)
class Components:
    """The components of a recipe, built."""

    strategy: Strategy
    objectives: WeightedObjectives  # empty: that of the base's family
    curation: Mapping[str, Curation]
    probes: Mapping[str, Probe]

    def check_reach(self, strategy: str) -> list[str]:
        """`WeightedObjectives.check_reach` with the towers that the strategy freezes in every model.

        Raises: RecipeError with the objective that reaches no weight of the saved model.
        """
        if not self.strategy.trains_weights:
            return []
        return self.objectives.check_reach(strategy, self.strategy.frozen_towers)


def build_components(recipe: Recipe) -> Components:
    """Builds the components, so that a wrong option fails before anything is downloaded.

    Raises: RecipeError for an unknown component or option, with the key.
    """
    ((strategy, options),) = recipe.strategy.items()
    objectives = build_objectives(recipe.objectives)
    objectives.check_together(sharded=recipe.train.fsdp)
    return Components(
        registry.build("strategies", strategy, options, f"strategy.{strategy}"),
        objectives,
        build_curation(recipe),
        build_probes(recipe),
    )


def build_curation(recipe: Recipe) -> dict[str, Curation]:
    """The curation of a recipe, in its order.

    Raises: RecipeError for an unknown component or option, with the key.
    """
    return {n: registry.build("curation", n, o, f"curation.{n}") for n, o in recipe.curation.items()}


def build_probes(recipe: Recipe) -> dict[str, Probe]:
    """The probes of a recipe.

    Raises: RecipeError for an unknown component or option, with the key.
    """
    return {n: registry.build("probes", n, o, f"probes.{n}") for n, o in recipe.probes.items()}


def build_objectives(options: Mapping[str, Mapping[str, Any]]) -> WeightedObjectives:
    """The objectives with these options by name, one of which may be their `weight` (1).

    Raises: RecipeError for an unknown objective or option, with the key.
    """
    terms = {}
    for name, own in options.items():
        weight = own.get("weight", 1.0)
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight < inf:  # below 0 the model would unlearn, and no alarm would fire
            raise RecipeError(f"objectives.{name}.weight: must be a number, 0 or more, got {weight!r}")
        rest = {key: value for key, value in own.items() if key != "weight"}
        terms[name] = (float(weight), registry.build("objectives", name, rest, f"objectives.{name}"))
    return WeightedObjectives(terms)

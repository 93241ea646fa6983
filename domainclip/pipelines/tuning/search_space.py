"""What `tune` varies: for each strategy, keys of the recipe and the values that they may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from domainclip.config.recipe import Recipe
from domainclip.errors import RecipeError, did_you_mean

# The strategies that any recipe of another one may take instead, the cheapest first.
COMMON = ("locked_image", "lora", "full")
_ANCHOR = "objectives.anchor.weight"
_ANCHOR_WEIGHT = 100  # where the recipe has no anchor: that of the built-in recipes
_CLASS_CAPTIONS = "objectives.class_captions={}"
_TEACH_CLASSES = ("class_captions", "class_questions")  # objectives; where one is there, no other is added
_FEWEST_BATCHES = 4  # of an epoch; with fewer, a larger batch only takes steps away
_RATE_SPAN = 5.0  # either side of the recipe's learning rate, for a strategy without a span of its own


class Draws(Protocol):
    """The part of an optuna trial that is used here."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number from a span."""


@dataclass(frozen=True)
class OneOf:
    """A key with a few values."""

    values: tuple[Any, ...]

    def draw(self, draws: Draws, name: str) -> Any:
        """One of them."""
        return draws.suggest_categorical(name, self.values)


@dataclass(frozen=True)
class Span:
    """A key with positive numbers between two ends, uniform in their logarithm."""

    low: float
    high: float

    def draw(self, draws: Draws, name: str) -> float:
        """A number with two digits."""
        return float(f"{draws.suggest_float(name, self.low, self.high, log=True):.2g}")


Keys = Mapping[str, OneOf | Span]
_BATCHES = (32, 64, 128, 256)
_SPACES: Mapping[str, Keys] = {
    "locked_image": {
        "train.learning_rate": Span(5e-5, 1e-3),
        "train.epochs": OneOf((2, 5, 10, 20)),
    },
    "lora": {
        "train.learning_rate": Span(2e-4, 3e-3),
        "train.epochs": OneOf((1, 2, 5)),
        "strategy.lora.rank": OneOf((4, 8, 16, 32)),
        "strategy.lora.targets": OneOf(("attention", "attention+mlp")),
    },
    "full": {
        "train.learning_rate": Span(5e-6, 2e-4),
        "train.epochs": OneOf((1, 2, 5)),
        "strategy.full.layer_decay": OneOf((1.0, 0.8)),
    },
}


@dataclass(frozen=True)
class SearchSpace:
    """The keys of each strategy; every point is a list of overrides of the recipe."""

    recipe_strategy: str
    by_strategy: Mapping[str, Keys]
    # Of a strategy with its defaults, beside the learning rate and epochs: what the recipe does not have.
    default_lines: tuple[str, ...] = ()
    # Components that the recipe does not have, which the best strategy is tried with as well.
    additions: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()  # additions that gained: every point has them

    def defaults(self) -> list[list[str]]:
        """Each strategy but the recipe's, with the learning rate and epochs that are its defaults."""
        names = sorted(self.by_strategy, key=lambda name: (name not in COMMON, (*COMMON, name).index(name)))
        unset = ["train.learning_rate=null", "train.epochs=auto", *self.default_lines]
        return [[f"strategy={name}", *unset] for name in names if name != self.recipe_strategy]

    def with_fixed(self, line: str) -> SearchSpace:
        """The same, with an addition in every point."""
        return replace(self, fixed=(*self.fixed, line))

    def without(self, strategy: str) -> SearchSpace:
        """The same, less one strategy."""
        return replace(self, by_strategy={n: keys for n, keys in self.by_strategy.items() if n != strategy})

    def draw(self, draws: Draws) -> list[str]:
        """The overrides of one trial."""
        strategy = str(draws.suggest_categorical("strategy", list(self.by_strategy)))
        lines = [*([] if strategy == self.recipe_strategy else [f"strategy={strategy}"]), *self.fixed]
        for key, values in self.by_strategy[strategy].items():
            # A key of two strategies has a span for each, so it has a name for each.
            lines.append(f"{key}={values.draw(draws, f'{strategy}: {key}')}")
        return lines


@dataclass(frozen=True)
class TuningData:
    """What the space depends on beside the recipe."""

    train_items: int
    has_classes: bool = False  # whether training items have labels that the card has prompts of
    has_retention: bool = False


def search_space(
    recipe: Recipe, strategies: Sequence[str], data: TuningData, fits: Callable[[str], bool] = lambda _: True
) -> SearchSpace:
    """The space around a recipe; `strategies` empty: that of the recipe, and the common ones.

    A recipe that names its objectives is tried with an anchor where forgetting is measured, and with class
    captions where the corpus has classes that no component of it teaches; `fits` tells whether a line goes
    with its strategy.

    Raises: RecipeError for a strategy that has no space here.
    """
    (own,) = recipe.strategy
    check_strategies(recipe, strategies)
    names = list(strategies) or list(dict.fromkeys([own, *(COMMON if own in COMMON else ())]))
    batches = tuple(size for size in _BATCHES if size * _FEWEST_BATCHES <= data.train_items) or (
        min(_BATCHES[0], max(2, data.train_items)),
    )
    shared: dict[str, OneOf | Span] = {"train.batch_size": OneOf(batches)}
    named, anchor = recipe.objectives, f"{_ANCHOR}={_ANCHOR_WEIGHT}"
    needs_anchor = bool(named) and "anchor" not in named and data.has_retention and fits(anchor)
    if "anchor" in named or needs_anchor:
        shared[_ANCHOR] = Span(30, 1000)
    if recipe.weight_interpolation is not None:
        shared["weight_interpolation.by_layer"] = OneOf((False, True))
    taught = any(name in named for name in _TEACH_CLASSES) or "labels_to_captions" in recipe.curation
    takes_classes = bool(named) and not taught and data.has_classes and fits(_CLASS_CAPTIONS)
    return SearchSpace(
        own,
        {name: {**_keys(name, recipe, data.train_items), **shared} for name in names},
        default_lines=(anchor,) if needs_anchor else (),
        additions=(_CLASS_CAPTIONS,) if takes_classes else (),
    )


def check_strategies(recipe: Recipe, strategies: Sequence[str]) -> None:
    """Raises: RecipeError for a strategy that has no space here."""
    (own,) = recipe.strategy
    for name in strategies:
        if name != own and name not in _SPACES:
            raise RecipeError(
                f"--strategy: {name}: has no search space here; one with options that must be set is tuned "
                f"where the recipe names it: {did_you_mean(name, [*_SPACES, own])}"
            )


def check_metric(recipe: Recipe, metric: str) -> None:
    """Check the parts of probe/validation/metric that are known before a trial; empty is the headline metric.

    Raises: RecipeError.
    """
    if not metric:
        return
    probe, _, rest = metric.partition("/")
    if not rest.startswith("validation/"):
        raise RecipeError(
            f"--metric: {metric}: trials are measured on the validation split: write it as "
            "probe/validation/metric, as in zero_shot/validation/macro_accuracy"
        )
    if probe not in recipe.probes:
        raise RecipeError(f'--metric: probes has no "{probe}": {did_you_mean(probe, recipe.probes)}')


def _keys(strategy: str, recipe: Recipe, train_items: int) -> Keys:
    if strategy in _SPACES:
        return _SPACES[strategy]
    epochs = recipe.train.epochs_of(train_items)
    keys: dict[str, OneOf | Span] = {"train.epochs": OneOf((epochs / 2, epochs, 2 * epochs))}
    if (rate := recipe.train.learning_rate) is not None:
        keys["train.learning_rate"] = Span(rate / _RATE_SPAN, rate * _RATE_SPAN)
    return keys

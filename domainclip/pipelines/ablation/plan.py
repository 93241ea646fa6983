"""The plan of an ablation: a recipe, its variants, the seeds, and the metrics of the table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from domainclip import components, registry
from domainclip.config import builtin, loading, strict_yaml
from domainclip.config.recipe import Recipe
from domainclip.config.strict_model import StrictModel
from domainclip.config.training import Share
from domainclip.errors import RecipeError, did_you_mean

BASE = "base"  # the column of the base, which every variant is compared with
_SHARED_KEYS = ("base", "probes", "retention", "evaluate")  # variants that differ here cannot be paired
_MAX_NAME = 200  # bytes of a folder's name without the seed
_VARIED_KEYS = ("captions", "views")  # of the corpus, those that a variant may change
_CHOOSING = "evaluate.split=validation"  # no test item is read until the winner is measured


class Plan(StrictModel):
    """A plan, as in its file."""

    recipe: str
    overrides: list[str] = []  # for all variants
    variants: dict[str, list[str]] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field([0, 1, 2], min_length=1)
    metrics: list[str] = []  # probe/set/metric; empty: the primary metric of each probe on each set
    reference: str | None = None
    # The largest loss of the metric that decides, on the retention set, of a chosen variant; null: any.
    max_retention_drop: Share | None = 0.05

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        return list(dict.fromkeys(value))


@dataclass(frozen=True)
class Run:
    """One variant with one seed."""

    variant: str
    seed: int
    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Ablation:
    """A plan, loaded, with its recipes checked."""

    name: str
    plan: Plan
    measured: Recipe  # the recipe of the plan: base, corpus and probes of the table
    runs: Sequence[Run]


def load(name: str, changes: Sequence[str], folder: Path | None) -> Ablation:
    """Load the plan in a file, or a built-in one, and check all its recipes; `changes` are for all variants.

    Raises: RecipeError with file, variant, key and remedy.
    """
    file, plan, measured = load_shared(name, changes)
    recipe_file, shared = _recipe_file(plan.recipe, file), [*plan.overrides, *changes]
    folder = folder or Path("ablations") / file.stem
    names = _folder_names(list(plan.variants), file)
    runs = []
    for variant, lines in plan.variants.items():
        where = f'{file.name}: variants "{variant}"'
        _check_lines(lines, where)
        for seed in plan.seeds:
            of_run = [f"train.seed={seed}", f"name={names[variant]}-seed{seed}", _CHOOSING]
            try:
                recipe = loading.load_recipe(recipe_file, [*shared, *lines, *of_run])
                components.build_components(recipe).check_reach(next(iter(recipe.strategy)))
            except RecipeError as error:
                raise RecipeError(f"{where}: {error}") from None
            _check_shared_keys(measured, recipe, where)
            runs.append(Run(variant, seed, recipe, folder / recipe.name))
    return Ablation(file.stem, plan, measured, runs)


def load_shared(name: str, changes: Sequence[str]) -> tuple[Path, Plan, Recipe]:
    """The file of a plan, the plan, and the recipe that all its variants share; no component is built.

    Raises: RecipeError with file, key and remedy.
    """
    file = builtin.find_file("recipes/ablations", name, ".yaml")
    plan = _read_plan(file)
    shared = [*plan.overrides, *changes]
    _check_lines(shared, f"{file.name}: overrides")
    measured = loading.load_recipe(_recipe_file(plan.recipe, file), [*shared, _CHOOSING])
    if measured.train.seeds is not None:
        raise RecipeError(f"{file.name}: recipe {plan.recipe}: train.seeds: set it under seeds of the plan")
    return file, plan, measured


def _read_plan(file: Path) -> Plan:
    try:
        data = strict_yaml.read_yaml(file, "a plan")
    except OSError as error:
        raise RecipeError(f"{file}: {error.strerror}: name a plan, a YAML file") from None
    if isinstance(data.get("variants"), dict):
        data["variants"] = {str(name): _lines(value) for name, value in data["variants"].items()}
    if "recipe" not in data and "base" in data:
        raise RecipeError(
            f"{file.name}: is a recipe and no plan: a plan names a recipe and its variants, "
            "docs/guide/ablation.md"
        )
    registry.check_keys(Plan, data, "", file.name)
    try:
        plan = Plan.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{file.name}: {registry.format_validation_error(error, '')}") from None
    if plan.reference is not None and plan.reference not in plan.variants:
        raise RecipeError(
            f'{file.name}: reference: no variant "{plan.reference}": '
            f"{did_you_mean(plan.reference, plan.variants)}"
        )
    if BASE in plan.variants:
        raise RecipeError(
            f'{file.name}: variants "{BASE}": the base itself is always there: call it otherwise'
        )
    for name in plan.metrics:
        if name.count("/") < 2:
            raise RecipeError(
                f'{file.name}: metrics "{name}": write it as probe/set/metric, as in '
                "zero_shot/validation/macro_accuracy"
            )
    return plan


def _lines(value: Any) -> Any:
    """The key=value lines of a variant: a mapping is short for them, and null for none."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return value
    return [f"{key}={strict_yaml.dump_yaml(item, one_line=True)}" for key, item in value.items()]


def _recipe_file(name: str, file: Path) -> str:
    """A recipe in the folder of the plan, in the working folder, or a built-in one."""
    beside = file.parent / name
    return str(beside if os.path.isfile(beside) else builtin.find_file("recipes", name, ".yaml"))


def _folder_names(variants: Sequence[str], file: Path) -> dict[str, str]:
    """The name of each variant's folder, of letters, digits, dots and underscores."""
    names = {variant: re.sub(r"[^\w.]+", "_", variant).strip("._") for variant in variants}
    taken: dict[str, str] = {}
    for variant, name in names.items():
        if not name:
            raise RecipeError(f'{file.name}: variants "{variant}": a name needs a letter or a digit')
        if len(name.encode()) > _MAX_NAME:
            raise RecipeError(
                f'{file.name}: variants "{variant[:20]}…": a name may have {_MAX_NAME} characters, for its '
                "folder is called so"
            )
        if name.lower() in taken:
            raise RecipeError(
                f'{file.name}: variants "{taken[name.lower()]}" and "{variant}" would share the folder {name}'
            )
        taken[name.lower()] = variant
    return names


def _check_lines(lines: Sequence[str], where: str) -> None:
    """The plan itself sets seed, name and split of every run: a line that sets them would have no effect.

    Raises: RecipeError.
    """
    for line in lines:
        key, _, value = (part.strip() for part in line.partition("="))
        # No other key of train has the word.
        if key in ("train.seed", "train.seeds") or (key == "train" and "seed" in value):
            raise RecipeError(f"{where}: {key if '.' in key else 'train.seed'}: set it under seeds")
        if key.startswith("evaluate") and "split" in key + value and "validation" not in value:
            raise RecipeError(
                f"{where}: evaluate.split: variants are compared on the validation split: leave it out, and "
                "measure the chosen one on the test split with --final"
            )
        if key == "name":
            raise RecipeError(f"{where}: name: runs are named after their variants: leave it out")


def _check_shared_keys(measured: Recipe, recipe: Recipe, where: str) -> None:
    """Variants that are measured on other items, or against another base, cannot be paired.

    Raises: RecipeError.
    """
    first, second = measured.model_dump(), recipe.model_dump()
    for key in _SHARED_KEYS:
        if first[key] != second[key]:
            raise RecipeError(
                f"{where}: changes {key}, which is the same for the whole table: set it under overrides"
            )
    corpora = [
        {key: value for key, value in keys["corpus"].items() if key not in _VARIED_KEYS}
        for keys in (first, second)
    ]
    if corpora[0] != corpora[1]:
        key = next(k for k in {**corpora[0], **corpora[1]} if corpora[0].get(k) != corpora[1].get(k))
        raise RecipeError(
            f"{where}: changes corpus.{key}, which is the same for the whole table: set it under overrides"
        )

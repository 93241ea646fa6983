"""A plan: one recipe, the variants of it, the seeds, and which figures stand in the table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from domainclip import components, registry
from domainclip.config import builtin, loading, strict_yaml
from domainclip.config.recipe import Recipe
from domainclip.errors import RecipeError, did_you_mean

BASE = "base"  # what every variant stands against, by the name of its column
_MEASURED = ("base", "probes", "retention", "evaluate")  # the same for all variants, or nothing is paired
_LONGEST = 200  # bytes of a folder's name, the seed apart
_TRAINS = ("captions", "views")  # of the corpus, all that a variant may say: how training items are shown


class Plan(BaseModel):
    """A plan as its file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: str
    overrides: list[str] = []  # for all variants
    variants: dict[str, list[str]] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field([0, 1, 2], min_length=1)
    metrics: list[str] = []  # probe/set/metric; empty: the headline of each probe on each set
    reference: str | None = None

    @field_validator("seeds")
    @classmethod
    def _once(cls, value: list[int]) -> list[int]:
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
    """A plan that was read, its recipes checked."""

    name: str
    plan: Plan
    measured: Recipe  # the plan's own recipe: base, corpus and probes of the table
    runs: Sequence[Run]


def load(name: str, changes: Sequence[str], folder: Path | None) -> Ablation:
    """The plan in a file, or one that ships, every recipe of it checked; `changes` are for all variants.

    Raises: RecipeError naming file, variant, key and way out, before anything is trained.
    """
    file = builtin.find_file("recipes/ablations", name, ".yaml")
    plan = _plan(file)
    named = _recipe_name(plan.recipe, file)
    shared = [*plan.overrides, *changes]
    _refuse_own(shared, f"{file.name}: overrides")
    measured = loading.load_recipe(named, shared)
    folder = folder or Path("ablations") / file.stem
    names = _folder_names(list(plan.variants), file)
    runs = []
    for variant, said in plan.variants.items():
        _refuse_own(said, f'{file.name}: variants "{variant}"')
        for seed in plan.seeds:
            try:
                own = loading.load_recipe(
                    named, [*shared, *said, f"train.seed={seed}", f"name={names[variant]}-seed{seed}"]
                )
                components.build_components(own)
            except RecipeError as error:
                raise RecipeError(f'{file.name}: variants "{variant}": {error}') from None
            _refuse_other_measures(measured, own, f'{file.name}: variants "{variant}"')
            runs.append(Run(variant, seed, own, folder / own.name))
    return Ablation(file.stem, plan, measured, runs)


def _plan(file: Path) -> Plan:
    try:
        data = strict_yaml.read_yaml(file, "a plan")
    except OSError as error:
        raise RecipeError(f"{file}: {error.strerror}: name a plan, a YAML file") from None
    if isinstance(data.get("variants"), dict):
        data["variants"] = {str(name): _said(value) for name, value in data["variants"].items()}
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
    for figure in plan.metrics:
        if figure.count("/") < 2:
            raise RecipeError(
                f'{file.name}: metrics "{figure}": write it as probe/set/metric, as in '
                "zero_shot/test/macro_accuracy"
            )
    return plan


def _said(value: Any) -> Any:
    """A mapping is short for key=value lines, and nothing for no line at all."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return value
    return [f"{key}={_flow(one)}" for key, one in value.items()]


def _flow(value: Any) -> str:
    # One line, and no end-of-document mark behind a scalar.
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _recipe_name(name: str, file: Path) -> str:
    """A recipe beside the plan, in the working folder, or one that ships."""
    beside = file.parent / name
    return str(beside if beside.is_file() else builtin.find_file("recipes", name, ".yaml"))


def _folder_names(variants: Sequence[str], file: Path) -> dict[str, str]:
    """A folder's name for each variant: letters, digits, dots and underscores."""
    names = {one: re.sub(r"[^\w.]+", "_", one).strip("._") for one in variants}
    taken: dict[str, str] = {}
    for variant, name in names.items():
        if not name:
            raise RecipeError(f'{file.name}: variants "{variant}": a name needs a letter or a digit')
        if len(name.encode()) > _LONGEST:
            raise RecipeError(
                f'{file.name}: variants "{variant[:20]}…": a name may have {_LONGEST} characters, for its '
                "folder is called so"
            )
        if name.lower() in taken:
            raise RecipeError(
                f'{file.name}: variants "{taken[name.lower()]}" and "{variant}" would share the folder {name}'
            )
        taken[name.lower()] = variant
    return names


def _refuse_own(lines: Sequence[str], where: str) -> None:
    """What the plan says of every run itself would go unheard in a line."""
    for line in lines:
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "train.seed" or (key == "train" and "seed" in value):  # no other key of train has the word
            raise RecipeError(f"{where}: train.seed: say it under seeds")
        if key == "name":
            raise RecipeError(f"{where}: name: runs are named after their variants: leave it out")


def _refuse_other_measures(measured: Recipe, own: Recipe, where: str) -> None:
    """Variants that are measured on other items, or against another base, cannot be paired."""
    first, second = measured.model_dump(), own.model_dump()
    for key in _MEASURED:
        if first[key] != second[key]:
            raise RecipeError(
                f"{where}: changes {key}, which is the same for the whole table: say it under overrides"
            )
    corpora = [{k: v for k, v in one["corpus"].items() if k not in _TRAINS} for one in (first, second)]
    if corpora[0] != corpora[1]:
        key = next(k for k in {**corpora[0], **corpora[1]} if corpora[0].get(k) != corpora[1].get(k))
        raise RecipeError(
            f"{where}: changes corpus.{key}, which is the same for the whole table: say it under overrides"
        )

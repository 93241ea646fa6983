"""Read a recipe file, apply overrides, check every key, and resolve its paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from domainclip import registry
from domainclip.config import builtin, component_source, offline, overrides, paths, strict_yaml
from domainclip.config.recipe import Options, Recipe
from domainclip.errors import RecipeError

# The sections of a recipe that name components, and their kind.
_KINDS = {"strategy": "strategies", "objectives": "objectives", "curation": "curation", "probes": "probes"}


def _long_forms(data: Options) -> Options:
    """`strategy: lora`, `probes: [zero_shot]` and `base: some/path` written out as mappings."""
    data = {**data}
    for key in ("strategy", "objectives", "curation", "probes"):
        if key in data:
            data[key] = overrides.as_mapping(data[key])
    if isinstance(data.get("base"), str):
        data["base"] = {"path": data["base"]}
    return data


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe file or a built-in recipe, with `key=value` overrides applied.

    Raises: RecipeError with file, key and remedy.
    """
    file = builtin.find_file("recipes", name, ".yaml")
    data = strict_yaml.read_yaml(file, "a recipe")
    data.setdefault("name", file.stem)
    for change in changes:
        overrides.apply_override(data, change)
    data = _long_forms(data)
    registry.check_keys(Recipe, data, "", file.name)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{file.name}: {registry.format_validation_error(error, '')}") from None
    _check_components(recipe)
    resolved = _resolve_paths(recipe, file, changes)
    offline.refuse_unfetched("base", resolved.base.path, resolved.base.revision)
    return resolved


def _check_components(recipe: Recipe) -> None:
    """Check the name and the options of each component, without importing it.

    Raises: RecipeError with the key and the remedy.
    """
    for key, kind in _KINDS.items():
        for name, options in getattr(recipe, key).items():
            own = {option: v for option, v in options.items() if (kind, option) != ("objectives", "weight")}
            component_source.check_options(kind, name, own, f"{key}.{name}")


def schema() -> Options:
    """The JSON schema of a recipe, with the options of every component, for editors."""
    result = Recipe.model_json_schema()
    definitions = result["$defs"]
    for key, kind in _KINDS.items():
        known = {}
        for name in registry.names(kind):
            entry = registry.schema(kind, name)
            entry["additionalProperties"] = False
            if kind == "objectives":
                entry["properties"] = {
                    **entry.get("properties", {}),
                    "weight": {"type": "number", "default": 1.0},
                }
            definitions[f"{kind}.{name}"] = entry
            known[name] = {"$ref": f"#/$defs/{kind}.{name}"}
        mapping = {"type": "object", "properties": known, "additionalProperties": {"type": "object"}}
        result["properties"][key] = {"anyOf": [mapping, {"enum": list(known)}, {"type": "array"}]}
    return result


def _resolve_paths(recipe: Recipe, file: Path, changes: Sequence[str]) -> Recipe:
    """Make local paths absolute.

    A path in a user's recipe or on the command line comes from the user. The paths of a recipe that was
    downloaded must lie in the folders of `paths.allowed_folders`.
    """
    allowed = paths.allowed_folders(file)
    overridden = {text.partition("=")[0] for text in changes}
    data = recipe.model_dump(exclude_unset=True)
    named: dict[str, Options] = {key: data[key] for key in ("base", "corpus", "retention") if data.get(key)}
    mixed = data.get("train", {}).get("mix", {})
    for key, source in (named | {f"train.mix.{name}": source for name, source in mixed.items()}).items():
        if source.get("path"):
            _resolve_source(key, source, file, allowed, overridden)
    for section in ("anchor_images", "anchor_texts"):
        anchors = data.get(section, {})
        if anchors.get("path"):
            trusted = {section, f"{section}.path"} & overridden
            where = f"{file.name}: {section}.path"
            anchors["path"] = paths.resolve_path(anchors["path"], file, None if trusted else allowed, where)
    for kind, key in (("strategies", "strategy"), ("objectives", "objectives")):
        for name, options in (data.get(key) or {}).items():
            from_user = any(text == key or text.startswith(f"{key}.") for text in overridden)
            where = f"{file.name}: {key}.{name}"
            _resolve_models(kind, name, options, file, None if from_user else allowed, where)
    return Recipe.model_validate(data)


def _resolve_source(
    key: str, source: Options, file: Path, allowed: list[Path] | None, overridden: set[str]
) -> None:
    """Resolve, in place, the paths of the base or of a corpus, which the recipe names under `key`."""
    above = [key.rsplit(".", at)[0] for at in range(key.count(".") + 1)]  # train.mix.a, train.mix, train
    trusted = {f"{key}.path", *above} & overridden
    path = paths.resolve_path(
        str(source["path"]), file, None if trusted else allowed, f"{file.name}: {key}.path"
    )
    source["path"] = path
    if not any(text.startswith(f"{key}.options") for text in overridden):
        paths.check_reader_paths(source.get("options"), file, f"{file.name}: {key}.options")
    if reports := paths.find_table_file(_reports(source), path, file):
        source["options"]["reports"] = reports
    if card := paths.find_card_file(source.get("card"), file, typed=f"{key}.card" in overridden):
        source["card"] = card


def _reports(source: Options) -> Any:
    """The table of reports of a corpus, as the recipe names it."""
    options = source.get("options")
    return options.get("reports") if isinstance(options, dict) else None


def _resolve_models(
    kind: str, name: str, options: Options, file: Path, allowed: list[Path] | None, where: str
) -> None:
    """Resolve, in place, the options of a component that name models."""

    def resolved(path: Any, option: str) -> Any:
        if not isinstance(path, str):  # refused with the other options, by its type
            return path
        return paths.resolve_path(path, file, allowed, f"{where}.{option}")

    for option in component_source.model_options(kind, name):
        value = options.get(option)
        if isinstance(value, list):
            options[option] = [resolved(path, option) for path in value]
        elif value is not None:
            options[option] = resolved(value, option)
    within = options.get("objective")  # the objective inside matryoshka
    for inner, more in within.items() if isinstance(within, dict) else ():
        if isinstance(more, dict):
            _resolve_models(kind, inner, more, file, allowed, f"{where}.objective.{inner}")

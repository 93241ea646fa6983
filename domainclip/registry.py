"""Finds a component by its file name: adding a component is adding a file.

`objectives/contrastive.py` holds the class `Contrastive`, and a recipe calls it `contrastive`. A component
outside this package is named `package.module:Class`; the working folder is searched last. An installed
package can give its components names, by entry points of the group PLUGINS:
`objectives.NAME = "package.module:Class"`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import math
import re
import sys
import typing
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from domainclip.errors import RecipeError, did_you_mean

PACKAGES = {
    "readers": "data/readers",
    "curation": "data/curation",
    "strategies": "strategies",
    "objectives": "objectives",
    "probes": "evaluation/probes",
}
KINDS = tuple(PACKAGES)
# Named, not imported: each base class lives in the package of its stage, above this file.
BASE_CLASSES = {
    "readers": "domainclip.data.interfaces.CorpusReader",
    "curation": "domainclip.data.interfaces.Curation",
    "strategies": "domainclip.strategies.base.Strategy",
    "objectives": "domainclip.objectives.base.Objective",
    "probes": "domainclip.evaluation.base.Probe",
}
PLUGINS = "domainclip.components"  # the group of entry points
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}
# How pydantic names the forms of a key that may have several, in the place of a key.
_FORM = re.compile(r"^(int|float|str|bool|constrained-\w+|\w+(-\w+)*\[.*\])$")


class Component:
    """What a recipe or a card names: a strategy, an objective, a curation, a probe, a corpus reader.

    One file and one class in it, a frozen keyword-only dataclass whose fields are its options. Components of
    one kind never import each other.
    """

    citation: ClassVar[str] = "no source named"  # of the method, as it stands in the report
    models: ClassVar[tuple[str, ...]] = ()  # options that name models: folders, or Hub ids


def names(kind: str) -> list[str]:
    """The names of all components of a kind, built-in and of installed packages; imports none of them.

    Raises: RecipeError for an unknown kind, or an entry point that names no component.
    """
    if kind not in KINDS:
        raise RecipeError(f'unknown kind of component "{kind}": {did_you_mean(kind, KINDS)}')
    return sorted([*_builtin_names(kind), *_plugins()[kind]])


def _builtin_names(kind: str) -> list[str]:
    folder = Path(__file__).parent / PACKAGES[kind]
    return [file.stem for file in folder.glob("*.py") if file.stem not in ("__init__", "base")]


@cache
def _plugins() -> dict[str, dict[str, str]]:
    """The components of installed packages: kind → name → package.module:Class.

    Raises: RecipeError with the package, for an entry point of no kind or with the name of another component.
    """
    from importlib import metadata

    found: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for point in metadata.entry_points(group=PLUGINS):
        kind, _, name = point.name.partition(".")
        package = point.dist.name if point.dist else "an installed package"
        where = f'{package}: entry point "{point.name}" in the group {PLUGINS}'
        if kind not in KINDS or not name.isidentifier():
            raise RecipeError(f"{where}: not of the form KIND.NAME, with a KIND of {', '.join(KINDS)}")
        if name in _builtin_names(kind) or found[kind].get(name, point.value) != point.value:
            raise RecipeError(f"{where}: another component has this name; uninstall {package} or rename it")
        found[kind][name] = point.value
    return found


def plugin_packages() -> list[str]:
    """The installed packages that name components, for the record of a run's versions."""
    from importlib import metadata

    return sorted({point.dist.name for point in metadata.entry_points(group=PLUGINS) if point.dist})


def outside(kind: str, name: str) -> str | None:
    """The package.module:Class of a component outside this package; None for the name of a built-in one."""
    return name if ":" in name else _plugins().get(kind, {}).get(name)


def find(kind: str, name: str) -> type[Any]:
    """The class of a component.

    Raises: RecipeError for a name without a file, or an outside class that cannot be imported or used.
    """
    if place := outside(kind, name):
        return _find_outside(kind, place)
    source_file(kind, name)
    module = importlib.import_module(f"domainclip.{PACKAGES[kind].replace('/', '.')}.{name}")
    component: type[Any] = getattr(module, class_name(name))
    return component


def source_file(kind: str, name: str) -> Path:
    """The file of a component, which is not imported.

    Raises: RecipeError for a name without a file.
    """
    if name not in names(kind):
        raise RecipeError(f'{kind}: unknown component "{name}": {did_you_mean(name, names(kind))}')
    if place := outside(kind, name):
        module = importlib.util.find_spec(place.partition(":")[0])
        if module is None or module.origin is None:
            raise RecipeError(f'{kind}: cannot import "{place}": its package has no such file')
        return Path(module.origin)
    return Path(__file__).parent / PACKAGES[kind] / f"{name}.py"


def build(kind: str, name: str, options: dict[str, Any], where: str) -> Any:
    """An instance of a component; `where` is the recipe key, for messages.

    Raises: RecipeError with the key and the remedy, when an option is unknown or has the wrong type.
    """
    return validated(find(kind, name), options, where)


def validated(component: type[Any], options: dict[str, Any], where: str) -> Any:
    """An instance of a dataclass, with these options of the recipe key `where`.

    Raises: RecipeError with the key and the remedy, when an option is unknown or has the wrong type.
    """
    known = [f.name for f in dataclasses.fields(component) if f.init]
    for option in options:
        if option not in known:
            raise RecipeError(f"{where}.{option}: unknown option: {did_you_mean(option, known)}")
    try:
        built = _adapter(component).validate_python(options)
    except ValidationError as error:
        raise RecipeError(format_validation_error(error, where)) from None
    for option in options:
        _check_finite(getattr(built, option), f"{where}.{option}")
    return built


def _adapter(component: type[Any]) -> TypeAdapter[Any]:
    """The schema of a component, which takes milliseconds to make."""
    if component not in _ADAPTERS:
        _ADAPTERS[component] = TypeAdapter(component)
    return _ADAPTERS[component]


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where}: must be a finite number, got {value}")
    if isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_finite(inner, where)


def schema(kind: str, name: str) -> dict[str, Any]:
    """The JSON schema of a component's options."""
    return _adapter(find(kind, name)).json_schema()


def format_validation_error(error: ValidationError, where: str) -> str:
    """A pydantic error as one line: the key, what is wrong there, and what was given."""
    errors = error.errors(include_url=False)
    first, alternatives = errors[0], _alternatives(errors)
    key = ".".join(str(step) for step in (where, *alternatives[0]["loc"]) if step != "")
    message = " or ".join(
        [
            first["msg"].removeprefix("Value error, "),
            *(one["msg"].removeprefix("Input should be ") for one in alternatives[1:]),
        ]
    )
    message = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping", message)
    message = message[:1].lower() + message[1:]
    given = "" if first["type"] in ("missing", "value_error") else f", got {_short(first['input'])}"
    if first["type"] == "string_type" and isinstance(first["input"], (bool, int, float)):
        given += f', in quotes it is a text: "{first["input"]}"'
    others = len(errors) - len(alternatives)
    more = f" (and {others} more)" if others else ""
    return f"{key}: {message}{given}{more}" if key else f"{message}{given}{more}"


def _alternatives(errors: Sequence[Any]) -> list[Any]:
    """The first error, and those of the other forms that its key may have, without the names of the forms."""
    *parent, form = errors[0]["loc"] or ("",)
    if not _FORM.search(str(form)):
        return [errors[0]]
    same = [one for one in errors if list(one["loc"][:-1]) == parent and _FORM.search(str(one["loc"][-1]))]
    return [{**one, "loc": tuple(parent)} for one in same]


def _short(value: Any, most: int = 80) -> str:
    """A value as in Python, cut where it is long; nothing is made of the rest of it."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 77 digits"
    text = repr(value[: most + 1] if isinstance(value, (str, list)) else value)
    return text if len(text) <= most else f"{text[:most]}…"


def check_keys(model: type[BaseModel], data: Any, at: str, where: str) -> None:
    """Refuses keys that a model does not have, at any depth: pydantic alone would not say which was meant.

    Raises: RecipeError with file, key and the nearest known one.
    """
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        field = model.model_fields.get(key)
        if field is None:
            if model.model_config.get("extra") == "forbid":
                raise RecipeError(f"{where}: {at}{key}: unknown key: {_meant_key(model, str(key), at)}")
            continue
        for inner in nested_models(field):
            check_keys(inner, value, f"{at}{key}.", where)


def nested_models(field: FieldInfo) -> list[type[BaseModel]]:
    """The models with keys of their own below a key; none below keys that the user names, as of classes."""
    if typing.get_origin(field.annotation) is dict:
        return []
    candidates = (field.annotation, *typing.get_args(field.annotation))
    return [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)]


def _meant_key(model: type[BaseModel], key: str, at: str) -> str:
    """The end of a message on an unknown key: the same or the usual word one level below, or the nearest."""
    meant = did_you_mean(key, model.model_fields)
    if meant.startswith("did you mean"):
        return meant
    for name, field in model.model_fields.items():
        for inner in nested_models(field):
            if key in inner.model_fields:
                return f'did you mean "{at}{name}.{key}"?'
            if (below := did_you_mean(key, inner.model_fields)).startswith('did you mean "'):
                return below.replace('"', f'"{at}{name}.', 1)
    return meant


def class_name(name: str) -> str:
    """The name of the class in the file of a component."""
    return "".join(word.capitalize() for word in name.split("_"))


def _find_outside(kind: str, name: str) -> type[Any]:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise RecipeError(f'{kind}: "{name}" is not of the form package.module:Class')
    module_name, class_name = name.split(":")
    # Last, so that a folder called like a library does not hide it; the console script lacks it altogether.
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))
    try:
        component: Any = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f'{kind}: cannot import "{name}": {error}') from None
    base = BASE_CLASSES[kind]
    base_module, _, base_name = base.rpartition(".")
    base_class: type[Component] = getattr(importlib.import_module(base_module), base_name)
    if not (isinstance(component, type) and issubclass(component, base_class)):
        raise RecipeError(f'{kind}: "{name}" does not inherit {base}: make that its base class')
    if not dataclasses.is_dataclass(component):
        raise RecipeError(f'{kind}: "{name}" is not a dataclass; a component\'s fields are its options')
    if inspect.isabstract(component):
        missing = ", ".join(sorted(component.__abstractmethods__))
        raise RecipeError(f'{kind}: "{name}" does not define {missing}, as {base} requires')
    return component

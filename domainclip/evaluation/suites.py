"""Evaluation suites: probes with their options, further sets, and prompts, as data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from domainclip import registry
from domainclip.config import builtin, overrides, paths, strict_yaml
from domainclip.config.recipe import Options
from domainclip.config.sources import CorpusSource
from domainclip.config.strict_model import StrictModel
from domainclip.data.cards import Card, Prompts
from domainclip.errors import RecipeError
from domainclip.evaluation.base import Probe

TEMPLATES = ["a photo of a {}"]  # for bare class names, when neither the card nor the caller has templates


class ExtraSet(CorpusSource):
    """A set that is measured in addition to that of the corpus; it is never trained on."""

    split: Literal["validation", "test", "all"] = "test"
    # Whether the evaluation continues without the set where its path does not exist; the report names it.
    optional: bool = False

    @property
    def is_absent(self) -> bool:
        """Whether it is left out, since there is nothing at its path."""
        return self.optional and not os.path.exists(self.path)


class Suite(StrictModel):
    """A built-in suite, or a suite file of the user."""

    probes: dict[str, Options]
    sets: dict[str, ExtraSet] = {}
    classes: dict[str, Prompts] = {}  # replace the classes of the card on the set of the corpus
    templates: list[str] = []
    # Sets of a benchmark that the suite cannot measure, each with the reason; the report names them.
    not_included: dict[str, str] = {}

    @property
    def absent(self) -> list[str]:
        """A line for each set that is not measured: not at its path, or not included in the suite."""
        lines = [
            f"set {name} is absent, and not measured: there is nothing at sets.{name}.path of the suite"
            for name, source in self.sets.items()
            if source.is_absent
        ]
        return lines + [f"set {name} is not measured: {why}" for name, why in self.not_included.items()]

    def assemble(self) -> dict[str, Probe]:
        """Build the probes.

        Raises: RecipeError naming the key of an unknown probe or option.
        """
        return {name: registry.build("probes", name, o, f"probes.{name}") for name, o in self.probes.items()}


def load(name: str) -> Suite:
    """Read a suite from a file, or a built-in suite by its name.

    Raises: RecipeError naming the file, the key and the remedy.
    """
    file = builtin.find_file("suites", name, ".yaml")
    data = strict_yaml.read_yaml(file, "a suite")
    if "probes" in data:
        data["probes"] = overrides.as_mapping(data["probes"])
    if isinstance(data.get("classes"), (dict, list)):
        data["classes"] = {
            key: value.model_dump() for key, value in _prompts(data["classes"], file.name).items()
        }
    registry.check_keys(Suite, data, "", file.name)
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{file.name}: {registry.format_validation_error(error, '')}") from None
    allowed = paths.allowed_folders(file)
    resolved = {
        name: source.model_copy(
            update={"path": paths.resolve_path(source.path, file, allowed, f"{file.name}: sets.{name}")}
        )
        for name, source in suite.sets.items()
    }
    return suite.model_copy(update={"sets": resolved})


def parse_classes(argument: str) -> dict[str, Prompts]:
    """The classes of `--classes`: "cat,dog", or a YAML file of names or of names with prompts.

    A class without prompts has its bare name as prompt, which templates may enclose.

    Raises: RecipeError for a file that is neither, or without a name.
    """
    file = Path(argument)
    if _is_file(file):
        try:
            data = strict_yaml.load_yaml(file.read_text(encoding="utf-8"), file.name)
        except UnicodeDecodeError as error:
            raise RecipeError(f"--classes: {argument}: not UTF-8 text, at byte {error.start}") from None
        except OSError as error:
            raise RecipeError(f"--classes: {argument}: {error.strerror}: make it readable") from None
        return _prompts(data, file.name)
    if file.suffix in (".yaml", ".yml", ".txt"):
        raise RecipeError(f"--classes: {argument} does not exist; name a file, or classes as in cat,dog")
    return _prompts([name.strip() for name in argument.split(",") if name.strip()], "--classes")


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # a list of names may be longer than the longest file name
        return False


def with_templates(
    classes: dict[str, Prompts], templates: list[str], only_names: bool = True
) -> dict[str, Prompts]:
    """The classes with their names in every template.

    With `only_names`, a class keeps its prompts where they are more than its name.

    Raises: RecipeError for a template that does not hold {} once.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise RecipeError(
                f'--prompt-template: "{template}" must hold {{}} once, where the class name goes'
            )
    return {
        name: prompts
        if only_names and prompts.positive != [name]
        else Prompts(
            positive=[template.replace("{}", name) for template in templates], negative=prompts.negative
        )
        for name, prompts in classes.items()
    }


def with_default_templates(
    card: Card, classes: dict[str, Prompts], templates: list[str]
) -> dict[str, Prompts]:
    """The classes in the given templates; without any, in those of the card, or else in CLIP's first.

    Raises: RecipeError for a template that does not hold {} once.
    """
    return with_templates(classes, templates or card.templates or TEMPLATES)


def _prompts(data: object, where: str) -> dict[str, Prompts]:
    if isinstance(data, list):
        data = {str(name): [str(name)] for name in data}
    if not isinstance(data, dict) or not data:
        raise RecipeError(f"{where}: classes are a list of names, or a mapping of names to prompts")
    try:
        return dict(Card.model_validate({"classes": data}).classes)
    except ValidationError as error:
        raise RecipeError(f"{where}: {registry.format_validation_error(error, '')}") from None

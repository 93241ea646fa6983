"""A suite: what is measured, as data. Probes with their options, further sets, and prompts of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from domainclip import registry
from domainclip.config import builtin, overrides, paths, strict_yaml
from domainclip.config.recipe import CorpusSource, Options
from domainclip.data.cards import Card, Prompts
from domainclip.errors import RecipeError
from domainclip.evaluation.base import Probe

TEMPLATES = ["a photo of a {}"]  # around bare class names, when neither card nor caller has any


class ExtraSet(CorpusSource):
    """A set that is measured beside the corpus's own; nothing is trained on it."""

    split: Literal["validation", "test", "all"] = "test"


class Suite(BaseModel):
    """A file of `suites/`, or one of yours."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    probes: dict[str, Options]
    sets: dict[str, ExtraSet] = {}
    classes: dict[str, Prompts] = {}  # instead of the card's, on the corpus's own set
    templates: list[str] = []

    def assemble(self) -> dict[str, Probe]:
        """The probes, built.

        Raises: RecipeError for an unknown probe or option, with the key.
        """
        return {name: registry.build("probes", name, o, f"probes.{name}") for name, o in self.probes.items()}


def load(name: str) -> Suite:
    """The suite in a file, or one that ships.

    Raises: RecipeError naming file, key and way out.
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
    # A suite may come from anyone: what it names lies where a recipe's paths may.
    allowed = [Path.cwd(), file.parent, builtin.builtin_folder("suites").parent]
    resolved = {
        key: one.model_copy(
            update={"path": paths.resolve_path(one.path, file, allowed, f"{file.name}: sets.{key}")}
        )
        for key, one in suite.sets.items()
    }
    return suite.model_copy(update={"sets": resolved})


def classes(said: str) -> dict[str, Prompts]:
    """The classes that `--classes` means: "cat,dog", or a YAML file of names or of names with prompts.

    A class without prompts of its own has the bare name, for templates to be put around.

    Raises: RecipeError for a file that is neither, or fewer than one name.
    """
    file = Path(said)
    if _is_file(file):
        try:
            data = strict_yaml.load_yaml(file.read_text(encoding="utf-8"), file.name)
        except UnicodeDecodeError as error:
            raise RecipeError(f"--classes: {said}: not UTF-8 text, at byte {error.start}") from None
        except OSError as error:
            raise RecipeError(f"--classes: {said}: {error.strerror}: make it readable") from None
        return _prompts(data, file.name)
    if file.suffix in (".yaml", ".yml", ".txt"):
        raise RecipeError(f"--classes: {said} does not exist; name a file, or classes as in cat,dog")
    return _prompts([name.strip() for name in said.split(",") if name.strip()], "--classes")


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # a list of names may be longer than any name of a file
        return False


def with_templates(chosen: dict[str, Prompts], templates: list[str], bare: bool = True) -> dict[str, Prompts]:
    """The classes with every template around their names; `bare` keeps prompts that say more than a name."""
    for template in templates:
        if template.count("{}") != 1:
            raise RecipeError(
                f'--prompt-template: "{template}" must hold {{}} once, where the class name goes'
            )
    return {
        name: Prompts(
            positive=[template.replace("{}", name) for template in templates], negative=own.negative
        )
        if not bare or own.positive == [name]
        else own
        for name, own in chosen.items()
    }


def own_classes(card: Card, chosen: dict[str, Prompts], templates: list[str]) -> dict[str, Prompts]:
    """Classes named by the caller, in the caller's templates, the card's, or CLIP's first."""
    return with_templates(chosen, templates or card.templates or TEMPLATES)


def _prompts(data: object, where: str) -> dict[str, Prompts]:
    if isinstance(data, list):
        data = {str(name): [str(name)] for name in data}
    if not isinstance(data, dict) or not data:
        raise RecipeError(f"{where}: classes are a list of names, or a mapping of names to prompts")
    try:
        return dict(Card.model_validate({"classes": data}).classes)
    except ValidationError as error:
        raise RecipeError(f"{where}: {registry.format_validation_error(error, '')}") from None

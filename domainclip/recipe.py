"""The recipe: one YAML file that names the base, the corpus, what learns, from what, and what is measured.

Reading checks every key and type before anything is downloaded; `resolved` is the same recipe with every
default written out, and gives the same run again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from domainclip import durations, overrides, parts, roots, shipped, strict_yaml
from domainclip.contracts import Curation, Objective, Probe, Strategy
from domainclip.errors import RecipeError

Options = dict[str, Any]
Share = Annotated[float, Field(ge=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(_Strict):
    """The checkpoint to adapt: a local folder or a Hub id."""

    path: str
    revision: str | None = None


class Source(BaseModel):
    """A corpus: its card, its path, and any key of the card said differently for this run."""

    model_config = ConfigDict(extra="allow", frozen=True)
    card: str | None = None
    path: str

    def overrides(self) -> Options:
        """The card keys that the recipe says differently."""
        return dict(self.model_extra or {})


class Train(_Strict):
    """The schedule. `null` means: the strategy's own, or measured."""

    epochs: float = Field(5, gt=0)
    batch_size: int = Field(128, ge=2)  # pairs that see each other, over all processes
    # Pairs held at once, a process; null: all; auto: measured before the first step.
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    learning_rate: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.98)
    warmup: Share = 0.1  # of the steps
    max_grad_norm: float = Field(1.0, gt=0)
    seed: int = Field(0, ge=0, lt=2**32)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    augmentation: Literal["none", "crop", "crop_flip"] = "none"
    workers: int = Field(0, ge=0)
    log_every: int = Field(1, ge=1)
    save_every: int = Field(200, ge=1)
    keep: int = Field(2, ge=1)
    stop_after: str | None = None  # 3h50m: save and end then, to be continued with --resume
    requeue: bool = False  # put the SLURM job back into its queue when it is stopped
    keep_features: bool = True  # what a locked tower, or locked layers, say is computed once
    keep_features_gb: float = Field(20, gt=0)  # most that may lie on disk, of all runs together
    pixel_cache_gb: float = Field(20, ge=0)  # most that prepared pictures may take on disk; 0: none are kept
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    activation_checkpointing: bool = False  # a third more arithmetic for a fraction of the memory
    compile: bool = False  # the layers of the towers, by torch.compile

    @field_validator("stop_after")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            durations.seconds(value)
        return value


class Prose(_Strict):
    """General sentences made of the tokeniser's own words, for objectives that need `prose`."""

    sentences: int = Field(4096, ge=2)
    per_step: int = Field(64, ge=2)
    templates: list[str] = Field(["{}", "a photo of a {}", "a {} in a picture"], min_length=1)


class Evaluate(_Strict):
    """How the run is measured."""

    resamples: int = Field(2000, ge=100)
    seed: int = Field(0, ge=0, lt=2**32)
    split: Literal["validation", "test"] = "test"
    keep_embeddings: bool = True  # in the user's cache, so that measuring again costs seconds


class Interpolate(_Strict):
    """How far to go from base to adapted weights, chosen on the validation split [arXiv:2109.01903]."""

    alphas: list[float] = [0.25, 0.5, 0.75, 1.0]

    @field_validator("alphas")
    @classmethod
    def _in_range(cls, value: list[float]) -> list[float]:
        if not value or min(value) <= 0 or max(value) > 1:
            raise ValueError("each alpha lies above 0 (the base) and at most at 1 (the adapted model)")
        return sorted(set(value))


class Report(_Strict):
    """What the report may show."""

    title: str | None = None
    license: str = "unknown"  # of the adapted weights, as the Hub names licences; stands in the card
    examples: bool = False  # pictures and captions of the corpus: they may hold what must not leave


class Recipe(_Strict):
    """One run, whole."""

    name: str
    base: Base
    corpus: Source
    strategy: dict[str, Options]
    objectives: dict[str, Options] = {}  # empty: what the family of the base was trained with
    curation: dict[str, Options] = {}
    train: Train = Train()
    prose: Prose = Prose()
    interpolate: Interpolate | None = None
    probes: dict[str, Options] = {"zero_shot": {}, "retrieval": {}}
    retention: Source | None = None
    evaluate: Evaluate = Evaluate()
    report: Report = Report()
    roots: list[str] = []  # folders that paths may lie in, beside the working and the recipe's folder

    @field_validator("name")
    @classmethod
    def _no_path(cls, value: str) -> str:
        if re.search(r"[/\\]", value) or not value.strip(". "):
            raise ValueError("a name, not a path: the run's folder is called by it")
        return value

    @field_validator("strategy")
    @classmethod
    def _one_strategy(cls, value: dict[str, Options]) -> dict[str, Options]:
        if len(value) != 1:
            raise ValueError(f"name exactly one strategy, not {len(value)}")
        return value

    def resolved(self) -> str:
        """The recipe as YAML with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def identity(self) -> Options:
        """What decides the trained weights: a run resumes only when this is unchanged."""
        data = self.model_dump(mode="json")
        for key in ("name", "probes", "retention", "evaluate", "report", "interpolate", "roots"):
            data.pop(key)
        kept = ("keep_features", "keep_features_gb", "pixel_cache_gb")
        for key in ("log_every", "save_every", "keep", "stop_after", "requeue", "workers", *kept):
            data["train"].pop(key)
        return data

    def digest(self) -> str:
        """sha256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()


def _long_forms(data: Options) -> Options:
    """`strategy: lora`, `probes: [zero_shot]` and `base: some/path` written out as mappings."""
    data = {**data}
    for key in ("strategy", "objectives", "curation", "probes"):
        if key in data:
            data[key] = overrides.named(data[key])
    if isinstance(data.get("base"), str):
        data["base"] = {"path": data["base"]}
    return data


@dataclass(frozen=True)
class Parts:
    """The parts of a recipe, built."""

    strategy: Strategy
    objectives: dict[str, tuple[float, Objective]]  # name -> weight, term
    curation: dict[str, Curation]
    probes: dict[str, Probe]


def assemble(recipe: Recipe) -> Parts:
    """Builds the parts, so that a wrong option fails before anything is downloaded.

    Raises: RecipeError for an unknown part or option, with the key.
    """
    ((strategy, options),) = recipe.strategy.items()
    objectives = {}
    for name, spec in recipe.objectives.items():
        weight = spec.get("weight", 1.0)
        if not isinstance(weight, (int, float)) or isinstance(weight, bool):
            raise RecipeError(f"objectives.{name}.weight: must be a number, got {weight!r}")
        rest = {key: value for key, value in spec.items() if key != "weight"}
        objectives[name] = (float(weight), parts.build("objectives", name, rest, f"objectives.{name}"))
    return Parts(
        parts.build("strategies", strategy, options, f"strategy.{strategy}"),
        objectives,
        {n: parts.build("curation", n, o, f"curation.{n}") for n, o in recipe.curation.items()},
        {n: parts.build("probes", n, o, f"probes.{n}") for n, o in recipe.probes.items()},
    )


def load(name: str, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, or one that ships, with `key=value` changes applied.

    Raises: RecipeError naming file, key and way out.
    """
    file = shipped.locate("recipes", name, ".yaml")
    try:
        data = strict_yaml.load(file.read_text(encoding="utf-8"), file.name)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file.name}: not UTF-8 text, at byte {error.start}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{file.name}: a recipe is a mapping of keys to values")
    data.setdefault("name", file.stem)
    for said in changes:
        overrides.apply(data, said)
    data = _long_forms(data)
    parts.refuse_unknown(Recipe, data, "", file.name)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{file.name}: {parts.explain(error, '')}") from None
    return _resolve_paths(recipe, file, changes)


def schema() -> Options:
    """The JSON schema of a recipe, with the options of every part, for editors."""
    result = Recipe.model_json_schema()
    definitions = result["$defs"]
    kinds = {"strategy": "strategies", "objectives": "objectives", "curation": "curation", "probes": "probes"}
    for key, kind in kinds.items():
        known = {}
        for name in parts.names(kind):
            entry = parts.schema(kind, name)
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
    """Absolute local paths, each under a declared root.

    A recipe may come from anyone: what it names must lie in the working folder, in its own folder, in
    what ships, or in a folder under `roots`. A path on the command line is its user's own word.
    """
    allowed = [Path.cwd(), file.parent, shipped.folder("recipes").parent, *map(Path, recipe.roots)]
    said = {text.partition("=")[0] for text in changes}
    data = recipe.model_dump(exclude_unset=True)
    used = list(recipe.roots)
    for key in ("base", "corpus", "retention"):
        if not isinstance(data.get(key), dict):
            continue
        trusted = {key, f"{key}.path"} & said
        path = roots.resolve(
            str(data[key]["path"]), file, None if trusted else allowed, f"{file.name}: {key}.path"
        )
        data[key]["path"] = path
        # What was allowed once is allowed again: the run folder's own recipe resumes from anywhere.
        if Path(path).is_absolute() and path not in used:
            used.append(path)
        if card := roots.own_card(data[key].get("card"), file):
            data[key]["card"] = card
    data["roots"] = used
    return Recipe.model_validate(data)

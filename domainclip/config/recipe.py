"""The recipe: one YAML file that names the base, the corpus, what learns, from what, and what is measured.

Reading checks every key and type before anything is downloaded; `resolved` is the same recipe with every
default written out, and gives the same run again.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from domainclip.config.training import Share, TrainConfig

Options = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(_Strict):
    """The checkpoint to adapt: a local folder or a Hub id."""

    path: str
    revision: str | None = None


class CorpusSource(BaseModel):
    """A corpus: its card, its path, and any key of the card said differently for this run."""

    model_config = ConfigDict(extra="allow", frozen=True)
    card: str | None = None
    path: str

    def overrides(self) -> Options:
        """The card keys that the recipe says differently."""
        return dict(self.model_extra or {})


class AnchorTexts(_Strict):
    """General-domain texts made of the tokenizer's words, for objectives that use `anchor_texts`."""

    count: int = Field(4096, ge=2)
    per_step: int = Field(64, ge=2)
    templates: list[str] = Field(["{}", "a photo of a {}", "a {} in a picture"], min_length=1)


class EvaluationConfig(_Strict):
    """How the run is measured."""

    bootstrap_samples: int = Field(2000, ge=100)
    seed: int = Field(0, ge=0, lt=2**32)
    split: Literal["validation", "test"] = "test"
    cache_embeddings: bool = True  # in the user's cache, so that measuring again costs seconds


class WeightInterpolation(_Strict):
    """How far to go from base to adapted weights, chosen on the validation split [arXiv:2109.01903]."""

    citation: ClassVar[str] = "arXiv:2109.01903"

    alphas: list[float] = [0.25, 0.5, 0.75, 1.0]
    # The largest drop of the headline metric on the retention set; half of that set then selects alpha.
    max_retention_drop: Share | None = None

    @field_validator("alphas")
    @classmethod
    def _in_range(cls, value: list[float]) -> list[float]:
        if not value or min(value) <= 0 or max(value) > 1:
            raise ValueError("each alpha lies above 0 (the base) and at most at 1 (the adapted model)")
        return sorted(set(value))


class ReportConfig(_Strict):
    """What the report may show."""

    title: str | None = None
    license: str = "unknown"  # of the adapted weights, as the Hub names licences; stands in the card
    examples: bool = False  # pictures and captions of the corpus: they may hold what must not leave


class Recipe(_Strict):
    """One run, whole."""

    name: str
    base: Base
    corpus: CorpusSource
    strategy: dict[str, Options]
    objectives: dict[str, Options] = {}  # empty: what the family of the base was trained with
    curation: dict[str, Options] = {}
    train: TrainConfig = TrainConfig()
    anchor_texts: AnchorTexts = AnchorTexts()
    weight_interpolation: WeightInterpolation | None = None
    probes: dict[str, Options] = {"zero_shot": {}, "retrieval": {}}
    retention: CorpusSource | None = None
    evaluate: EvaluationConfig = EvaluationConfig()
    report: ReportConfig = ReportConfig()
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
        for key in ("name", "evaluate", "report", "roots"):
            data.pop(key)
        swept = data.pop("weight_interpolation") or {}
        if self.train.steers and swept.get("max_retention_drop") is not None:
            data["weight_interpolation"] = "max_retention_drop"  # half of the general set steers then
        kept = [
            "cache_features",
            "feature_cache_gb",
            "pixel_cache_gb",
            "timeout",
            "keep_best_checkpoint",
            "final_weights",
            "fsdp",
            "log_to",
        ]
        if not self.train.steers:  # then no figure, and no look at one, changes a weight
            data.pop("probes"), data.pop("retention")
            kept += ["validate_every", "max_retention_drop", "on_retention_drop"]
        for key in ("log_every", "save_every", "keep_checkpoints", "time_limit", "requeue", "workers", *kept):
            data["train"].pop(key)
        return data

    def digest(self) -> str:
        """sha256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

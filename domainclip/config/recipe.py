"""The recipe: base model, corpus, strategy, objectives, schedule and probes of one run, from one YAML file.

Every key and type is checked before anything is downloaded. `resolved` is the same recipe with every default
written out; it reproduces the run.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from domainclip.config import strict_yaml
from domainclip.config.sources import CorpusSource
from domainclip.config.strict_model import StrictModel
from domainclip.config.training import Share, TrainConfig

Options = dict[str, Any]


class Base(StrictModel):
    """The checkpoint to adapt: a local folder or a Hub id."""

    path: str  # a folder, or an id of the Hub
    revision: str | None = None  # a commit or tag of the Hub; null: the newest


class RetentionSource(CorpusSource):
    """The retention set, and the loss on it that is accepted."""

    # The largest loss of a share (accuracy, recall) on the retention set that is accepted: 0.02, two points.
    # It adds the verdict "kept within the margin", and selects nothing.
    margin: float | None = Field(None, gt=0, lt=1)
    path: str = ""  # empty: the retention set that the card of the corpus names

    @model_validator(mode="after")
    def _of_the_card(self) -> RetentionSource:
        if not self.path and (self.card or self.overrides()):
            raise ValueError("path is missing: name the folder with retention.path=FOLDER")
        return self


ANCHOR_TEMPLATES = (
    "{}",
    "a photo of a {}",
    "a {} in a picture",
    "A {} {} with a {}.",
    "The {} {} is {}.",
    "A {} and a {} on a {} {}.",
    "There is a {} {} {} in the {}.",
)


class AnchorTexts(StrictModel):
    """General-domain texts, for the objectives that use them: everyday captions, and words of the base."""

    count: int = Field(4096, ge=2)  # texts in all
    per_step: int = Field(64, ge=2)  # texts of a training step
    # A text file with one general caption a line; the rest is made. Null: all are made.
    path: str | None = None
    # The share of those made that are English captions of everyday life, which hold the search for photos;
    # the others are made of the tokenizer's words, in the languages that it has.
    everyday: float = Field(0.5, ge=0, le=1)
    # Each {} is another word. Words alone hold the names of classes, and sentences the search by captions.
    templates: list[str] = Field(list(ANCHOR_TEMPLATES), min_length=1)


class AnchorImages(StrictModel):
    """General images without texts, for objectives that use `anchor_images`; none of them may be measured."""

    path: str | None = None  # a folder of images; null: images of overlapping shapes are generated
    count: int = Field(1024, ge=2)  # images in all
    per_step: int = Field(32, ge=2)  # images of a training step, encoded in addition to the pairs

    @model_validator(mode="after")
    def _enough(self) -> AnchorImages:
        if self.per_step > self.count:
            raise ValueError(f"per_step: {self.per_step} is more than count: {self.count}: lower it")
        return self


class EvaluationConfig(StrictModel):
    """How base and adapted model are evaluated."""

    bootstrap_samples: int = Field(2000, ge=100)  # resamples of an interval
    seed: int = Field(0, ge=0, lt=2**32)  # of the resamples
    split: Literal["validation", "test"] = "test"  # that the report measures
    cache_embeddings: bool = True  # in the disk cache, so that another evaluation takes seconds
    # Of the layers that compute embeddings: auto is bf16 on a GPU that computes in it, else fp32.
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"


class WeightInterpolation(StrictModel):
    """Interpolation between base and adapted weights, selected on the validation split [arXiv:2109.01903]."""

    citation: ClassVar[str] = "arXiv:2109.01903"

    alphas: list[float] = [0.25, 0.5, 0.75, 1.0]  # 0: the base model, 1: the adapted one
    by_layer: bool = False  # layer l of L moves by alpha + (1 - alpha) l / (L - 1) [arXiv:2410.17146]
    # Image tower and text tower move by an alpha each: that of one is chosen again beside that of the other.
    by_tower: bool = False
    # The largest drop of any headline metric on the retention set; half of that set then selects alpha.
    max_retention_drop: Share | None = None

    @field_validator("alphas")
    @classmethod
    def _in_range(cls, value: list[float]) -> list[float]:
        if not value or min(value) <= 0 or max(value) > 1:
            raise ValueError("each alpha must be above 0 (the base model) and at most 1 (the adapted model)")
        return sorted(set(value))


class SourceRemoval(StrictModel):
    """Image embeddings whose means do not depend on the source: a map in the weights [arXiv:2306.03819]."""

    citation: ClassVar[str] = "arXiv:2306.03819"

    by: Literal["source", "acquisition", "both"] = "source"  # of corpus.columns: what is removed
    # Compare sources among items of equal labels only, so that the label stays where it is tangled with them.
    given_labels: bool = True
    # 0: the smallest change of the embeddings; 1: an orthogonal projection, which depends less on few items.
    shrinkage: float = Field(0.1, ge=0, le=1)


class ReportConfig(StrictModel):
    """Title, licence and content of the report."""

    title: str | None = None  # null: made of the recipe's name
    license: str = "unknown"  # of the adapted weights, by the Hub's name for it; part of the model card
    examples: bool = False  # show images and captions of the corpus, which may identify people


class Recipe(StrictModel):
    """All settings of one run."""

    name: str  # of the run folder; default: that of the file
    base: Base  # the model to adapt
    corpus: CorpusSource  # the images and texts
    strategy: dict[str, Options]  # the component that decides which weights are trained, with its options
    objectives: dict[str, Options] = {}  # empty: the loss that the base model's family was trained with
    curation: dict[str, Options] = {}  # components that select or change training items, in this order
    train: TrainConfig = TrainConfig()  # schedule, optimizer, checkpoints, resources
    # General texts for objectives that hold the model near the base.
    anchor_texts: AnchorTexts = AnchorTexts()
    # General images for objectives that hold the model near the base.
    anchor_images: AnchorImages = AnchorImages()
    # {}: weights between base and adapted model, chosen on validation.
    weight_interpolation: WeightInterpolation | None = None
    # {}: remove the direction of the source from the embeddings of images, after training; null: keep it.
    source_removal: SourceRemoval | None = None
    probes: dict[str, Options] = {"zero_shot": {}, "retrieval": {}}  # what is measured, with options
    retention: RetentionSource | None = None  # general images, on which forgetting is measured
    evaluate: EvaluationConfig = EvaluationConfig()  # how the models are measured
    report: ReportConfig = ReportConfig()  # title, licence and content of the report

    @field_validator("name")
    @classmethod
    def _no_path(cls, value: str) -> str:
        if re.search(r"[/\\]", value) or not value.strip(". "):
            raise ValueError("must be a name, not a path: the run folder is named after it")
        return value

    @field_validator("strategy")
    @classmethod
    def _one_strategy(cls, value: dict[str, Options]) -> dict[str, Options]:
        if len(value) != 1:
            raise ValueError(f"name exactly one strategy, not {len(value)}")
        return value

    def corpora(self) -> dict[str, CorpusSource]:
        """Every corpus that the recipe names, by its key."""
        named = {"corpus": self.corpus}
        if self.retention is not None and self.retention.path:
            named["retention"] = self.retention
        return named | {f"train.mix.{name}": source for name, source in self.train.mix.items()}

    def resolved(self) -> str:
        """The recipe as YAML with every default written out."""
        return strict_yaml.dump_yaml(self.model_dump(mode="json"))

    def identity(self) -> Options:
        """The settings that determine the trained weights; a run resumes only when they are unchanged."""
        data = self.model_dump(mode="json")
        evaluation = data.pop("evaluate")
        for key in ("name", "report", "source_removal"):  # what is removed is removed after training
            data.pop(key)
        interpolation = data.pop("weight_interpolation") or {}
        if self.train.steers and interpolation.get("max_retention_drop") is not None:
            data["weight_interpolation"] = (
                "max_retention_drop"  # half of the retention set then steers training
            )
        without_effect = [
            "cache_features",
            "feature_cache_gb",
            "pixel_cache_gb",
            "timeout",
            "keep_best_checkpoint",
            "final_weights",
            "fsdp",
            "sharded_checkpoints",
            "trackers",
            "seeds",  # every run has one of them
        ]
        if self.train.steers:  # by metrics of these embeddings
            data["evaluate"] = {"precision": evaluation["precision"]}
        else:  # then validation changes no weight
            data.pop("probes"), data.pop("retention")
            without_effect += ["validate_every", "max_retention_drop", "on_retention_drop"]
        without_effect += ["log_every", "save_every", "keep_checkpoints", "time_limit", "requeue", "workers"]
        for key in without_effect:
            data["train"].pop(key)
        if data.get("retention"):
            data["retention"].pop("margin")  # of the report
        return data

    def digest(self) -> str:
        """sha256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

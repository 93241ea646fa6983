"""The section `train` of a recipe: schedule, optimizer, checkpoints, validation and resources."""

from __future__ import annotations

from math import ceil
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from domainclip.config import durations
from domainclip.config.sources import MixedSource
from domainclip.config.strict_model import StrictModel

Augmentation = Literal["none", "crop", "crop_flip", "radiograph"]
TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Epochs = Annotated[float, Field(gt=0)]
# What `epochs: auto` aims at: a schedule of fewer steps ends before its rate has taught much; and of a few
# items, more passes only teach them by heart.
_AUTO_STEPS, _AUTO_EPOCHS = 100, 20


PROJECTION_DECAY = "arXiv:2411.01713"  # the source of train.projection_decay
RADIOGRAPH = "arXiv:1906.03347"  # the source of `augmentation: radiograph`


class WeightAverageConfig(StrictModel):
    """The average of the weights along the training, which replaces the last ones [arXiv:1803.05407]."""

    citation: ClassVar[str] = "arXiv:1803.05407"

    # Of the average so far, in each step; 1: the mean of all averaged steps counts alike.
    decay: float = Field(0.999, gt=0, le=1)
    start: Share = 0.0  # of the steps, which are not averaged


class TrainConfig(StrictModel):
    """Settings of training; `null` means the strategy's default or a measured value."""

    # Passes over the training items; auto: as many as make 100 steps, at least 1 and at most 20.
    epochs: Epochs | Literal["auto"] = 5.0
    batch_size: int = Field(128, ge=2)  # pairs in one loss, over all processes
    # Pairs per process in memory at once; null: all; auto: all, or where they do not fit, as many as a
    # measurement before the first step allows.
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    # Other corpora by name, each with a share of every batch: replay of general pairs, or weighted sources.
    mix: dict[str, MixedSource] = {}
    learning_rate: float | None = Field(None, gt=0)  # at its peak; null: that of the strategy
    weight_decay: float = Field(0.1, ge=0)  # of matrices; none of biases, norms and token embeddings
    # λ of selective projection decay [arXiv:2411.01713], in the place of weight_decay: weights are drawn to
    # where they started, only where a step turned back; 1 projects, null is weight_decay.
    projection_decay: float | None = Field(None, gt=0)
    # {}: validate, evaluate and save the average of the weights along the training; null: the last ones.
    weight_average: WeightAverageConfig | None = None
    betas: tuple[Share, Share] = (0.9, 0.98)  # of the optimizer
    warmup: Share = 0.1  # of the steps
    max_grad_norm: float = Field(1.0, gt=0)  # longer gradients are shortened to it
    seed: int = Field(0, ge=0, lt=2**32)  # of order, captions, augmentation and dropout
    # Several runs and one report of their mean and range: this many seeds from `seed` on, or these ones.
    seeds: Annotated[int, Field(ge=2, le=100)] | list[Seed] | None = None
    # Of activations: auto is the fastest that the device computes in; tf32 is fp32 with shorter factors in
    # matrix products, on a GPU that has it.
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    # crop_flip mirrors, too; radiograph changes border, grey scale, sharpness and resolution.
    augmentation: Augmentation = "none"
    # fast: JPEG files at a half, a quarter or an eighth of their size where that is twice the model's input.
    decode: Literal["exact", "fast"] = "exact"
    # Processes that load images, for each process of the run; auto: its share of the cores, none for few.
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    log_every: int = Field(1, ge=1)  # steps between two lines of metrics.jsonl
    # Also send the numbers of metrics.jsonl and the recipe without paths to these; tensorboard writes event
    # files into the run folder.
    trackers: list[TrackerName] = []
    save_every: Annotated[int, Field(ge=1)] | str = 200  # steps between checkpoints, or a time such as 15m
    keep_checkpoints: int = Field(2, ge=1)  # the newest ones
    time_limit: str | None = None  # e.g. 3h50m: save a checkpoint and stop then; continue with --resume
    requeue: bool = False  # put the SLURM job back into its queue when it is stopped
    timeout: str = "30m"  # the run ends when one process has waited this long for another
    validate_every: int | None = Field(None, ge=1)  # steps between two validations; null: none
    # End after so many validations in a row without a better loss or headline metric; null: at the last step.
    patience: int | None = Field(None, ge=1)
    keep_best_checkpoint: bool = False  # never delete the checkpoint with the lowest validation loss
    final_weights: Literal["last", "best"] = (
        "last"  # weights of the last step, or of the lowest validation loss
    )
    max_retention_drop: float = Field(0.05, ge=0)  # allowed drop of the headline metric on the retention set
    on_retention_drop: Literal["warn", "stop", "lower_rate"] = "warn"  # when that drop is exceeded
    cache_features: bool = True  # compute the outputs of frozen towers and layers once
    feature_cache_gb: float = Field(20, gt=0)  # disk limit, for all runs together
    pixel_cache_gb: float = Field(20, ge=0)  # disk limit of decoded images; 0: no cache
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"  # adamw8bit needs domainclip[eight_bit]
    activation_checkpointing: bool = False  # a third more computation for a fraction of the memory
    compile: bool = False  # compile the transformer layers with torch.compile
    fsdp: bool = False  # shard weights and moments over the processes
    sharded_checkpoints: bool = False  # with fsdp: each process writes its shards, and none gathers them

    @field_validator("time_limit", "timeout")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            durations.seconds(value)
        return value

    @field_validator("save_every")
    @classmethod
    def _steps_or_time(cls, value: int | str) -> int | str:
        if isinstance(value, str) and durations.seconds(value) == 0:
            raise ValueError(f"{value}: set a number of steps, or a time such as 15m")
        return value

    @field_validator("timeout")
    @classmethod
    def _waits(cls, value: str) -> str:
        if durations.seconds(value) == 0:
            raise ValueError(f"{value}: processes wait for each other in every step; set 1m or more")
        return value

    @model_validator(mode="after")
    def _leaves_room(self) -> TrainConfig:
        rest = 1 - sum(source.share for source in self.mix.values())
        if self.mix and rest * self.batch_size < len(self.mix) + 1:
            raise ValueError(
                f"mix: the shares leave {rest:.3g} of {self.batch_size} pairs to the corpus: lower "
                "train.mix.NAME.share, or raise train.batch_size"
            )
        return self

    @model_validator(mode="after")
    def _requires_validation(self) -> TrainConfig:
        requested = {
            "keep_best_checkpoint": self.keep_best_checkpoint,
            "final_weights: best": self.final_weights == "best",
            f"on_retention_drop: {self.on_retention_drop}": self.on_retention_drop != "warn",
            f"patience: {self.patience}": self.patience is not None,
        }
        if self.validate_every is None and (
            key := next((k for k, is_set in requested.items() if is_set), None)
        ):
            raise ValueError(f"{key} needs validate_every: set the number of steps between two validations")
        return self

    @model_validator(mode="after")
    def _several_seeds(self) -> TrainConfig:
        if not isinstance(self.seeds, list):
            return self
        if len(set(self.seeds)) < max(2, len(self.seeds)):
            raise ValueError("seeds names at least two different seeds; for a single run set seed")
        if self.seed:
            raise ValueError("seeds names the seeds of the runs: leave seed out, or set seeds to a number")
        return self

    @model_validator(mode="after")
    def _fsdp_limits(self) -> TrainConfig:
        clash = {
            "compile": self.compile,
            "optimizer: adamw8bit": self.optimizer == "adamw8bit",
            "precision: fp16": self.precision == "fp16",
            "projection_decay": self.projection_decay is not None,
            "weight_average": self.weight_average is not None,
        }
        if self.sharded_checkpoints and not self.fsdp:
            raise ValueError(
                "sharded_checkpoints: true saves what fsdp shards: set train.fsdp=true, or leave it out"
            )
        if self.fsdp and (key := next((key for key, is_set in clash.items() if is_set), None)):
            raise ValueError(
                f"fsdp: true shards every tensor, which {key} does not support: use only one of them"
            )
        return self

    def epochs_of(self, pairs: int) -> float:
        """The passes over a corpus of this many training pairs."""
        return auto_epochs(pairs, self.batch_size) if self.epochs == "auto" else self.epochs

    @model_validator(mode="after")
    def _own_optimizer(self) -> TrainConfig:
        if self.projection_decay is not None and self.optimizer != "adamw":
            raise ValueError(
                f"projection_decay: is a form of adamw, and optimizer is {self.optimizer}: set "
                "train.optimizer=adamw, or leave projection_decay out"
            )
        return self

    def all_seeds(self) -> list[int]:
        """The seed of each run."""
        if isinstance(self.seeds, int):
            return [self.seed + number for number in range(self.seeds)]
        return self.seeds or [self.seed]

    @property
    def steers(self) -> bool:
        """Whether the retention set decides about the learning rate or the end of training."""
        return self.on_retention_drop != "warn"


def auto_epochs(pairs: int, batch_size: int) -> float:
    """The passes of `epochs: auto` over so many pairs."""
    per_epoch = pairs / min(batch_size, max(1, pairs))
    return float(min(_AUTO_EPOCHS, max(1, ceil(_AUTO_STEPS / max(1.0, per_epoch)))))

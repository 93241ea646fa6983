"""How long, how fast and how carefully a run trains: the section `train` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from domainclip.config import durations

Share = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(BaseModel):
    """The schedule. `null` means: the strategy's own, or measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    log_to: Literal["tensorboard"] | None = None  # the numbers of metrics.jsonl, in the run folder as well
    save_every: int = Field(200, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    time_limit: str | None = None  # 3h50m: save and end then, to be continued with --resume
    requeue: bool = False  # put the SLURM job back into its queue when it is stopped
    timeout: str = "30m"  # longest that one process waits for another before the run ends
    validate_every: int | None = Field(None, ge=1)  # steps between looks at held-out data; null: none
    keep_best_checkpoint: bool = False  # never prune the step whose validation loss is lowest
    final_weights: Literal["last", "best"] = "last"  # which step's weights the run ends with
    max_retention_drop: float = Field(0.05, ge=0)  # most that the general figure may fall below the base's
    on_retention_drop: Literal["warn", "stop", "lower_rate"] = "warn"
    cache_features: bool = True  # what a locked tower, or locked layers, say is computed once
    feature_cache_gb: float = Field(20, gt=0)  # most that may lie on disk, of all runs together
    pixel_cache_gb: float = Field(20, ge=0)  # most that prepared pictures may take on disk; 0: none are kept
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    activation_checkpointing: bool = False  # a third more arithmetic for a fraction of the memory
    compile: bool = False  # the layers of the towers, by torch.compile
    fsdp: bool = False  # each process holds one part of every weight and moment

    @field_validator("time_limit", "timeout")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            durations.seconds(value)
        return value

    @field_validator("timeout")
    @classmethod
    def _waits(cls, value: str) -> str:
        if durations.seconds(value) == 0:
            raise ValueError(f"{value}: every process waits for another a little: say 1m or more")
        return value

    @model_validator(mode="after")
    def _looks(self) -> TrainConfig:
        looking = {
            "keep_best_checkpoint": self.keep_best_checkpoint,
            "final_weights: best": self.final_weights == "best",
            f"on_retention_drop: {self.on_retention_drop}": self.on_retention_drop != "warn",
        }
        if self.validate_every is None and (key := next((k for k, asked in looking.items() if asked), None)):
            raise ValueError(f"{key} needs validate_every: say how many steps lie between two looks")
        return self

    @model_validator(mode="after")
    def _parts(self) -> TrainConfig:
        clash = {"compile": self.compile, "optimizer: adamw8bit": self.optimizer == "adamw8bit"}
        if self.fsdp and (key := next((key for key, asked in clash.items() if asked), None)):
            raise ValueError(
                f"fsdp: true works on parts of tensors, and {key} does not: leave one of them out"
            )
        return self

    @property
    def steers(self) -> bool:
        """Whether the general set decides about the rate or the end."""
        return self.on_retention_drop != "warn"

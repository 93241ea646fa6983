"""Numerical precision of training: the type of the activations, and the loss scale that fp16 needs."""

from __future__ import annotations

from typing import Literal

import torch
from accelerate import Accelerator

from domainclip.config.training import TrainConfig
from domainclip.errors import RecipeError
from domainclip.models.precision import Precision, computes_in_bf16

MixedPrecision = Literal["no", "bf16", "fp16"]  # as Accelerate names them


def mixed_precision(settings: TrainConfig) -> MixedPrecision:
    """Return the type of autocast; weights, logits and loss stay fp32 whatever it is.

    `auto` is bf16 on a GPU that computes in it, fp16 on an older one (T4, V100), fp32 without a GPU.

    Raises: RecipeError for fp16 without a GPU.
    """
    torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")
    if settings.precision == "auto":
        return _fastest(settings)
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise RecipeError("train.precision: fp16 needs a GPU, and there is none: use bf16, fp32 or auto")
    return settings.precision if settings.precision in ("bf16", "fp16") else "no"


def _fastest(settings: TrainConfig) -> MixedPrecision:
    if not torch.cuda.is_available():
        return "no"
    if computes_in_bf16():
        return "bf16"
    return "no" if settings.fsdp else "fp16"


def frozen_precision(settings: TrainConfig) -> Precision:
    """Return the precision of cached features: that in which a step would compute them."""
    mixed = mixed_precision(settings)
    if mixed == "no":
        return "tf32" if settings.precision == "tf32" else "fp32"
    return mixed


def loss_scale(accelerator: Accelerator) -> float | None:
    """Return the factor on the loss that keeps gradients in the range of fp16; None in other types."""
    return None if accelerator.scaler is None else float(accelerator.scaler.get_scale())


def overflowed(norm: float, accelerator: Accelerator) -> bool:
    """Return whether the loss scale made a gradient infinite: the step is skipped, and the scale halved.

    At a scale of 1 the gradient itself is not finite.
    """
    scale = loss_scale(accelerator)
    return scale is not None and scale > 1 and not torch.tensor(norm).isfinite()

"""An image tower of timm, for architectures that transformers lacks, such as the FastViT of MobileCLIP.

timm is an optional dependency: pip install "domainclip[timm]".
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from domainclip.errors import ModelError


class TrunkConfig(PreTrainedConfig):
    """Which model of timm, and what its pooling and classifier are."""

    model_type = "timm_trunk"
    timm_model_name: str = ""
    timm_pool: str = ""
    classes: int = 0  # width of the classifier, which projects; 0: none
    resets_classifier: bool = False  # a pool of "" is then that of the model
    image_size: int = 224


class TimmTrunk(nn.Module):
    """(b, 3, h, w) pixels to (b, w) pooled rows."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = _create(config)
        width: int = self.trunk.num_features
        self.width = config.classes or width

    def forward(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """The pooled rows; without hidden states."""
        return BaseModelOutputWithPooling(pooler_output=self.trunk(pixel_values))

    def train(self, mode: bool = True) -> TimmTrunk:
        """Batch norms use the statistics of their checkpoint: those of a batch depend on how it is split."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def _create(config: TrunkConfig) -> Any:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise ModelError(
            f"its image tower is {config.timm_model_name} of timm, which is not installed: "
            'pip install "domainclip[timm]"'
        ) from None
    try:
        if not config.resets_classifier:
            return timm.create_model(
                config.timm_model_name, num_classes=config.classes, global_pool=config.timm_pool
            )
        trunk = timm.create_model(config.timm_model_name)
        trunk.reset_classifier(0, **({"global_pool": config.timm_pool} if config.timm_pool else {}))
        return trunk
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"its image tower is {config.timm_model_name}, which this timm cannot build: {reason}: "
            "pip install --upgrade timm"
        ) from None

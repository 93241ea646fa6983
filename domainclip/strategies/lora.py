"""Low-rank updates: the base is frozen, a small adapter is added to it and learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from domainclip.strategies.base import Strategy

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class Lora(Strategy):
    """W + (alpha / rank) B A on the attention projections, B starting at zero. [arXiv:2106.09685]

    The layers are named by family, so no module pattern has to be guessed. peft drops the logit scale and
    bias, which are bare parameters: they learn too and are saved with the adapter.

    `rslora` divides alpha by √rank instead, so that a high rank learns as fast as a low one
    [arXiv:2312.03732]. `dora` learns the length of each row of W separately, m (W + s B A) / ‖W + s B A‖, for
    more arithmetic in each step [arXiv:2402.09353]. Of peft's other initialisations of A and B, those that
    change W are not offered: their adapter would be wrong on the base as published.
    """

    citation: ClassVar[str] = "arXiv:2106.09685"
    default_learning_rate: ClassVar[float] = 5e-4
    max_learning_rate: ClassVar[float | None] = 5e-3

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    towers: Literal["both", "image", "text"] = "both"
    last_layers: Annotated[int, Field(ge=1)] | None = None  # null: all of them
    targets: Literal["attention", "attention+mlp"] = "attention"
    rslora: bool = False  # alpha / √rank instead of alpha / rank
    dora: bool = False  # direction and length of each row learn apart
    init: Literal["kaiming", "gaussian"] = "kaiming"  # how A is drawn; B is zero either way
    train_logit_scale: bool = True  # whether scale and bias learn too

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """Adds the adapter; the factor on the learning rate by weight name."""
        from peft import LoraConfig, get_peft_model

        both: tuple[Literal["image", "text"], ...] = ("image", "text")
        adapted = both if self.towers == "both" else (self.towers,)
        layers = [
            name for side in adapted for name in model.lora_targets(side, self.targets, self.last_layers)
        ]
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=layers,
            bias="none",
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights="gaussian" if self.init == "gaussian" else True,
        )
        model.hf_model = get_peft_model(model.hf_model, config)
        adapter = r"(image|text)/.*\.lora_(A|B|magnitude_vector)\..*"
        return model.set_trainable(
            [(adapter, 1.0), ("(scale|bias)/.*", float(self.train_logit_scale)), (".*", 0.0)]
        )

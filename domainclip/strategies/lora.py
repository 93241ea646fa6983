"""Low-rank updates: the base is frozen, a small adapter is added to it and learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from domainclip.errors import RecipeError
from domainclip.strategies.base import Strategy, towers_without

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.layers import Modality

_GENERAL_TEXTS = 512  # whose directions `init: null_space` leaves unchanged


@dataclass(frozen=True, kw_only=True)
class Lora(Strategy):
    """W + (alpha / rank) B A on the attention projections, B starting at zero. [arXiv:2106.09685]

    The layers are named by family, so no module pattern has to be guessed. peft drops the logit scale and
    bias, which are bare parameters: they learn too and are saved with the adapter.

    `rslora` divides alpha by √rank instead, so that a high rank learns as fast as a low one
    [arXiv:2312.03732]. `dora` learns the length of each row of W separately, m (W + s B A) / ‖W + s B A‖, for
    more arithmetic in each step [arXiv:2402.09353]. `init: residual` fixes A to random orthonormal rows
    outside the principal directions of W, those that hold `protected_energy` of its squared norm, and only B
    learns: what W does along them, where general knowledge is encoded, cannot change [arXiv:2601.19659].
    Differs from the paper, which projects the first gradient into that space and draws A from it.
    `init: null_space` does so in the text tower with the directions that general texts have at each layer:
    A is fixed outside of those that hold `text_energy` of the squared norm of its inputs, so that general
    texts keep their embeddings [arXiv:2507.19839]; the image tower learns A and B. Differs from the paper,
    which projects the gradient of the whole weight, of which B Aᵀ's is the part of rank `rank`, and adds
    distillation: that is the objective `anchor`. The texts are made of the tokenizer's words. Of peft's
    other initialisations of A and B, those that change W are not offered: their adapter would be wrong on the
    base as published.
    """

    citation: ClassVar[str] = "arXiv:2106.09685"
    default_learning_rate: ClassVar[float] = 5e-4
    max_learning_rate: ClassVar[float | None] = 5e-3

    rank: Annotated[int, Field(ge=1)] = 8  # columns of A and B: more learn more, and forget more
    alpha: Annotated[float, Field(gt=0)] = 16.0  # scale of the update, divided by the rank
    # Share of the inputs of an update that is set to zero in training.
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    towers: Literal["both", "image", "text"] = "both"  # which towers learn
    last_layers: Annotated[int, Field(ge=1)] | None = None  # null: all of them
    # Which layers of a block learn: those of attention, or also those of the MLP.
    targets: Literal["attention", "attention+mlp"] = "attention"
    rslora: bool = False  # alpha / √rank instead of alpha / rank
    dora: bool = False  # direction and length of each row learn apart
    # How A is drawn; B is zero in any case.
    init: Literal["kaiming", "gaussian", "residual", "null_space"] = "kaiming"
    protected_energy: Annotated[float, Field(gt=0, lt=1)] = 0.9  # of `init: residual`
    text_energy: Annotated[float, Field(gt=0, lt=1)] = 0.99  # of `init: null_space`
    train_logit_scale: bool = True  # whether scale and bias learn too

    def __post_init__(self) -> None:
        if self.init == "null_space" and self.towers == "image":
            raise RecipeError(
                "strategy.lora.init: null_space: is of the text tower, which towers: image leaves out: set "
                "strategy.lora.init=residual, or towers=both"
            )
        if self.init in ("residual", "null_space") and self.dora:
            raise RecipeError(
                f"strategy.lora.init: {self.init}: dora changes the length of whole rows, and with it what "
                "is protected: leave one of them out"
            )

    @property
    def frozen_towers(self) -> frozenset[Modality]:
        """The tower that `towers` leaves out."""
        return towers_without(self.towers != "text", self.towers != "image")

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """Adds the adapter; the factor on the learning rate by weight name."""
        from peft import LoraConfig, get_peft_model

        both: tuple[Literal["image", "text"], ...] = ("image", "text")
        adapted = both if self.towers == "both" else (self.towers,)
        layers = [name for side in adapted for name in self._layers(model, side)]
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
        fixed = {"residual": adapted, "null_space": ("text",)}.get(self.init, ())
        if fixed:
            self._fix_directions(model)
        patterns = [
            (rf"{side}/.*\.lora_({'B' if side in fixed else 'A|B|magnitude_vector'})\..*", 1.0)
            for side in adapted
        ]
        return model.set_trainable(
            [*patterns, ("(scale|bias)/.*", float(self.train_logit_scale)), (".*", 0.0)]
        )

    def _layers(self, model: DualEncoder, side: Literal["image", "text"]) -> list[str]:
        names = list(model.lora_targets(side, self.targets, self.last_layers))
        if not names:
            other = f"strategy.lora.towers={'text' if side == 'image' else 'image'}"
            wider = "strategy.lora.targets=attention+mlp, or " if self.targets == "attention" else ""
            raise RecipeError(
                f"strategy.lora.targets: {self.targets}: the {side} tower of this base has no such layers: "
                f"set {wider}{other}"
            )
        return names

    def _fix_directions(self, model: DualEncoder) -> None:
        import torch
        from peft.tuners.lora import LoraLayer

        from domainclip.config.recipe import AnchorTexts
        from domainclip.data.text.anchor_texts import make_sentences
        from domainclip.models.null_space import input_roots
        from domainclip.models.residual_subspace import residual_directions

        of_text = self.init == "null_space"
        modules = model.tower("text").modules() if of_text else model.hf_base.modules()
        layers: list[Any] = [module for module in modules if isinstance(module, LoraLayer)]
        if of_text:
            texts = make_sentences(
                model.text_tokenizer.hf_tokenizer, AnchorTexts(count=_GENERAL_TEXTS), seed=0
            )
            protected, energy = input_roots(model, layers, texts), self.text_energy
        else:
            protected = [layer.base_layer.weight.detach() for layer in layers]
            energy = self.protected_energy
        for layer, matrix in zip(layers, protected, strict=True):
            rows = residual_directions(matrix, self.rank, energy)
            if len(rows) < self.rank:
                key = "text_energy" if of_text else "protected_energy"
                raise RecipeError(
                    f"strategy.lora.rank: {self.rank} is more than the {len(rows)} directions that "
                    f"{key}: {energy:g} leaves free in a layer: lower one of them"
                )
            with torch.no_grad():  # rows of the length that peft draws on average
                layer.lora_A["default"].weight.copy_(rows / 3**0.5)

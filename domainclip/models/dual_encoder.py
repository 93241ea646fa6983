"""Towers: an image tower and a text tower with one embedding space, whatever family they come from."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from domainclip.models import layers, learned_prompts, parameters, patch_embeddings, saving, text_tokenizer
from domainclip.models.encoding import Encoding
from domainclip.models.image_preprocessor import ImagePreprocessor
from domainclip.models.layers import TOWER_MODULES, Modality


class DualEncoder(Encoding):
    """A checkpoint that can be trained: preprocessing, tokenising, embedding, naming and saving.

    Shapes: b items, d embedding width, l tokens, h and w pixels. Embeddings are fp32 of unit length.
    A family is a subclass in `families/` that states what differs.
    """

    objective: ClassVar[str] = "contrastive"  # what this family was trained with
    inputs: ClassVar[tuple[str, ...] | None] = None  # the tokenizer's outputs that the model was trained on
    fixed_length: ClassVar[bool] = False  # trained on padding, so padding changes the embedding

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, processor: Any, base: str, revision: str | None
    ) -> None:
        super().__init__()
        self.base = base
        self.revision = revision
        self.family: str = model.config.model_type
        self.hf_model = model
        self.added_modules = torch.nn.ModuleDict()
        if not self.fixed_length:  # places count from the left: padding there would move what a text says
            tokenizer.padding_side = "right"
        self.tokenizer = tokenizer
        self.processor = processor
        self.image_preprocessor = ImagePreprocessor.of(processor, f'base "{base}"')
        self.image_size = self.image_preprocessor.size
        self.width: int = _width(model.config)
        self.max_tokens = self._limit()
        # A checkpoint born above the usual bound keeps its own, or its first step would change it.
        self.max_log_scale = max(math.log(100), self._log_scale().item())
        self.register_buffer("mean", torch.tensor(self.image_preprocessor.mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.image_preprocessor.std), persistent=False)
        self.check()

    def encode_patches(self, image: dict[str, Tensor]) -> Tensor:
        """(b, n, d), a unit vector for each patch, in rows from the top left; see `towers/patches.py`.

        Raises: ModelError for a family whose patches have no fixed grid.
        """
        return patch_embeddings.encode_patches(self, image)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        edge: int = self.hf_base.config.vision_config.patch_size
        return self.image_size[0] // edge, self.image_size[1] // edge

    def tokenise(self, texts: list[str]) -> dict[str, Tensor]:
        """(b, l) ids, cut to `max_tokens` with the end-of-text token kept, padded no more than needed."""
        batch = self.tokenizer(
            self.worded(texts),
            padding="max_length" if self.fixed_length else "longest",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return {name: batch[name] for name in self.inputs or batch}

    def count_tokens(self, texts: list[str]) -> list[int]:
        """How long each text is before it is cut, special tokens included."""
        ids = self.tokenizer(self.worded(texts), return_attention_mask=False, verbose=False)["input_ids"]
        return [len(one) for one in ids]

    def reword(self) -> None:
        """To be called when the tokenizer or its limit has changed: both are looked at anew."""
        self.max_tokens = self._limit()
        self.__dict__.pop("wording", None)

    @cached_property
    def wording(self) -> str:
        """A key for how texts become ids; with `fingerprint` a key for what the model says of a text."""
        return text_tokenizer.fingerprint(self)

    def worded(self, texts: list[str]) -> list[str]:
        """The texts as the tokenizer is given them: clean, and with the words that were learnt."""
        return learned_prompts.insert_learned_tokens(self.tokenizer, self.clean(texts))

    def clean(self, texts: list[str]) -> list[str]:
        """The texts as the tokenizer wants them."""
        return texts

    def set_trainable(self, patterns: list[tuple[str, float]]) -> dict[str, float]:
        """Let learn what the first matching pattern gives a factor above 0, lock the rest.

        Returns the factor on the learning rate by weight name. A pattern matches whole names.

        Raises: RecipeError for a weight that no pattern covers, and a pattern that decides nothing.
        """
        # The heads of an objective are no strategy's business.
        named = {name: w for name, w in self.weights().items() if not name.startswith("extra/third.")}
        factors = parameters.match_patterns(named, patterns)
        for name, weight in named.items():
            weight.requires_grad_(factors[name] > 0)
        return factors

    def uses_weight_decay(self, name: str) -> bool:
        """Whether weight decay may pull at this weight."""
        return parameters.uses_weight_decay(name, self.weights()[name])

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the scale within 1 and its bound; to be called after each optimizer step."""
        self.hf_base.logit_scale.clamp_(0, self.max_log_scale)

    def lora_targets(self, part: Modality, kind: str, last_layers: int | None = None) -> list[str]:
        """Full names of the linear layers of a tower, as peft's `target_modules` wants them.

        `kind` is "attention" or "attention+mlp".

        Raises: RecipeError for a kind or a number of layers that there is not.
        """
        names = layers.lora_target_names(self._tower(part), kind, last_layers)
        return [f"{TOWER_MODULES[part]}.{name}" for name in names]

    def save(self, folder: str | Path) -> None:
        """Write a folder that plain transformers, or peft, loads, and `load` too.

        An adapter is written with the name of its base, and with scale and bias beside it.

        Raises: ModelError when a weight learns that an adapter cannot hold.
        """
        saving.save_model(self, Path(folder))

    def check(self) -> None:
        """Refuse a checkpoint whose parts do not fit together.

        Raises: ModelError that names the part and the way out.
        """
        rows = self.hf_base.config.text_config.vocab_size
        if len(self.tokenizer) > rows:
            self.refuse(
                f"its tokenizer has {len(self.tokenizer)} tokens, its text tower only {rows}; "
                "use the tokenizer that belongs to it"
            )
        if self.tokenizer.pad_token_id is None:
            self.refuse("its tokenizer has no padding token; name one in tokenizer_config.json")
        if self.image_preprocessor.patch:  # such a tower takes images of any size
            return
        side = getattr(self.hf_base.config.vision_config, "image_size", None)
        wanted = (side, side) if isinstance(side, int) else tuple(side or self.image_size)
        if wanted != self.image_size:
            self.refuse(
                f"its preprocessor gives {_by(self.image_size)} pixels, its image tower takes {_by(wanted)}; "
                "mend the sizes in preprocessor_config.json"
            )

    def check_end_of_text(self, pools_at: int) -> None:
        """For families that read a text at its end-of-text token: every text must end in `pools_at`."""
        end = int(self.tokenise(["a " * self.max_tokens])["input_ids"][0, -1])
        if end != pools_at:
            self.refuse(
                f"its tokenizer ends a text with the id {end}, its text tower reads at the id {pools_at}; "
                "mend text_config.eos_token_id in config.json, or the tokenizer"
            )

    def _limit(self) -> int:
        positions: int = self.hf_base.config.text_config.max_position_embeddings
        for name, module in self.hf_base.text_model.named_modules():
            # RoBERTa and its kin count positions from behind the padding index.
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                positions -= module.padding_idx + 1
        return min(positions, int(self.tokenizer.model_max_length))


def _width(config: Any) -> int:
    return int(getattr(config, "projection_dim", None) or config.text_config.projection_size)


def _by(size: tuple[int, ...]) -> str:
    return " by ".join(str(edge) for edge in size)
